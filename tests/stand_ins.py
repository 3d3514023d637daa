"""A network and a cutter whose masks are known."""

import numpy as np
from scipy import ndimage
from torch import nn

from utils.maps import Responses


class Redness(nn.Module):
    """A stand-in for a network: responds to red, so that its masks are known."""

    mask_threshold = 0.0

    def __init__(self):
        super().__init__()
        self.encoded = 0

    def encode(self, images):
        self.encoded += 1
        return images

    def answer(self, images, tokens, photo, size):
        maps = (images[photo, :1] - images[photo, 1:2] - 1).relu()
        return Responses(maps, maps)


class Flood:
    """A cutter for drawn scenes: the connected region of equal colour at the first point inside, and half of it."""

    encoded = 0

    def encode(self, photo):
        self.encoded += 1
        return photo

    def cut(self, encoded, prompts, size):
        assert encoded.shape[:2] == size
        for prompt in prompts:
            x, y = prompt.inside[-1]
            labels, _ = ndimage.label((encoded == encoded[y, x]).all(axis=2))
            whole = labels == labels[y, x]
            yield np.stack([whole & (np.arange(size[1]) < x), whole])
