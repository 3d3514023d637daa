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

Batch = dict[str, Any]

BACKGROUND_SCORE = 1.0
FOCAL_EXPONENT = 3
FOCAL_FLOOR = 0.01


def _in_full(x: torch.Tensor) -> torch.Tensor:
    """Half precision as float32: losses are never computed in less."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def classification_scores(scores: torch.Tensor) -> torch.Tensor:
    """How much each image speaks of each sentence, (B, N), from scores (B, N, h, w).

    Mean and maximum over the pixels and a focal penalty on sentences that cover little of the image, after a softmax
    over the sentences and a constant background.
    """
    background = torch.full_like(scores[:, :1], BACKGROUND_SCORE)
    coverage = torch.cat([background, scores], dim=1).softmax(dim=1)[:, 1:].mean(dim=(2, 3))  # (B, N)
    penalty = (1 - coverage) ** FOCAL_EXPONENT * torch.log(FOCAL_FLOOR + coverage)
    return scores.mean(dim=(2, 3)) + scores.amax(dim=(2, 3)) + penalty


def classification_loss(scores: torch.Tensor) -> torch.Tensor:
    """From scores (B, B, h, w) of images and the batch's sentences: each image's own is true, the others are false."""
    own = torch.eye(len(scores), device=scores.device)
    return F.multilabel_soft_margin_loss(classification_scores(scores), own)


def foreground_loss(foreground: torch.Tensor, sentences: torch.Tensor) -> torch.Tensor:
    """The masked image shall fit its sentence: unit embeddings (B, D) of both."""
    similarity = (foreground * sentences).sum(dim=-1)
    return -similarity.clamp(1e-4, 0.9999).log().mean()


def negative_loss(foreground: torch.Tensor, negatives: torch.Tensor) -> torch.Tensor:
    """The masked image shall not fit other sentences: unit embeddings (B, D) and (B, k, D)."""
    similarity = torch.einsum("bd,bkd->bk", foreground, negatives)
    return -torch.log(1 - similarity).mean()


class Stage1Criterion(Criterion):
    """Classification, and calibration by the scorer: foreground and negative. A weight of 0 switches a loss off."""

    def __init__(
        self, sentences: SentenceTable, foreground: float = 1.0, classification: float = 5.0, negative: float = 2.0
    ):
        super().__init__({"classification": classification, "foreground": foreground, "negative": negative})
        self.sentences, self.scorer = sentences, sentences.scorer

    def __call__(self, output: Stage1Output, batch: Batch) -> dict[str, torch.Tensor]:
        """Unweighted losses by name. Of the batch: `image` (B, 3, S, S), and the numbers of the sentences,
        `ids["sentence"]` (B,) and `ids["negatives"]` (B, k)."""
        losses = {}
        if self.weights["classification"]:
            losses["classification"] = classification_loss(_in_full(output.scores))
        if self.weights["foreground"] or self.weights["negative"]:
            losses |= self._calibration(output, batch)
        return losses

    def _calibration(self, output: Stage1Output, batch: Batch) -> dict[str, torch.Tensor]:
        # Kept: training masks with the sigmoid of the response, PRMS with its relu.
        mask = self.scorer.resize(output.response.sigmoid())
        foreground = _in_full(self.scorer.embed_images(self.scorer.resize(batch["image"]), mask))  # for both losses
        losses = {"foreground": foreground_loss(foreground, _in_full(self.sentences(batch["ids"]["sentence"])))}
        if self.weights["negative"] and batch["ids"]["negatives"].shape[1]:
            losses["negative"] = negative_loss(foreground, _in_full(self.sentences(batch["ids"]["negatives"])))
        return {name: loss for name, loss in losses.items() if self.weights[name]}


def segmentation_loss(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean binary cross-entropy of logits (B, 1, S, S) against a pseudo mask of 0 and 1, of the same shape."""
    return F.binary_cross_entropy_with_logits(_in_full(logits), mask)


class Stage2Criterion(Criterion):
    """Segmentation at four levels, each its own loss; with a teacher also consistency with its output.

    The teacher (mean teacher, off by default) is an exponential moving average of the network.
    """

    def __init__(self, student: nn.Module | None = None, decay: float = 0.999):
        super().__init__({f"segmentation{level}": 1.0 for level in (1, 2, 3, 4)})
        self.student, self.teacher, self.decay = student, None, decay
        if student is not None:
            self.weights["consistency"] = 1.0
            self.teacher = copy.deepcopy(student).train().requires_grad_(False)

    def __call__(self, output: Stage2Output, batch: Batch) -> dict[str, torch.Tensor]:
        """Unweighted losses by name. Of the batch: `mask` (B, 1, S, S), float; `image` and `tokens` for the teacher."""
        losses = {
            f"segmentation{level}": segmentation_loss(logits, batch["mask"])
            for level, logits in enumerate(output.logits, start=1)
        }
        if self.teacher is not None:
            with torch.no_grad():
                taught = self.teacher(batch["image"], batch["tokens"]).logits
            losses["consistency"] = sum(
                F.mse_loss(_in_full(own).sigmoid(), _in_full(other).sigmoid())
                for own, other in zip(output.logits, taught, strict=True)
            )
        return losses

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the teacher a little towards the network; buffers are copied."""
        if self.teacher is None:
            return
        for mean, new in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            mean.lerp_(new, 1 - self.decay)
        for mean, new in zip(self.teacher.buffers(), self.student.buffers(), strict=True):
            mean.copy_(new)

    def training_state(self) -> dict[str, torch.Tensor]:
        return {} if self.teacher is None else self.teacher.state_dict()

    def load_training_state(self, state: dict[str, torch.Tensor]) -> None:
        if self.teacher is not None:
            self.teacher.load_state_dict(state)
