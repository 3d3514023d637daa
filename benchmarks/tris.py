"""The rows of training, evaluation, PRMS and loading. Weights are random, so nothing is fetched."""

import copy
from collections.abc import Callable
from functools import partial
from itertools import cycle, islice, product
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from benchmarks.naive_tris import (
    UnfrozenStage1Criterion,
    as_published,
    centred,
    evaluate_each_sentence,
    load_sample,
    select_among_sentences,
)
from benchmarks.timing import Pair, Results, Setting
from clip import build_clip, tokenize
from dataset.masks import rasterise
from dataset.references import Reference, Split
from dataset.samples import EvalBatch, NegativeSentences, Target, TrainSamples, all_sentences
from model.build import Architecture, build_network
from model.losses import Stage1Criterion, Stage2Criterion
from model.predict import Predict
from model.prms import with_prms
from model.scorer import Scorer, SentenceTable
from utils.engine import Criterion, Training, amp_dtype, optimise
from utils.evaluator import evaluate
from utils.maps import Responses
from utils.metrics import Outcome
from utils.optimisation import build_optimizer, polynomial_decay

QUERY_LENGTH = 20
NEGATIVES = 3
LOADED = 16  # samples of the loading row


def sentences(count: int) -> list[str]:
    """Distinct referring expressions, of the usual length."""
    colours = ("red", "blue", "green", "black", "white", "brown", "grey", "yellow")
    things = ("man", "dog", "cup", "bus", "umbrella", "giraffe", "chair", "surfboard")
    places = ("on the left", "behind the table", "next to the woman in a coat", "in front", "that is cut off")
    return [f"the {c} {t} {p}" for p, t, c in islice(product(places, things, colours), count)]


def smooth(*shape: int) -> torch.Tensor:
    """Random smooth images or maps (..., H, W) with a standard deviation near 1."""
    *rest, height, width = shape
    coarse = torch.randn(int(np.prod(rest)), 1, 8, 8)
    return F.interpolate(coarse, (height, width), mode="bicubic").reshape(shape)


def random_network(setting: Setting, stage: int) -> nn.Module:
    torch.manual_seed(0)
    return build_network(stage, Architecture(setting.backbone, setting.hidden_dim), pretrained=False)


def random_scorer(setting: Setting, amp: torch.dtype | None = None) -> Scorer:
    torch.manual_seed(0)
    return Scorer(build_clip(setting.scorer, pretrained=False), amp).to(setting.device)


def stage1_batch(setting: Setting) -> dict:
    """A training batch in memory, with the sentences' tokens that only the straightforward way needs."""
    count = setting.batch_size
    tokens = tokenize(sentences(count * (1 + NEGATIVES)), QUERY_LENGTH).to(setting.device)
    negatives = torch.arange(count, len(tokens)).view(count, NEGATIVES)
    return {
        "image": smooth(count, 3, setting.input_size, setting.input_size).to(setting.device),
        "tokens": tokens[:count],
        "negative_tokens": tokens[negatives],
        "ids": {"reference": torch.arange(count), "sentence": torch.arange(count), "negatives": negatives},
    }


def our_stage1(setting: Setting) -> Callable[[], Results]:
    amp = amp_dtype("auto", setting.device)
    network = random_network(setting, 1).to(setting.device)
    texts = sentences(setting.batch_size * (1 + NEGATIVES))
    table = SentenceTable(random_scorer(setting, amp), texts, QUERY_LENGTH)
    return partial(_step, _training(network, Stage1Criterion(table), amp), stage1_batch(setting))


def stage1_step(setting: Setting) -> Pair:
    ours = our_stage1(setting)
    training, batch = ours.args
    network = as_published(random_network(setting, 1), setting.input_size).to(setting.device)
    criterion = UnfrozenStage1Criterion(random_scorer(setting), training.criterion.weights)
    return Pair(ours, partial(_step, _training(network, criterion), batch), repeats=3)


def our_stage2(setting: Setting) -> Callable[[], Results]:
    network = random_network(setting, 2).to(setting.device)
    side = setting.input_size
    batch = stage1_batch(setting) | {"mask": (smooth(setting.batch_size, 1, side, side) > 0).float().to(setting.device)}
    training = _training(network, Stage2Criterion(), amp_dtype("auto", setting.device))
    return partial(_step, training, batch)


def stage2_step(setting: Setting) -> Pair:
    ours = our_stage2(setting)
    network = as_published(random_network(setting, 2), setting.input_size).to(setting.device)
    return Pair(ours, partial(_step, _training(network, Stage2Criterion()), ours.args[1]), repeats=3)


def _training(network: nn.Module, criterion: Criterion, amp: torch.dtype | None = None) -> Training:
    optimizer = build_optimizer(network, lr=5e-5, lr_multi=0.1, weight_decay=0.01)
    return Training(network.train(), criterion, optimizer, polynomial_decay(optimizer, 10_000), amp=amp)


def _step(training: Training, batch: dict) -> Results:
    """One optimiser step; losses and gradients."""
    losses, _ = optimise(training, [batch], 1)
    gradients = [p.grad for p in training.network.parameters() if p.grad is not None]
    return [losses[name] for name in sorted(losses)], gradients


def eval_batch(setting: Setting, counts: tuple[int, ...]) -> EvalBatch:
    """One photo with a ref for each of `counts`, its number of sentences."""
    height, width = setting.photo_size
    outline = [0.2 * width, 0.2 * height, 0.7 * width, 0.3 * height, 0.6 * width, 0.8 * height]
    mask = rasterise([outline], height, width)
    box = (0.2 * width, 0.2 * height, 0.7 * width, 0.8 * height)
    texts = cycle(sentences(64))
    refs = [Reference(i, i, 0, "", height, width, tuple(islice(texts, n)), box) for i, n in enumerate(counts)]
    torch.manual_seed(1)
    batch = EvalBatch(
        images=smooth(1, 3, setting.input_size, setting.input_size),
        tokens=tokenize(all_sentences(refs), QUERY_LENGTH),
        photo=torch.zeros(sum(counts), dtype=torch.int64),
        target=torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)),
        targets=[Target(reference, mask, box, setting.photo_size) for reference in refs],
    )
    return batch.to(setting.device)


def our_evaluation(setting: Setting, network: nn.Module, batch: EvalBatch) -> Callable[[], Results]:
    return partial(_evaluate, _centred_predict(network), network.mask_threshold, batch, setting.device)


def our_prms(setting: Setting, network: nn.Module, scorer: Scorer, batch: EvalBatch) -> Callable[[], Results]:
    predict = with_prms(_centred_predict(network), scorer)
    return partial(_evaluate, predict, network.mask_threshold, batch, setting.device)


def evaluation(count: int, setting: Setting) -> Pair:
    network, batch = random_network(setting, 1).eval().to(setting.device), eval_batch(setting, (count,))
    plain = as_published(copy.deepcopy(network), setting.input_size)
    ours = our_evaluation(setting, network, batch)
    return Pair(ours, lambda: _as_results(*evaluate_each_sentence(plain, batch)))


def prms(count: int, setting: Setting) -> Pair:
    network, batch = random_network(setting, 1).eval().to(setting.device), eval_batch(setting, (count,))
    plain, scorer = as_published(copy.deepcopy(network), setting.input_size), random_scorer(setting)
    ours = our_prms(setting, network, scorer, batch)
    return Pair(ours, lambda: _as_results(*select_among_sentences(plain, scorer, batch)))


def _centred_predict(network: nn.Module) -> Predict:
    def predict(batch: EvalBatch) -> Responses:
        responses = network.respond(batch.images, batch.tokens, batch.photo)
        return responses._replace(maps=centred(responses.maps))

    return predict


def _evaluate(predict: Predict, threshold: float, batch: EvalBatch, device: torch.device) -> Results:
    maps: list[np.ndarray] = []
    outcomes = evaluate(predict, [batch], threshold, device, on_target=lambda _, own, __: maps.extend(own))
    return _as_results(maps, outcomes)


def _as_results(maps: list[np.ndarray], outcomes: list[Outcome]) -> Results:
    return [torch.from_numpy(response) for response in maps], [torch.tensor(outcome) for outcome in outcomes]


def written_split(setting: Setting) -> Split:
    """A training split whose photos lie in the setting's folder, one ref and one sentence each."""
    height, width = setting.photo_size
    angles = np.linspace(0, 2 * np.pi, 30, endpoint=False)
    outline = (np.stack([0.5 + 0.3 * np.cos(angles), 0.5 + 0.3 * np.sin(angles)], axis=1) * [width, height]).flatten()
    references = []
    for index, text in enumerate(sentences(LOADED)):
        pixels = (smooth(3, height, width) * 40 + 128).clamp(0, 255).byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(Path(setting.folder) / f"{index}.jpg", quality=90)
        segmentation = [outline.tolist()]
        references.append(Reference(index, index, index, f"{index}.jpg", height, width, (text,), None, segmentation))
    return Split("benchmark", "train", Path(setting.folder), references)


def our_loading(setting: Setting, cache_images: Path | None = None) -> Callable[[], Results]:
    split = written_split(setting)
    negatives = NegativeSentences(split, NEGATIVES)
    samples = TrainSamples(split, setting.input_size, QUERY_LENGTH, 0, negatives, cache_images)

    def load() -> Results:
        loaded = [samples[i] for i in range(len(samples))]
        return [sample["image"] for sample in loaded], [sample["tokens"] for sample in loaded]

    return load


def loading(setting: Setting) -> Pair:
    """With `--cache_images`, which the first call fills."""
    ours = our_loading(setting, Path(setting.folder) / "cache")
    split = written_split(setting)
    negatives = sentences(LOADED)[-NEGATIVES:]

    def load_each() -> Results:
        loaded = [load_sample(split, r, negatives, setting.input_size, QUERY_LENGTH) for r in split.references]
        return [image for image, *_ in loaded], [tokens for _, tokens, *_ in loaded]

    return Pair(ours, load_each)


ROWS: dict[str, Callable[[Setting], Pair]] = {
    "stage1_step": stage1_step,
    "stage2_step": stage2_step,
    **{f"evaluate_{count}": partial(evaluation, count) for count in (1, 2, 3, 4)},
    **{f"prms_{count}": partial(prms, count) for count in (1, 2, 3, 4)},
    "loading": loading,
}
