"""Training steps, evaluation, PRMS and loading in the straightforward way, as the published code goes about them.

Only what differs is written out; networks, losses and figures are the project's.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from clip import encode_text, tokenize
from dataset.masks import rasterise
from dataset.photos import resized, to_input
from dataset.references import Reference, Split
from dataset.samples import EvalBatch, Target
from model.losses import classification_loss, foreground_loss, negative_loss
from model.scorer import Scorer
from model.stage1 import Stage1Output
from utils.engine import Criterion
from utils.maps import at_photo_size
from utils.metrics import Outcome, evaluate_response


def as_published(network: nn.Module, size: int) -> nn.Module:
    """In the plain memory format, the backbone's attention pool evaluated for images of `size` and thrown away."""
    network = network.to(memory_format=torch.contiguous_format)
    visual = network.backbone.visual
    pool, side = visual.attnpool, size // 32
    positions = pool.positional_embedding.detach()  # (1 + n * n, C)
    grid = positions[1:].T.reshape(1, -1, *[round((len(positions) - 1) ** 0.5)] * 2)
    grid = F.interpolate(grid, (side, side), mode="bilinear").flatten(2)[0].T
    pool.positional_embedding = nn.Parameter(torch.cat([positions[:1], grid]), requires_grad=False)

    def evaluate_pool(layer: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        pool(output)

    visual.layer4.register_forward_hook(evaluate_pool)
    return network


class UnfrozenStage1Criterion(Criterion):
    """Stage 1's losses with gradients collected in the scorer, where every sentence is encoded anew for every loss.

    Of the batch: `image` (B, 3, S, S), `tokens` (B, T) and `negative_tokens` (B, k, T).
    """

    def __init__(self, scorer: Scorer, weights: dict[str, float]):
        super().__init__(weights)
        self.scorer = scorer
        scorer.clip.requires_grad_(True)

    def __call__(self, output: Stage1Output, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        image, mask = self.scorer.resize(batch["image"]), self.scorer.resize(output.response.sigmoid())
        _ = (1 - mask) * image  # backgrounds are made and never used
        foreground = self.scorer.embed_images(image, mask)
        losses = {
            "classification": classification_loss(output.scores),
            "foreground": foreground_loss(foreground, self._embed(batch["tokens"])),
        }
        foreground = self.scorer.embed_images(image, mask)
        negatives = [self._embed(tokens) for tokens in batch["negative_tokens"].unbind(1)]
        return losses | {"negative": negative_loss(foreground, torch.stack(negatives, dim=1))}

    def _embed(self, tokens: torch.Tensor) -> torch.Tensor:
        return F.normalize(encode_text(self.scorer.clip, tokens).pooled, dim=-1)


def respond(network: nn.Module, image: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """The response map of one image (1, 3, S, S) for one sentence (1, T), (1, 1, S, S), centred."""
    return centred(network(image, tokens).response.relu())


def centred(responses: torch.Tensor) -> torch.Tensor:
    """What exceeds a map's mean: the maps of random weights, with some structure for the boxes."""
    return (responses - responses.mean(dim=(2, 3), keepdim=True)).relu()


@torch.no_grad()
def evaluate_each_sentence(network: nn.Module, batch: EvalBatch) -> tuple[list[np.ndarray], list[Outcome]]:
    """Maps and outcomes of the sentences of one ref; the image is encoded for each."""
    target = batch.targets[0]
    maps = [
        at_photo_size(respond(network, batch.images, tokens[None]), target.size)[0].cpu().numpy()
        for tokens in batch.tokens
    ]
    return maps, [_outcome(network, target, response, sentence) for sentence, response in enumerate(maps)]


@torch.no_grad()
def select_among_sentences(
    network: nn.Module, scorer: Scorer, batch: EvalBatch
) -> tuple[list[np.ndarray], list[Outcome]]:
    """PRMS on one ref of n sentences: n maps, and n x n scores, each of which encodes image and sentence again."""
    best, best_score, target = None, -1.0, batch.targets[0]
    for tokens in batch.tokens:
        response = respond(network, batch.images, tokens[None])
        score = 0.0
        for sentence in batch.tokens:
            foreground = scorer.embed_images(scorer.resize(batch.images), scorer.resize(response))
            score += float((foreground * scorer.embed_sentences(sentence[None])).sum())
        if score > best_score:
            best, best_score = response, score
    selected = at_photo_size(best, target.size)[0].cpu().numpy()
    outcome = _outcome(network, target, selected, 0)
    count = len(batch.tokens)  # the ref counts once for each of its sentences
    return [selected] * count, [outcome._replace(sentence=sentence) for sentence in range(count)]


def _outcome(network: nn.Module, target: Target, response: np.ndarray, sentence: int) -> Outcome:
    mask = response > network.mask_threshold
    return evaluate_response(response, mask, target.mask, target.box, target.reference.index, sentence)


def load_sample(
    split: Split, reference: Reference, negatives: list[str], size: int, length: int
) -> tuple[torch.Tensor, ...]:
    """A training sample: image (3, size, size), tokens (length,), and what training does not need for its losses.

    The true mask, bool (H, W), is drawn in training as well; negative sentences are tokenised one by one.
    """
    photo = Image.open(split.photo_path(reference)).convert("RGB")
    mask = rasterise(reference.segmentation, photo.height, photo.width)
    own, *others = (tokenize([sentence], length)[0] for sentence in (reference.sentences[0], *negatives))
    return to_input(resized(photo, size)), own, torch.stack(others), torch.from_numpy(mask)
