"""One evaluator for both stages, every data set and PRMS: they differ in the loader and in `predict`."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from utils.distributed import gather, is_main
from utils.metrics import Outcome, evaluate_response

OnTarget = Callable[[Any, np.ndarray], None]


def at_photo_size(responses: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Maps (n, 1, S, S) at a photo's size, float32 (n, H, W), divided by their maximum.

    A map without a positive value is left as it is. (The published code divides by the negative maximum, and the whole
    photo becomes the mask.) Kept: this second upsampling aligns corners, the network's own does not.
    """
    maps = F.interpolate(responses.float(), size, mode="bilinear", align_corners=True)[:, 0]
    maximum = maps.amax(dim=(1, 2), keepdim=True)
    return maps / torch.where(maximum > 0, maximum + 1e-5, 1)


@torch.inference_mode()
def evaluate(
    predict: Callable[[Any], torch.Tensor],
    loader: Iterable[Any],
    threshold: float,
    device: torch.device,
    title: str = "evaluation",
    on_target: OnTarget | None = None,
) -> list[Outcome]:
    """The outcome of every sentence, of all processes, in the order of the refs.

    `loader` gives batches with `targets`, the sentences in their order; `predict` gives a batch's maps (N, 1, S, S). A
    pixel is foreground where the normalised map exceeds `threshold`. `on_target` is handed each target with its maps
    (n, H, W). A target without a mask has no outcome.
    """
    outcomes: list[Outcome] = []
    for batch in tqdm(loader, desc=title, unit="batch", disable=None if is_main() else True, leave=False):
        responses = predict(batch.to(device))
        counts = [len(target.reference.sentences) for target in batch.targets]
        for target, own in zip(batch.targets, responses.split(counts), strict=True):
            maps = at_photo_size(own, target.size).cpu().numpy()
            if target.mask is not None:
                outcomes += _outcomes(target, maps, threshold)
            if on_target:
                on_target(target, maps)
    return sorted(outcome for share in gather(outcomes) for outcome in share)


def _outcomes(target: Any, maps: np.ndarray, threshold: float) -> list[Outcome]:
    return [
        evaluate_response(response, response > threshold, target.mask, target.box, target.reference.index, sentence)
        for sentence, response in enumerate(maps)
    ]
