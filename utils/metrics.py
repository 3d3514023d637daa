"""The figures of referring segmentation as functions of arrays, as the published evaluation defines them.

Rows and columns count from the top left, boxes are (x1, y1, x2, y2) in pixels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torchvision.ops import box_iou, nms

IOU_THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
DEFAULT_BOX = np.array([[0.0, 0.0, 1.0, 1.0]])  # kept: of a mask that is empty, or the whole photo


class Outcome(NamedTuple):
    """One sentence's evaluation."""

    reference: int  # index of the ref in its split
    sentence: int  # number of the sentence within the ref
    intersection: int  # pixels
    union: int  # pixels
    pointing: bool  # the maximum lies in the true mask
    hit: bool  # the maximum lies in the true box
    box_iou: float  # with the true box: of the last proposal that holds the maximum, else of the first
    box_hit: bool  # some proposal has an IoU above 0.5 with the true box

    @property
    def iou(self) -> float:
        return self.intersection / self.union if self.union else 0.0


def intersection_and_union(mask: np.ndarray, truth: np.ndarray) -> tuple[int, int]:
    """Pixels in both and in either of two masks, bool (H, W)."""
    return int(np.count_nonzero(mask & truth)), int(np.count_nonzero(mask | truth))


def peak(response: np.ndarray) -> tuple[int, int]:
    """Row and column of the maximum of a map (H, W); the first in reading order on a tie."""
    row, column = np.unravel_index(np.argmax(response), response.shape)
    return int(row), int(column)


def contains(box: Sequence[float], row: int, column: int) -> bool:
    """Whether a pixel lies in a box, its edges included."""
    return bool(box[0] <= column <= box[2] and box[1] <= row <= box[3])


def proposal_boxes(mask: np.ndarray) -> np.ndarray:
    """Boxes (K, 4) around the parts of a mask, bool (H, W), by falling share of the mask inside."""
    if mask.all() or not mask.any():
        return DEFAULT_BOX
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    corners = np.array([cv2.boundingRect(contour) for contour in contours], dtype=np.float64)  # x, y, w, h
    inside = np.array([mask[int(y) : int(y + h), int(x) : int(x + w)].mean() for x, y, w, h in corners])
    # Kept quirk: suppression is given x, y, w, h where it expects x1, y1, x2, y2.
    kept = nms(torch.from_numpy(corners), torch.from_numpy(inside), 0.05).numpy()
    kept = kept[inside[kept] > 0.5 * inside.max()]
    x, y, w, h = corners[kept].T
    return np.stack([x, y, x + w, y + h], axis=1)


def evaluate_response(
    response: np.ndarray, mask: np.ndarray, truth: np.ndarray, box: Sequence[float], reference: int, sentence: int
) -> Outcome:
    """All figures of one sentence.

    `response` float (H, W), `mask` its foreground bool (H, W), `truth` the true mask bool (H, W), `box` the true box.
    """
    row, column = peak(response)
    boxes = proposal_boxes(mask)
    overlaps = box_iou(torch.from_numpy(boxes), torch.from_numpy(np.array([box], dtype=np.float64)))[:, 0].numpy()
    holding = [k for k, proposal in enumerate(boxes) if contains(proposal, row, column)]
    return Outcome(
        reference,
        sentence,
        *intersection_and_union(mask, truth),
        pointing=bool(truth[row, column]),
        hit=contains(box, row, column),
        box_iou=float(overlaps[holding[-1] if holding else 0]),
        box_hit=bool((overlaps > 0.5).any()),
    )


def figure_parts(outcomes: Sequence[Outcome]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Each figure's two parts over the sentences, float64 (N,): it is the sum of the first over that of the second.

    `mIoU` is the mean of I/U, `oIoU` the sum of I over the sum of U.
    """
    iou = np.array([outcome.iou for outcome in outcomes])
    one = np.ones(len(outcomes))

    def column(name: str) -> np.ndarray:
        return np.array([getattr(outcome, name) for outcome in outcomes], dtype=np.float64)

    return {
        "mIoU": (iou, one),
        "oIoU": (column("intersection"), column("union")),
        **{f"P@{threshold}": ((iou >= threshold).astype(np.float64), one) for threshold in IOU_THRESHOLDS},
        "PointM": (column("pointing"), one),
        "Hit": (column("hit"), one),
        "box_mIoU": (column("box_iou"), one),
        "box_acc": (column("box_hit"), one),
    }


def summarise(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """The figures over sentences, in percent."""
    parts = figure_parts(outcomes).items()
    return {name: round(100 * float(top.sum() / max(bottom.sum(), 1)), 4) for name, (top, bottom) in parts}
