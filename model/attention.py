"""Attention between an image and its sentences (paper section 3.2 and the decoder of stage 2)."""

import math

import torch
from torch import nn


def _normalised(convolution: nn.Module, channels: int) -> nn.Sequential:
    """The convolution and an instance norm of its channels.

    What follows must hand back contiguous gradients: on CPUs PyTorch's instance norm misreads others at batch 1.
    """
    return nn.Sequential(convolution, nn.InstanceNorm2d(channels, affine=True))


class BilateralPrompt(nn.Module):
    """Adjusts an image's features to the sentences, and the sentences to the image (published: `bilateral_prompt`).

    Inputs: `visual` (B, C, h, w) and `sentences` (B, N, C), or (1, N, C) for all images, both of `channels` channels.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels
        self.visual_query, self.visual_key, self.visual_value = (
            _normalised(nn.Conv2d(channels, channels, 1), channels).append(nn.ReLU()) for _ in range(3)
        )
        self.text_query, self.text_key, self.text_value = (
            nn.Sequential(nn.Linear(channels, channels), nn.ReLU()) for _ in range(3)
        )
        self.visual_output = _normalised(nn.Conv2d(channels, channels, 1), channels)
        self.text_output = nn.Sequential(nn.Linear(channels, channels))

    def forward(self, visual: torch.Tensor, sentences: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The prompts (B, C, h, w) for the image and (B, N, C) for the sentences, to be added to them."""
        return self.visual_prompt(visual, sentences), self.text_prompt(visual, sentences)

    def visual_prompt(self, visual: torch.Tensor, sentences: torch.Tensor) -> torch.Tensor:
        """Each pixel attends over the N sentences."""
        query = self.visual_query(visual).flatten(2)  # (B, C, hw)
        key, value = self.text_key(sentences), self.text_value(sentences)  # (B, N, C)
        attention = (key @ query / math.sqrt(self.channels)).softmax(dim=1)  # (B, N, hw)
        attended = (value.transpose(1, 2) @ attention).reshape_as(visual)
        return self.visual_output(attended)

    def single_sentence_visual_prompt(self) -> torch.Tensor:
        """What `visual_prompt` gives for one sentence, (1, C, 1, 1).

        The softmax over one sentence is 1, so every pixel attends alike, and the instance norm of a constant map is its
        bias, whatever the image and the sentence. Kept: the published results were evaluated so.
        """
        return self.visual_output[1].bias[None, :, None, None]

    def text_prompt(self, visual: torch.Tensor, sentences: torch.Tensor) -> torch.Tensor:
        """Each sentence attends over the pixels; no sentence sees another."""
        key, value = self.visual_key(visual).flatten(2), self.visual_value(visual).flatten(2)  # (B, C, hw)
        attention = (self.text_query(sentences) @ key / math.sqrt(self.channels)).softmax(dim=-1)  # (B, N, hw)
        return self.text_output((value @ attention.transpose(1, 2)).transpose(1, 2))


class PixelAttention(nn.Module):
    """Lets each pixel of a feature map gather from the words of one sentence (published: `PixelAttention`).

    Inputs: `visual` (B, C, h, w), C = `channels`; `words` (B, W, T), W = `word_channels`. Result (B, C, h, w), >= 0.
    Padding tokens take part: kept, because published results depend on it.
    """

    def __init__(self, channels: int, word_channels: int):
        super().__init__()
        self.channels = channels
        self.key, self.value = (nn.Conv1d(word_channels, channels, 1) for _ in range(2))
        self.query = _normalised(nn.Conv2d(channels, channels, 1), channels)
        self.gather = _normalised(nn.Conv2d(channels, channels, 1), channels)
        self.visual = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.ReLU())
        self.output = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.ReLU())

    def forward(self, visual: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        return self.attend(self.query(visual), self.visual(visual), words)

    def attend(self, query: torch.Tensor, visual: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """The same, from what `self.query` and `self.visual` make of the feature map, whatever the sentence."""
        query = query.flatten(2)  # (B, C, hw)
        attention = (self.key(words).transpose(1, 2) @ query / math.sqrt(self.channels)).softmax(dim=1)  # (B, T, hw)
        gathered = (self.value(words) @ attention).reshape_as(visual)
        return self.output(visual * self.gather(gathered))
