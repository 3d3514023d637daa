"""The metrics of referring segmentation as functions of arrays, as the published evaluation defines them.

Rows and columns count from the top left, boxes are (x1, y1, x2, y2) in pixels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torchvision.ops import box_iou, nms

IOU_THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
OF_MAXIMUM = ("PointM", "Hit", "box_mIoU")  # metrics that depend on where a map has its maximum


class Outcome(NamedTuple):
    """One sentence's evaluation."""

    reference: int  # index of the ref in its split
    sentence: int  # number of the sentence within the ref
    intersection: int  # pixels
    union: int  # pixels
    predicted: int  # pixels of the predicted mask
    pointing: bool  # the maximum lies in the true mask
    hit: bool  # the maximum lies in the true box
    box_iou: float  # with the true box: of the last proposal that holds the maximum, else of the first
    box_hit: bool  # some proposal has an IoU above 0.5 with the true box
    absent: bool = False  # nothing in the photo fits the sentence
    peak: float = 0.0  # the largest score that the network gave it, see `Responses.peaks`; of a stored mask 0

    @property
    def iou(self) -> float:
        return self.intersection / self.union if self.union else 0.0


def proposal_boxes(mask: np.ndarray) -> np.ndarray:
    """Boxes (K, 4) around the parts of a mask, bool (H, W), by falling share of the mask inside."""
    if mask.all() or not mask.any():
        return np.array([[0.0, 0.0, 1.0, 1.0]])  # kept: for a mask that is empty, or the whole photo
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    corners = np.array([cv2.boundingRect(contour) for contour in contours], dtype=np.float64)  # x, y, w, h
    inside = np.array([mask[int(y) : int(y + h), int(x) : int(x + w)].mean() for x, y, w, h in corners])
    # Kept quirk: suppression is given x, y, w, h where it expects x1, y1, x2, y2.
    kept = nms(torch.from_numpy(corners), torch.from_numpy(inside), 0.05).numpy()
    kept = kept[inside[kept] > 0.5 * inside.max()]
    x, y, w, h = corners[kept].T
    return np.stack([x, y, x + w, y + h], axis=1)


def evaluate_response(
    response: np.ndarray,
    mask: np.ndarray,
    truth: np.ndarray,
    box: Sequence[float] | None,
    reference: int,
    sentence: int,
    peak: float = 0.0,
) -> Outcome:
    """All metrics of one sentence.

    `response` float (H, W), `mask` its foreground bool (H, W), `truth` the true mask bool (H, W), `box` the true box,
    None where nothing fits the sentence.
    """
    counts = [int(np.count_nonzero(pixels)) for pixels in (mask & truth, mask | truth, mask)]
    if box is None:
        return Outcome(reference, sentence, *counts, False, False, 0.0, False, absent=True, peak=peak)
    row, column = np.unravel_index(np.argmax(response), response.shape)  # the first in reading order on a tie

    def holds_peak(candidate: Sequence[float]) -> bool:
        """Whether the maximum lies in a box, its edges included."""
        return bool(candidate[0] <= column <= candidate[2] and candidate[1] <= row <= candidate[3])

    boxes = proposal_boxes(mask)
    overlaps = box_iou(torch.from_numpy(boxes), torch.from_numpy(np.array([box], dtype=np.float64)))[:, 0].numpy()
    holding = [k for k, proposal in enumerate(boxes) if holds_peak(proposal)]
    return Outcome(
        reference,
        sentence,
        *counts,
        pointing=bool(truth[row, column]),
        hit=holds_peak(box),
        box_iou=float(overlaps[holding[-1] if holding else 0]),
        box_hit=bool((overlaps > 0.5).any()),
        peak=peak,
    )


def metric_parts(outcomes: Sequence[Outcome]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Numerators and denominators of each metric, float64 (N,): it is the sum of the former over that of the latter.

    `mIoU` is the mean of I/U, `oIoU` the sum of I over the sum of U. They leave absent refs out, as do all others but
    `empty`, the share of sentences without any predicted pixel. Where there are absent refs, so are the metrics of
    gRefCOCO's authors: `gIoU`, a mean in which an absent ref counts 1 if its mask is empty, else 0; `cIoU`, to whose
    union a false alarm adds its area; `N_acc`, the share of absent refs with an empty mask; and `T_acc`, the share of
    the others whose mask is not empty.
    """
    iou = np.array([outcome.iou for outcome in outcomes])

    def column(name: str) -> np.ndarray:
        return np.array([getattr(outcome, name) for outcome in outcomes], dtype=np.float64)

    absent, empty = column("absent"), (column("predicted") == 0).astype(np.float64)
    present, union = 1 - absent, column("union")
    parts = {
        "mIoU": (iou * present, present),
        "oIoU": (column("intersection") * present, union * present),
        **{f"P@{threshold}": ((iou >= threshold) * present, present) for threshold in IOU_THRESHOLDS},
        "PointM": (column("pointing"), present),
        "Hit": (column("hit"), present),
        "box_mIoU": (column("box_iou"), present),
        "box_acc": (column("box_hit"), present),
        "empty": (empty, np.ones(len(outcomes))),
    }
    if absent.any():
        parts |= {
            "gIoU": (np.where(absent, empty, iou), np.ones(len(outcomes))),
            "cIoU": (column("intersection"), union),
            "N_acc": (empty * absent, absent),
            "T_acc": ((1 - empty) * present, present),
        }
    return parts


def summarise(outcomes: Sequence[Outcome], of_masks: bool = False) -> dict[str, float]:
    """The metrics over sentences, in percent; `of_masks`: only those that do not ask where a map has its maximum."""
    return {
        name: round(100 * float(top.sum() / max(bottom.sum(), 1)), 4)
        for name, (top, bottom) in metric_parts(outcomes).items()
        if not (of_masks and name in OF_MAXIMUM)
    }
