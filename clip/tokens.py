"""Sentences to CLIP's byte-pair tokens."""

import re
from collections.abc import Sequence
from functools import lru_cache

import open_clip
import torch

MAX_LENGTH = 77  # the number of CLIP's position embeddings


@lru_cache(maxsize=1)
def _tokenizer() -> open_clip.SimpleTokenizer:
    return open_clip.SimpleTokenizer()


def tokenize(sentences: Sequence[str], length: int = 20) -> torch.Tensor:
    """Tokens of sentences: `<start> ... <end>`, padded with 0, int64 (N, length).

    A longer sentence is cut, keeping `<end>` in the last place. (The published code loses it, so that all long
    sentences get the same embedding.) Raises ValueError for a length outside 3..77.
    """
    if not 3 <= length <= MAX_LENGTH:
        raise ValueError(f"a query length of {length} tokens is outside 3..{MAX_LENGTH}")
    return _tokenizer()([_open_clip_spelling(sentence) for sentence in sentences], context_length=length)


def count_tokens(sentence: str) -> int:
    """The number of tokens of a sentence before any cut, including `<start>` and `<end>`."""
    return len(_tokenizer().encode(_open_clip_spelling(sentence))) + 2


def _open_clip_spelling(sentence: str) -> str:
    """open_clip spells OpenAI's two special tokens in its own way; a sentence may contain them."""
    return re.sub(r"<\|(start|end)oftext\|>", r"<\1_of_text>", sentence, flags=re.IGNORECASE)
