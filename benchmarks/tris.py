"""The rows of training, evaluation, PRMS and loading: ours, and the straightforward way as the published code has it.

Of the straightforward way only what differs is written out; networks, losses and metrics are the project's own.
"""

import copy
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from pycocotools import mask as coco
from torch import nn

from benchmarks.timing import Pair, Results, Setting, use_tf32
from clip import build_clip, encode_text, image_pyramid, tokenize
from dataset.masks import rasterise, run_lengths
from dataset.photos import read_photo, resized, to_input
from dataset.references import Reference, Split
from dataset.samples import EvalBatch, EvalPhotos, Target, TrainSamples, eval_loader
from model.build import Architecture, build_network
from model.evaluation import responses
from model.losses import Stage1Criterion, Stage2Criterion, classification_loss, foreground_loss, negative_loss
from model.prediction import segment_many
from model.prms import select_maps
from model.scorer import Scorer, SentenceTable
from model.segmenter import Segmenter
from model.stage1 import Stage1Output
from utils.distributed import data_parallel
from utils.engine import Criterion, Precision, Training, build_optimizer, polynomial_decay, train_step
from utils.maps import at_photo_size
from utils.metrics import evaluate_response

QUERY_LENGTH = 20
NEGATIVES = 3


def sentences(count: int) -> list[str]:
    """Distinct referring expressions of the usual length."""
    colours = ("red", "blue", "green", "black", "white", "brown", "grey", "yellow")
    things = ("man", "dog", "cup", "bus", "umbrella", "giraffe", "chair", "surfboard")
    places = ("on the left", "behind the table", "next to the woman in a coat", "in front", "that is cut off")
    return [f"the {c} {t} {p}" for p, t, c in islice(product(places, things, colours), count)]


def smooth(*shape: int) -> torch.Tensor:
    """Random smooth images (B, C, H, W) with a standard deviation near 1."""
    return F.interpolate(torch.randn(*shape[:2], 8, 8), shape[2:], mode="bicubic")


def random_network(setting: Setting, stage: int) -> nn.Module:
    torch.manual_seed(0)
    architecture = Architecture(setting.backbone, setting.hidden_dim)
    return build_network(stage, architecture, pretrained=False).to(setting.device)


def random_scorer(setting: Setting, amp: torch.dtype | None = None) -> Scorer:
    torch.manual_seed(0)
    return Scorer(build_clip(setting.scorer, pretrained=False), amp).to(setting.device)


def as_published(network: nn.Module, size: int) -> nn.Module:
    """In the plain memory format, and the backbone's attention pool is evaluated for images of `size`, for nothing."""
    network = network.to(memory_format=torch.contiguous_format)
    pool = network.backbone.visual.attnpool
    positions = pool.positional_embedding.new_zeros(1 + (size // 32) ** 2, pool.positional_embedding.shape[1])
    pool.positional_embedding = nn.Parameter(positions, requires_grad=False)

    def evaluate_pool(layer: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        pool(output)

    network.backbone.visual.layer4.register_forward_hook(evaluate_pool)
    return network


class UnfrozenStage1Criterion(Criterion):
    """Stage 1's losses with gradients collected in the scorer, where every sentence is encoded anew for every loss."""

    def __init__(self, scorer: Scorer):
        super().__init__({"classification": 5.0, "foreground": 1.0, "negative": 2.0})
        self.scorer = scorer
        scorer.clip.requires_grad_(True)

    def __call__(self, output: Stage1Output, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        image, mask = self.scorer.resize(batch["image"]), self.scorer.resize(output.response.sigmoid())
        _ = (1 - mask) * image  # backgrounds are made and never used
        columns = [batch["tokens"], *batch["negative_tokens"].unbind(1)]
        positive, *negatives = (F.normalize(encode_text(self.scorer.clip, c).pooled, dim=-1) for c in columns)
        return {
            "classification": classification_loss(output.scores),
            "foreground": foreground_loss(self.scorer.embed_images(image, mask), positive),
            "negative": negative_loss(self.scorer.embed_images(image, mask), torch.stack(negatives, dim=1)),
        }


def training_step(
    network: nn.Module, criterion: Criterion, setting: Setting, precision: str = "float32", fused: bool = True
) -> Callable[[], Results]:
    """One optimiser step, always on the same batch in memory; returns losses and gradients.

    precision: of matrix products, float32, tf32 or bf16. fused: AdamW as one kernel, not as torch chooses it.
    """
    count, side = setting.batch_size, setting.input_size
    torch.manual_seed(1)
    tokens = tokenize(sentences(count * (1 + NEGATIVES)), QUERY_LENGTH).to(setting.device)
    negatives = torch.arange(count, len(tokens)).view(count, NEGATIVES)
    batch = {
        "image": smooth(count, 3, side, side).to(setting.device),
        "mask": (smooth(count, 1, side, side) > 0).to(setting.device, torch.get_default_dtype()),
        "tokens": tokens[:count],
        "negative_tokens": tokens[negatives],  # (B, k, T), for the straightforward way only
        "ids": {"sentence": torch.arange(count), "negatives": negatives},
    }
    optimizer = build_optimizer(network.train(), lr=5e-5, lr_multi=0.1, weight_decay=0.01)
    for group in optimizer.param_groups:
        group["fused"] = fused or None
    amp = Precision("bf16" if precision == "bf16" else "off", setting.device)
    schedule = polynomial_decay(optimizer, total_steps=1)  # never advanced
    training = Training(network, network, criterion, optimizer, schedule, amp)

    def step() -> Results:
        use_tf32(precision == "tf32")
        losses = train_step(training, [batch])
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        return [losses[name] for name in sorted(losses)], gradients

    return step


def training(stage: int, setting: Setting, precision: str = "float32", compiled: bool = False) -> Pair:
    """An optimiser step of stage 1 or 2, beside one in float32."""
    ours = straightforward = Stage2Criterion()
    if stage == 1:
        amp = torch.bfloat16 if precision == "bf16" else None
        table = SentenceTable(
            random_scorer(setting, amp), sentences(setting.batch_size * (1 + NEGATIVES)), QUERY_LENGTH
        )
        ours, straightforward = Stage1Criterion(table), UnfrozenStage1Criterion(random_scorer(setting))
    network = data_parallel(random_network(setting, stage), setting.device, compiled)
    plain = as_published(random_network(setting, stage), setting.input_size)
    return Pair(
        training_step(network, ours, setting, precision),
        training_step(plain, straightforward, setting, fused=False),
        count=setting.batch_size,
        precision=precision,
        repeats=3,
    )


@torch.no_grad()
def evaluation(count: int, with_prms: bool, setting: Setting) -> Pair:
    """Maps and outcomes of one photo with one ref of `count` sentences, without or with PRMS."""
    height, width = setting.photo_size
    box = (0.2 * width, 0.2 * height, 0.7 * width, 0.8 * height)
    reference = Reference(0, 0, 0, "", setting.photo_size, tuple(sentences(count)), box)
    target = Target(
        reference, Path("photo.jpg"), rasterise([triangle(height, width)], height, width), box, setting.photo_size
    )
    torch.manual_seed(1)
    batch = EvalBatch(
        images=smooth(1, 3, setting.input_size, setting.input_size),
        tokens=tokenize(reference.sentences, QUERY_LENGTH),
        photo=torch.zeros(count, dtype=torch.int64),
        target=torch.zeros(count, dtype=torch.int64),
        targets=[target],
    ).to(setting.device)
    network = random_network(setting, 1).eval()
    # Features centred on the photo: with random weights masks would otherwise be all of it or nothing.
    features = network.visual_projection(image_pyramid(network.backbone, batch.images)[3])
    network.visual_projection.bias -= features.mean(dim=(0, 2, 3))
    plain = as_published(copy.deepcopy(network), setting.input_size)
    scorer = random_scorer(setting) if with_prms else None
    unfrozen = copy.deepcopy(scorer).requires_grad_(True) if with_prms else None

    def with_outcomes(maps: list[np.ndarray]) -> Results:
        outcomes = [
            evaluate_response(response, response > network.mask_threshold, target.mask, target.box, 0, sentence)
            for sentence, response in enumerate(maps)
        ]
        return [torch.from_numpy(response) for response in maps], [torch.tensor(outcome) for outcome in outcomes]

    def ours() -> Results:
        combine = partial(select_maps, scorer) if scorer else None
        found = responses(network, [batch], batch.images.device, combine)
        return with_outcomes([response for _, maps, _ in found for response in maps])

    def straightforward() -> Results:
        maps = select_among_sentences(unfrozen, plain, batch) if with_prms else evaluate_each_sentence(plain, batch)
        return with_outcomes([at_photo_size(m, setting.photo_size)[0].cpu().numpy() for m in maps])

    return Pair(ours, straightforward)


@torch.no_grad()
def evaluate_each_sentence(network: nn.Module, batch: EvalBatch) -> list[torch.Tensor]:
    """Maps (1, 1, S, S), where the image is encoded again for each sentence."""
    return [network(batch.images, tokens[None]).response.relu() for tokens in batch.tokens]


@torch.no_grad()
def select_among_sentences(scorer: Scorer, network: nn.Module, batch: EvalBatch) -> list[torch.Tensor]:
    """PRMS of n sentences: n maps and n x n scores, each of which encodes image and sentence again."""
    maps = evaluate_each_sentence(network, batch)
    scores = []
    for response in maps:
        scores.append(0.0)
        for sentence in batch.tokens:
            masked = scorer.embed_images(scorer.resize(batch.images), scorer.resize(response))
            scores[-1] += float((masked * scorer.embed_sentences(sentence[None])).sum())
    return [maps[scores.index(max(scores))]] * len(maps)


def loading(setting: Setting) -> Pair:
    """Training samples, all from one photo in the setting's folder."""
    height, width = setting.photo_size
    pixels = (smooth(1, 3, height, width)[0] * 40 + 128).clamp(0, 255).byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(setting.folder / "0.jpg", quality=90)
    references = [
        Reference(index, index, 0, "0.jpg", (height, width), (text,), segmentation=[triangle(height, width)])
        for index, text in enumerate(sentences(16))
    ]
    split = Split("benchmark", "train", setting.folder, references)
    samples = TrainSamples(split, setting.input_size, QUERY_LENGTH, 0, NEGATIVES)

    def load() -> Results:
        loaded = [samples[i] for i in range(len(references))]
        return [sample["image"] for sample in loaded], [sample["tokens"] for sample in loaded]

    def load_with_masks() -> Results:
        # The true mask is drawn in training as well, and negative sentences are tokenised one by one.
        images, tokens = [], []
        for reference in references:
            photo = read_photo(split.photo_path(reference))
            rasterise(reference.segmentation, photo.height, photo.width)
            images.append(to_input(resized(photo, setting.input_size)))
            tokens.append([tokenize([text], QUERY_LENGTH)[0] for text in reference.sentences * (1 + NEGATIVES)][0])
        return images, tokens

    return Pair(load, load_with_masks, count=len(references))


def prediction(setting: Setting) -> Pair:
    """Masks of eight photos with three sentences each, from JPEG files to run lengths; returns the masks' areas."""
    height, width = setting.photo_size
    torch.manual_seed(1)
    references = [Reference(i, i, i, f"{i}.jpg", None, tuple(sentences(3))) for i in range(8)]
    for reference, pixels in zip(references, smooth(8, 3, height, width), strict=True):
        picture = (pixels * 40 + 128).clamp(0, 255).byte().permute(1, 2, 0).numpy()
        Image.fromarray(picture).save(setting.folder / reference.photo, quality=90)
    split = Split("benchmark", "train", setting.folder, references)
    segmenter = Segmenter(random_network(setting, 2), setting.input_size, QUERY_LENGTH, setting.device)
    threads = torch.get_num_threads()

    def areas(masks: Iterable[dict[str, Any]]) -> Results:
        return [[torch.tensor(coco.area(runs)) for runs in masks]]

    def ours() -> Results:
        photos = EvalPhotos(split, setting.input_size, QUERY_LENGTH, masks=False)
        batches = segment_many(segmenter.network, eval_loader(photos, 4, 0), setting.device)
        return areas(runs for found in batches for _, masks in found for runs, *_ in masks)

    def straightforward() -> Results:
        torch.set_num_threads(threads)  # as before ours
        pairs = ((split.photo_path(r), sentence) for r in references for sentence in r.sentences)
        return areas(run_lengths(segmenter.segment(read_photo(path), [text])[0]) for path, text in pairs)

    return Pair(ours, straightforward, count=len(references), unit="photos")


def triangle(height: int, width: int) -> list[float]:
    """The polygon of every object, x and y in turns, in pixels."""
    return [0.2 * width, 0.2 * height, 0.7 * width, 0.3 * height, 0.6 * width, 0.8 * height]


ROWS: dict[str, Callable[[Setting], Pair]] = {
    **{f"stage{stage}_step": partial(training, stage) for stage in (1, 2)},
    **{f"stage{stage}_step_bf16": partial(training, stage, precision="bf16") for stage in (1, 2)},
    **{f"evaluate_{count}": partial(evaluation, count, False) for count in (1, 2, 3, 4)},
    **{f"prms_{count}": partial(evaluation, count, True) for count in (1, 2, 3, 4)},
    "loading": loading,
    "predict_3": prediction,
}
GPU_ROWS: dict[str, Callable[[Setting], Pair]] = {
    f"stage{stage}_step_{name}": partial(training, stage, precision=name.split("_")[0], compiled="compiled" in name)
    for stage in (1, 2)
    for name in ("tf32", "bf16_compiled")
}
