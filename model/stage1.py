"""Stage 1: the response network, which scores every pixel of an image against sentences (paper section 3.2)."""

import math
from typing import NamedTuple

import open_clip
import torch
from torch import nn

from clip import encode_text, image_pyramid, pyramid_channels, without_padding
from model.attention import BilateralPrompt
from utils.maps import Responses, full_maps, in_full_precision, upsample


class Stage1Output(NamedTuple):
    """For B images and the N = B sentences of their batch."""

    scores: torch.Tensor  # (B, N, h, w) every image against every sentence, h = H / 32
    response: torch.Tensor  # (B, 1, H, W) image i against its own sentence i, before any activation


class ResponseNetwork(nn.Module):
    """Scores images against sentences with CLIP's encoders, a projection each, and the bilateral prompt."""

    stage = 1
    mask_threshold = 1e-9  # a pixel is foreground where the normalised response exceeds this

    def __init__(self, backbone: open_clip.CLIP, hidden_dim: int = 1024, prompt_weight: float = 0.1):
        super().__init__()
        channels = pyramid_channels(backbone)
        self.backbone = backbone
        backbone.visual.attnpool.requires_grad_(False)  # not evaluated
        backbone.logit_scale.requires_grad_(False)  # not used
        self.visual_projection = nn.Conv2d(channels[3], hidden_dim, 1)
        self.sentence_projection = nn.Linear(backbone.text_projection.shape[1], hidden_dim)
        self.prompt = BilateralPrompt(hidden_dim)
        self.prompt_weight = prompt_weight
        # Kept: a parameter of the published network that is in no optimiser's group, so it never changes.
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)), requires_grad=False)

    def forward(self, images: torch.Tensor, tokens: torch.Tensor) -> Stage1Output:
        """Training: images (B, 3, H, W), normalised, and the tokens (B, T) of one sentence each.

        The prompt of each image attends over all sentences of the batch, so the scores are of all pairs.
        """
        visual, sentences = self.encode(images), self._encode_sentences(tokens)
        with torch.autocast(images.device.type, enabled=False):
            visual_prompt, text_prompt = self.prompt(visual, sentences)
            visual = visual + self.prompt_weight * visual_prompt
            scores = self._scores(visual, sentences + self.prompt_weight * text_prompt)
        own = torch.arange(len(images), device=images.device)
        return Stage1Output(scores, upsample(scores[own, own][:, None], images.shape[-2:]))

    def respond(self, images: torch.Tensor, tokens: torch.Tensor, photo: torch.Tensor) -> Responses:
        """Evaluation: response maps >= 0 of sentence n for image `photo[n]`, each pair on its own.

        images (B, 3, H, W), tokens (N, T), photo (N,). An image is encoded once for all its sentences.
        """
        return self.answer(self.encode(images), tokens, photo, images.shape[-2:])

    def answer(
        self, visual: torch.Tensor, tokens: torch.Tensor, photo: torch.Tensor, size: tuple[int, int]
    ) -> Responses:
        """As `respond`, from what `encode` returns for images of `size` (H, W)."""
        sentences = self._encode_sentences(without_padding(tokens))
        with torch.autocast(visual.device.type, enabled=False):
            prompted = visual + self.prompt_weight * self.prompt.single_sentence_visual_prompt()
            text_prompt = self.prompt.text_prompt(visual, sentences)  # sentences do not see each other
            scores = self._scores(prompted, sentences + self.prompt_weight * text_prompt)
        own = scores[photo, torch.arange(len(tokens), device=photo.device)][:, None]
        return Responses(own, full_maps(own, size))

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Unit features (B, D, h, w) of images (B, 3, H, W); the norms have no epsilon.

        What follows is computed in float32 also under AMP: where the sentences attend alike to a whole image, the
        prompt's instance norm would magnify the rounding of bf16 to the size of the prompt itself.
        """
        visual = in_full_precision(self.visual_projection(image_pyramid(self.backbone, images)[3]))
        return visual / visual.norm(dim=1, keepdim=True)

    def _encode_sentences(self, tokens: torch.Tensor) -> torch.Tensor:
        """Unit features (1, N, D) of sentences, as of images."""
        sentences = in_full_precision(self.sentence_projection(encode_text(self.backbone, tokens).pooled))
        return (sentences / sentences.norm(dim=1, keepdim=True))[None]

    def _scores(self, visual: torch.Tensor, sentences: torch.Tensor) -> torch.Tensor:
        return self.logit_scale.exp() * torch.einsum("bchw,bnc->bnhw", visual, sentences)
