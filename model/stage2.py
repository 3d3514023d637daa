"""Stage 2: the segmentation network, trained on the pseudo masks (paper section 3.5)."""

from collections.abc import Sequence
from typing import NamedTuple

import open_clip
import torch
from torch import nn

from clip import encode_text, image_pyramid, pyramid_channels
from model.attention import PixelAttention
from utils.maps import Responses, upsample

SENTENCES_AT_A_TIME = 16  # in evaluation


class Stage2Output(NamedTuple):
    """For B images with one sentence each."""

    logits: tuple[torch.Tensor, ...]  # four of (B, 1, H, W), the finest first; positive is foreground


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.PReLU())


class SegmentationNetwork(nn.Module):
    """CLIP's pyramid attends to the sentence's words, level by level, and a decoder joins the levels to a mask."""

    stage = 2
    mask_threshold = 0.0  # a pixel is foreground where its logit is positive

    def __init__(self, backbone: open_clip.CLIP):
        super().__init__()
        channels = pyramid_channels(backbone)
        self.backbone = backbone
        for unused in (backbone.visual.attnpool, backbone.logit_scale, backbone.text_projection):
            unused.requires_grad_(False)
        words = backbone.token_embedding.embedding_dim
        self.attention = nn.ModuleDict({str(i): PixelAttention(channels[i - 1], words) for i in (2, 3, 4)})
        d1, d2, d3, d4 = (c // 4 for c in channels)  # 64, 128, 256, 512 for RN50
        self.reduce = nn.ModuleList(_block(c, c // 4) for c in channels)
        self.merge = nn.ModuleList([_block(d1, d1 // 2), _block(d2, d1), _block(d3, d2), _block(d4, d3)])
        self.head = nn.ModuleList(
            nn.Sequential(_block(inputs, outputs), nn.Conv2d(outputs, 1, 1, bias=False))
            for inputs, outputs in ((d1 // 2, d1 // 2), (d1, d1 // 2), (d2, d1), (d3, d1))
        )

    def forward(self, images: torch.Tensor, tokens: torch.Tensor) -> Stage2Output:
        """Training: images (B, 3, H, W), normalised, and the tokens (B, T) of one sentence each."""
        levels = self._decode(self.encode(images), self._words(tokens))
        return Stage2Output(
            tuple(upsample(head(level), images.shape[-2:]) for head, level in zip(self.head, levels, strict=True))
        )

    def respond(self, images: torch.Tensor, tokens: torch.Tensor, photo: torch.Tensor) -> Responses:
        """Evaluation: logits of sentence n for image `photo[n]`; an image is encoded once for all its sentences.

        images (B, 3, H, W), tokens (N, T), photo (N,).
        """
        return self.answer(self.encode(images), tokens, photo, images.shape[-2:])

    def encode(self, images: torch.Tensor) -> list[tuple[torch.Tensor, ...]]:
        """All that does not depend on sentences, level by level, of images (B, 3, H, W): tensors (B, C, h, w).

        The finest level of CLIP's pyramid reduced; of each other level query, pixels and features.
        """
        finest, *levels = image_pyramid(self.backbone, images)
        pairs = zip(self.attention.values(), levels, strict=True)
        return [(self.reduce[0](finest),), *((a.query(level), a.visual(level), level) for a, level in pairs)]

    def answer(
        self, encoded: list[tuple[torch.Tensor, ...]], tokens: torch.Tensor, photo: torch.Tensor, size: tuple[int, int]
    ) -> Responses:
        """As `respond`, from what `encode` returns for images of `size` (H, W)."""
        words = self._words(tokens)
        # Each sentence needs a pyramid of its own, so only a few are decoded at a time.
        parts = zip(photo.split(SENTENCES_AT_A_TIME), words.split(SENTENCES_AT_A_TIME), strict=True)
        finest = (self._decode([[tensor[p] for tensor in level] for level in encoded], w)[0] for p, w in parts)
        logits = torch.cat([self.head[0](features) for features in finest])
        return Responses(logits, upsample(logits, size))

    def _words(self, tokens: torch.Tensor) -> torch.Tensor:
        """The words' features (N, W, T)."""
        return encode_text(self.backbone, tokens).tokens.transpose(1, 2)

    def _decode(self, encoded: Sequence[Sequence[torch.Tensor]], words: torch.Tensor) -> list[torch.Tensor]:
        """Decoder features u_1..u_4, the finest first, at strides 4, 4, 8, 16."""
        (finest,), *others = encoded
        reduced = [finest]
        for attention, reduce, level in zip(self.attention.values(), self.reduce[1:], others, strict=True):
            query, pixels, features = level
            reduced.append(reduce(attention.attend(query, pixels, words) + features))
        levels = [upsample(self.merge[3](reduced[3]), reduced[2].shape[-2:])]
        for i in (2, 1):
            levels.insert(0, upsample(self.merge[i](levels[0] + reduced[i]), reduced[i - 1].shape[-2:]))
        return [self.merge[0](levels[0] + reduced[0]), *levels]
