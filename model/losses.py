"""What the networks are trained on, each loss by its name (paper section 3.3)."""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from model.scorer import SentenceTable
from model.stage1 import Stage1Output
from model.stage2 import Stage2Output
from utils.engine import Criterion
from utils.maps import in_full_precision

Batch = dict[str, Any]


def classification_scores(scores: torch.Tensor) -> torch.Tensor:
    """How strongly each image shows what each sentence names, (B, N), from scores (B, N, h, w).

    Mean and maximum over the pixels and a focal penalty on sentences that cover little of the image, after a softmax
    over the sentences and a background that scores 1 everywhere.
    """
    background = torch.ones_like(scores[:, :1])
    coverage = torch.cat([background, scores], dim=1).softmax(dim=1)[:, 1:].mean(dim=(2, 3))  # (B, N)
    # The size-focal penalty of Araslanov and Roth (CVPR 2020): without it a few pixels would do.
    penalty = (1 - coverage) ** 3 * torch.log(0.01 + coverage)
    return scores.mean(dim=(2, 3)) + scores.amax(dim=(2, 3)) + penalty


def classification_loss(scores: torch.Tensor) -> torch.Tensor:
    """Each image against the sentences of its batch, of which its own is true; scores (B, B, h, w)."""
    own = torch.eye(len(scores), device=scores.device)
    return F.multilabel_soft_margin_loss(classification_scores(scores), own)


def foreground_loss(foreground: torch.Tensor, sentences: torch.Tensor) -> torch.Tensor:
    """Low where the masked image fits its sentence: unit embeddings (B, D) of both."""
    similarity = (foreground * sentences).sum(dim=-1)
    # A cosine can be negative, and has no logarithm then.
    return -similarity.clamp(1e-4, 0.9999).log().mean()


def negative_loss(foreground: torch.Tensor, negatives: torch.Tensor) -> torch.Tensor:
    """Low where the masked image does not fit other sentences: unit embeddings (B, D) and (B, k, D)."""
    similarity = torch.einsum("bd,bkd->bk", foreground, negatives)
    return -torch.log(1 - similarity).mean()  # not clamped: image and sentence are never so alike


class Stage1Criterion(Criterion):
    """Classification, and calibration by the scorer: foreground and negative. A loss of weight 0 is not computed."""

    def __init__(
        self, sentences: SentenceTable, foreground: float = 1.0, classification: float = 5.0, negative: float = 2.0
    ):
        super().__init__({"classification": classification, "foreground": foreground, "negative": negative})
        self.sentences, self.scorer = sentences, sentences.scorer

    def __call__(self, output: Stage1Output, batch: Batch) -> dict[str, torch.Tensor]:
        """Unweighted losses by name. From the batch: `image` (B, 3, S, S), and the indices of its sentences,
        `ids["sentence"]` (B,) and `ids["negatives"]` (B, k)."""
        losses = {}
        if self.weights["classification"]:
            losses["classification"] = classification_loss(in_full_precision(output.scores))
        if self.weights["foreground"] or self.weights["negative"]:
            # Kept: training masks the image with the sigmoid of the response, PRMS with its relu.
            mask = self.scorer.resize(output.response.sigmoid())
            masked = self.scorer.embed_images(self.scorer.resize(batch["image"]), mask)  # (B, D), for both losses
            if self.weights["foreground"]:
                losses["foreground"] = foreground_loss(masked, self.sentences(batch["ids"]["sentence"]))
            if self.weights["negative"] and batch["ids"]["negatives"].shape[1]:
                losses["negative"] = negative_loss(masked, self.sentences(batch["ids"]["negatives"]))
        return losses


def segmentation_loss(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean binary cross-entropy of logits (B, 1, S, S) against a pseudo mask of 0 and 1, of the same shape."""
    return F.binary_cross_entropy_with_logits(in_full_precision(logits), mask)


class Stage2Criterion(Criterion):
    """Segmentation at four levels, each a loss of its own; with a teacher also consistency with its output.

    The teacher (mean teacher, off by default) is an exponential moving average of the network.
    """

    def __init__(self, student: nn.Module | None = None, decay: float = 0.999):
        super().__init__({f"segmentation{level}": 1.0 for level in (1, 2, 3, 4)})
        self.student, self.teacher, self.decay = student, None, decay
        if student is not None:
            self.weights["consistency"] = 1.0
            self.teacher = copy.deepcopy(student).train().requires_grad_(False)

    def __call__(self, output: Stage2Output, batch: Batch) -> dict[str, torch.Tensor]:
        """Unweighted losses by name. From the batch: `mask` (B, 1, S, S) float; for a teacher `image`, `tokens`."""
        losses = {
            f"segmentation{level}": segmentation_loss(logits, batch["mask"])
            for level, logits in enumerate(output.logits, start=1)
        }
        if self.teacher is not None:
            with torch.no_grad():
                taught = self.teacher(batch["image"], batch["tokens"]).logits
            losses["consistency"] = sum(
                F.mse_loss(in_full_precision(own).sigmoid(), in_full_precision(other).sigmoid())
                for own, other in zip(output.logits, taught, strict=True)
            )
        return losses

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the teacher a little towards the network; copy the buffers."""
        if self.teacher is not None:
            for mean, new in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                mean.lerp_(new, 1 - self.decay)
            for mean, new in zip(self.teacher.buffers(), self.student.buffers(), strict=True):
                mean.copy_(new)
