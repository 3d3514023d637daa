"""One evaluator for both stages, every data set and PRMS: they differ in the loader and in `predict`."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from tqdm import tqdm

from utils.distributed import gather, is_main
from utils.maps import Responses, at_photo_size
from utils.metrics import Outcome, evaluate_response


class Target(Protocol):
    """A ref to evaluate: `reference` has its `index` and its `sentences`, the rest is its ground truth."""

    reference: Any
    mask: np.ndarray | None  # bool (H, W)
    box: Sequence[float] | None
    size: tuple[int, int]  # H, W


class Batch(Protocol):
    """Some refs with all their sentences; the sentences of `targets[0]` come first."""

    targets: Sequence[Target]

    def to(self, device: torch.device) -> "Batch": ...


OnTarget = Callable[[Target, np.ndarray, Responses], None]


@torch.inference_mode()
def evaluate(
    predict: Callable[[Batch], Responses],
    loader: Iterable[Batch],
    threshold: float,
    device: torch.device,
    title: str = "evaluation",
    on_target: OnTarget | None = None,
) -> list[Outcome]:
    """The outcome of every sentence, of all processes, in the order of the refs.

    `predict` answers the N sentences of a batch. A pixel is foreground where the normalised map exceeds `threshold`.
    `on_target` is handed each target with its maps (n, H, W) and the responses that they come from. A target without a
    mask has no outcome.
    """
    outcomes: list[Outcome] = []
    for batch in tqdm(loader, desc=title, unit="batch", disable=None if is_main() else True, leave=False):
        responses = predict(batch.to(device))
        counts = [len(target.reference.sentences) for target in batch.targets]
        shares = zip(*(tensor.split(counts) for tensor in responses), strict=True)
        for target, own in zip(batch.targets, map(Responses._make, shares), strict=True):
            maps = at_photo_size(own.maps, target.size).cpu().numpy()
            if target.mask is not None:
                outcomes += _outcomes(target, maps, threshold)
            if on_target:
                on_target(target, maps, own)
    return sorted(outcome for share in gather(outcomes) for outcome in share)


def _outcomes(target: Target, maps: np.ndarray, threshold: float) -> list[Outcome]:
    return [
        evaluate_response(response, response > threshold, target.mask, target.box, target.reference.index, sentence)
        for sentence, response in enumerate(maps)
    ]
