"""What the project needs from CLIP beside its `encode_image`: an image pyramid, and text features of any length.

These are functions rather than a wrapping module, so that a CLIP inside another network keeps its published parameter
names.
"""

from typing import NamedTuple

import open_clip
import torch
from open_clip.modified_resnet import ModifiedResNet

from utils.errors import UserError


class TextFeatures(NamedTuple):
    """Features of N sentences of T tokens."""

    tokens: torch.Tensor  # (N, T, W) after the final layer norm
    pooled: torch.Tensor  # (N, D) in the space shared with images


def pyramid_channels(model: open_clip.CLIP) -> tuple[int, ...]:
    """Channels of c1..c4. Raises UserError if the image tower is not a residual network."""
    visual = model.visual
    if not isinstance(visual, ModifiedResNet):
        raise UserError("this backbone has no image pyramid; choose clip-RN50, clip-RN101 or clip-RN50x4")
    return tuple(layer[-1].conv3.out_channels for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4))


def image_pyramid(model: open_clip.CLIP, images: torch.Tensor) -> list[torch.Tensor]:
    """Features c1..c4 at strides 4, 8, 16, 32 of images (B, 3, H, W). The attention pool is not evaluated."""
    features = model.visual.forward_intermediates(images, indices=[1, 2, 3, 4], intermediates_only=True)
    return features["image_intermediates"]


def encode_text(model: open_clip.CLIP, tokens: torch.Tensor) -> TextFeatures:
    """Features of tokens (N, T), T <= 77; position embeddings and causal mask are cut to T.

    The pooled embedding is the feature at the largest token id, which is `<end>`.
    """
    length = tokens.shape[1]
    x = model.token_embedding(tokens) + model.positional_embedding[:length]  # (N, T, W)
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:length, :length]))
    end = x[torch.arange(len(x), device=x.device), tokens.argmax(dim=1)]  # (N, W)
    return TextFeatures(x, end @ model.text_projection)


def without_padding(tokens: torch.Tensor) -> torch.Tensor:
    """Tokens (N, T) without the columns after the last `<end>`, which the causal mask hides from pooled embeddings.

    Finding that column synchronises with the device.
    """
    return tokens[:, : int(tokens.argmax(dim=1).max()) + 1]
