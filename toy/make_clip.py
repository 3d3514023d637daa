"""Train the small networks that the toy world's pipeline starts from, as real pipelines start from published ones.

    bash scripts/make_toy_clip.sh

They are the toy CLIP's backbone and scorer (clip.pt) and the ResNet of IRNet (resnet.pt). The same flags give the same
weights on the same machine. Training uses no mask and no box, and none of the scenes that `python -m toy` draws.
"""

from utils.start import run_script

import argparse
import math
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import cv2
import open_clip
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from clip import encode_text
from clip.loading import TOY, TOY_WEIGHTS
from IRNet.network import TOY_WEIGHTS as TOY_RESNET
from IRNet.network import toy_backbone
from toy.photos import Photo, make_photo
from toy.scenes import COLOURS, SHAPES
from toy.views import ToyViews, collate, collate_classes, vocabulary_rows
from utils.checkpoint import save_checkpoint
from utils.options import Parser, non_negative_int, positive_int

WORLD = 900_001  # the seed of the scenes; no toy world should use it
BACKBONE, SCORER = "toy-RN", "toy-RNS"  # architectures, described in toy/*.json
GAIN = 6.0  # the scorer's: PRMS multiplies photos by unnormalised response maps
SCORER_TEMPERATURE = 1 / 20
WARM_UP = 50  # steps


class Phase(NamedTuple):
    """A stretch of training; `shares` are the probabilities of close-ups, focused views and whole photos."""

    size: int  # pixels
    steps: int
    batch: int
    lr: float
    shares: tuple[float, float, float]


# Close-ups teach shapes cheaply. Everything else is learnt from photos as stage 1 or the scorer sees them. The backbone
# sees few whole ones: their captions are true wherever the object is, so features of the background learn to tell of
# objects elsewhere, and stage 1 could no longer find the place.
BACKBONE_PHASES = (Phase(96, 1500, 64, 2e-3, (1.0, 0.0, 0.0)), Phase(320, 700, 32, 1e-3, (0.0, 0.9, 0.1)))
SCORER_PHASES = (Phase(96, 300, 64, 1.5e-3, (1.0, 0.0, 0.0)), Phase(96, 600, 64, 1.2e-3, (0.2, 0.8, 0.0)))
RESNET_PHASE = Phase(96, 500, 64, 2e-3, (1.0, 0.0, 0.0))


class Classifier(nn.Module):
    """IRNet's toy backbone with a logit for each shape and each colour, from image labels as ImageNet's are."""

    def __init__(self):
        super().__init__()
        self.backbone = toy_backbone()
        self.head = nn.Linear(self.backbone.channels[-1], len(SHAPES) + len(COLOURS))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images: (B, 3, S, S). Returns logits (B, number of shapes + number of colours)."""
        return self.head(self.backbone(images)[-1].mean(dim=(2, 3)))


def train_networks(photos: list[Photo], share: float, seed: int) -> tuple[dict[str, open_clip.CLIP], Classifier]:
    """Backbone and scorer in one process, the classifier in another, after `share` of the usual steps."""
    backbone, scorer, classifier = _new_clip(BACKBONE), _new_clip(SCORER), Classifier()
    # In the other process torch is told to use one thread, because OpenMP's threads do not survive a fork.
    with ProcessPoolExecutor(1, get_context("fork"), torch.set_num_threads, (1,)) as other_core:
        views = _draw_views(photos, RESNET_PHASE, share, 1.0, seed + 20)
        trained = other_core.submit(_train, classifier, class_loss, views, collate_classes, RESNET_PHASE, "resnet")

        pool = backbone.visual.attnpool
        for number, phase in enumerate(BACKBONE_PHASES):
            # Stage 1 takes c4 alone, so c4 has to show where things are: the attention pool gets no positions.
            positions = torch.zeros((phase.size // 32) ** 2 + 1, pool.positional_embedding.shape[1])
            pool.positional_embedding = nn.Parameter(positions, requires_grad=False)
            views = _draw_views(photos, phase, share, 1.0, seed + number)
            _train(backbone, clip_loss, views, collate, phase, "backbone")

        # The scorer takes its words from the trained backbone, so only its image tower is trained.
        words = {key: value for key, value in backbone.state_dict().items() if not key.startswith("visual.")}
        scorer.load_state_dict(words, strict=False)
        scorer.requires_grad_(False)
        scorer.visual.requires_grad_(True)
        scorer.logit_scale.fill_(-math.log(SCORER_TEMPERATURE))
        for number, phase in enumerate(SCORER_PHASES):
            views = _draw_views(photos, phase, share, GAIN, seed + 10 + number)
            _train(scorer, clip_loss, views, collate, phase, "scorer")
        classifier.load_state_dict(trained.result())
    return {BACKBONE: backbone, SCORER: scorer}, classifier


def _new_clip(architecture: str) -> open_clip.CLIP:
    """A model with random weights whose vocabulary is `vocabulary_rows` alone."""
    config = open_clip.get_model_config(architecture)
    config["text_cfg"]["vocab_size"] = len(vocabulary_rows())
    return open_clip.CLIP(**config, quick_gelu=True)


def _draw_views(photos: list[Photo], phase: Phase, share: float, gain: float, seed: int) -> ToyViews:
    count = max(1, int(share * phase.steps)) * phase.batch
    return ToyViews(photos, count, phase.size, phase.shares, gain, seed)


def _train(
    network: nn.Module, loss_of: Callable, views: ToyViews, collate: Callable, phase: Phase, title: str
) -> dict[str, torch.Tensor]:
    """Train on each view once and return the network's state; the learning rate rises, then falls along a cosine.

    `loss_of(network, *batch)` is the loss of a batch that `collate` made.
    """
    loader = DataLoader(views, phase.batch, num_workers=1, collate_fn=collate)
    network.train().to(memory_format=torch.channels_last)
    trained = [p for p in network.parameters() if p.requires_grad]
    matrices, others = [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=phase.lr, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / WARM_UP) * (1 + math.cos(math.pi * step / len(loader))) / 2
    )
    bar = tqdm(loader, desc=f"{title}, {phase.size} pixels", unit="step", disable=None)
    for batch in bar:
        loss = loss_of(network, *batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}")
    return network.eval().state_dict()


def clip_loss(model: open_clip.CLIP, images: torch.Tensor, tokens: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """The contrastive loss of a batch from `collate`."""
    with torch.autocast("cpu", torch.bfloat16):  # nearly three times as fast if the processor has bfloat16
        image = model.encode_image(images.contiguous(memory_format=torch.channels_last)).float()  # (B, D)
    text = encode_text(model, tokens).pooled  # (B, D)
    scores = model.logit_scale.exp().clamp(max=50) * F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T
    return contrastive_loss(scores, truth)


def class_loss(classifier: Classifier, images: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of shape plus that of colour, of a batch from `collate_classes`."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = classifier(images.contiguous(memory_format=torch.channels_last)).float()
    shape, colour = logits.split((len(SHAPES), len(COLOURS)), dim=1)
    return F.cross_entropy(shape, classes[:, 0]) + F.cross_entropy(colour, classes[:, 1])


def contrastive_loss(scores: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """CLIP's cross-entropy of scores (B, B) between images and captions, averaged over both directions.

    In a world of few words many captions are true of many images. All pairs that are true according to `truth`,
    bool (B, B), share the target probability equally.
    """
    target = truth.float()
    to_text = -(scores.log_softmax(dim=1) * target).sum(dim=1) / target.sum(dim=1)
    to_image = -(scores.log_softmax(dim=0) * target).sum(dim=0) / target.sum(dim=0)
    return (to_text.mean() + to_image.mean()) / 2


def save_networks(folder: Path, models: dict[str, open_clip.CLIP], classifier: Classifier) -> None:
    """Write clip.pt for `build_clip` and resnet.pt for IRNet, in half precision.

    The backbone's attention pool, half of its parameters, is left out, because only this training evaluates it.
    """
    stored = {}
    for name, model in models.items():
        left_out = "visual.attnpool." if name == BACKBONE else ()
        state = {key: value.half() for key, value in model.state_dict().items() if not key.startswith(left_out)}
        stored[name] = state | {"token_rows": torch.tensor(vocabulary_rows(), dtype=torch.int32)}
    save_checkpoint(folder / TOY_WEIGHTS.name, stored)
    resnet = {key: value.half() for key, value in classifier.backbone.state_dict().items()}
    save_checkpoint(folder / TOY_RESNET.name, resnet)


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__, "bash scripts/make_toy_clip.sh")
    parser.add_argument("--output", type=Path, default=TOY, help="folder to write clip.pt and resnet.pt to")
    parser.add_argument("--seed", type=non_negative_int, default=0, help="seed of the weights and of the views")
    parser.add_argument("--photos", type=positive_int, default=3000, help="number of scenes to train on")
    parser.add_argument("--percent", type=positive_int, default=100, help="of the usual steps; 1 for a quick trial")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    torch.set_num_threads(1)  # two processes share two cores
    cv2.setNumThreads(1)  # the data loaders draw in processes of their own
    torch.manual_seed(args.seed)
    numbers = tqdm(range(args.photos), desc="scenes", unit="photo", disable=None)
    photos = [make_photo(WORLD, index, "train") for index in numbers]
    save_networks(args.output, *train_networks(photos, args.percent / 100, args.seed))
    print(f"{args.output}: {TOY_WEIGHTS.name} and {TOY_RESNET.name}")


if __name__ == "__main__":
    run_script(main, lasting=True)
