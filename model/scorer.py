"""The scorer: a frozen CLIP that scores how well a masked image fits a sentence, for the losses and for PRMS."""

from collections.abc import Sequence

import open_clip
import torch
import torch.nn.functional as F
from torch import nn

from clip import encode_text, tokenize
from utils.errors import UserError
from utils.maps import in_full_precision


class FrozenLinear(nn.Linear):
    """A linear layer that oneDNN computes on CPUs: MKL, which PyTorch would take, is half as fast on AMD's.

    With gradients, on GPUs and in other precisions than float32 it is like any other.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.requires_grad or self.weight.requires_grad or x.device.type != "cpu" or x.dtype != torch.float32:
            return super().forward(x)
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")


class Scorer(nn.Module):
    """CLIP without any trainable parameter; gradients flow through its image tower to the mask.

    With `amp` its image tower computes in that precision. UserError for the toy backbone, which embeds no images.
    """

    def __init__(self, clip_model: open_clip.CLIP, amp: torch.dtype | None = None):
        super().__init__()
        if hasattr(clip_model.visual, "attnpool") and not clip_model.visual.attnpool.v_proj.weight.any():
            raise UserError("this CLIP is stored without its attention pool and embeds no images; leave --scorer out")
        self.amp = amp
        self.clip = clip_model.eval().requires_grad_(False)
        for module in self.clip.modules():
            if type(module) is nn.Linear:
                module.__class__ = FrozenLinear
        size = clip_model.visual.image_size  # a pair for ViTs, a number for residual networks
        self.resolution = size if isinstance(size, int) else size[0]

    def train(self, mode: bool = True) -> "Scorer":
        """Does nothing: the scorer stays in evaluation mode."""
        return super().train(False)

    def resize(self, x: torch.Tensor) -> torch.Tensor:
        """Images or masks (B, C, H, W) at the scorer's resolution R, (B, C, R, R)."""
        # Kept: corners are aligned here, unlike in the networks.
        return F.interpolate(x, (self.resolution, self.resolution), mode="bilinear", align_corners=True)

    def embed_images(self, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Unit embeddings (B, D) of images (B, 3, R, R) times masks (B, 1, R, R).

        The images are normalised, so a masked-out pixel is not black but the mean colour. Kept as published.
        """
        with torch.autocast(images.device.type, self.amp, enabled=self.amp is not None):
            embeddings = self.clip.encode_image(images * masks)
        return F.normalize(in_full_precision(embeddings), dim=-1)

    @torch.no_grad()
    def embed_sentences(self, tokens: torch.Tensor) -> torch.Tensor:
        """Unit embeddings (N, D) of tokens (N, T)."""
        return F.normalize(encode_text(self.clip, tokens).pooled, dim=-1)


class SentenceTable:
    """The scorer's embeddings of all sentences of a split, which never change in training: computed once, looked up.

    They are computed in fixed groups, when a sentence of the group is first asked for, so that their bits do not depend
    on the order: a resumed training repeats exactly.
    """

    GROUP = 256

    def __init__(self, scorer: Scorer, sentences: Sequence[str], query_length: int):
        self.scorer, self.sentences, self.query_length = scorer, sentences, query_length
        self.table: torch.Tensor | None = None  # (number of sentences, D)
        self.known: set[int] = set()  # groups

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        """Unit embeddings (..., D) of the sentences numbered `ids`, int64 (...) on the CPU."""
        for group in set((ids // self.GROUP).flatten().tolist()) - self.known:
            first = group * self.GROUP
            tokens = tokenize(self.sentences[first : first + self.GROUP], self.query_length)
            embeddings = self.scorer.embed_sentences(tokens.to(self.scorer.clip.text_projection.device))
            if self.table is None:
                self.table = embeddings.new_empty(len(self.sentences), embeddings.shape[1])
            self.table[first : first + len(embeddings)] = embeddings
            self.known.add(group)
        return self.table[ids.to(self.table.device, non_blocking=True)]
