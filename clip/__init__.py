"""CLIP's encoders and tokens: a thin adapter over open_clip, whose parameter names are OpenAI's."""

from clip.encoders import encode_text, image_pyramid, pyramid_channels, without_padding
from clip.loading import build_clip, check_clip_name
from clip.tokens import count_tokens, tokenize

__all__ = [
    "build_clip",
    "check_clip_name",
    "count_tokens",
    "encode_text",
    "image_pyramid",
    "pyramid_channels",
    "tokenize",
    "without_padding",
]
