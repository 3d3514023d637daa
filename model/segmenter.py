"""A trained network for use: photos and sentences in, response maps and masks out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from clip import tokenize
from dataset.checks import checked_sentence
from dataset.photos import as_rgb, read_photo, resized, to_input
from model.build import load_network
from model.refine import NO_CLICKS, Clicks, Cutter, Sam, refine
from utils.errors import UserError, shown
from utils.maps import at_photo_size

Photo = str | Path | Image.Image | np.ndarray


@dataclass(frozen=True)
class EncodedPhoto:
    """What `Segmenter.encode` keeps of a photo, for any number of sentences."""

    features: Any  # the network's own
    size: tuple[int, int]  # (H, W) of the photo
    for_cutter: Any = None  # the cutter's own


class Segmenter:
    """Segments the objects that sentences name, with a network of either stage.

    Photos are resized to `size` x `size` pixels, sentences cut to `query_length` tokens. A `cutter` cuts the masks
    anew, see `model.refine`.
    """

    def __init__(
        self,
        network: nn.Module,
        size: int = 320,
        query_length: int = 20,
        device: torch.device | str = "cpu",
        cutter: Cutter | None = None,
    ):
        self.network, self.cutter = network.eval().to(device), cutter
        self.size, self.query_length, self.device = size, query_length, torch.device(device)

    @torch.inference_mode()
    def encode(self, photo: Photo) -> EncodedPhoto:
        """What `respond` and `segment` take in place of a photo that is asked about more than once.

        A photo is a path, which is read upright, or a PIL image or an RGB array uint8 (H, W, 3) as it is, see `as_rgb`.
        UserError for a photo that cannot be used.
        """
        if isinstance(photo, str | Path):
            image = read_photo(photo, upright=True, hint="give another photo")
        else:
            image = as_rgb(photo)
        network_input = to_input(resized(image, self.size))[None].to(self.device)
        for_cutter = self.cutter.encode(np.asarray(image)) if self.cutter else None
        return EncodedPhoto(self.network.encode(network_input), (image.height, image.width), for_cutter)

    @torch.inference_mode()
    def respond(self, photo: Photo | EncodedPhoto, sentences: Sequence[str]) -> np.ndarray:
        """Response maps of a photo, float32 (N, H, W), at most 1, at the photo's size.

        Photos are as for `encode`. UserError for an empty sentence, and for a sentence in the place of a list of them.
        """
        if isinstance(sentences, str):
            raise UserError(f"{shown(sentences)} is one sentence; give a list of them")
        texts = [checked_sentence(sentence, "the list of sentences", "give another sentence") for sentence in sentences]
        encoded = photo if isinstance(photo, EncodedPhoto) else self.encode(photo)
        if not texts:
            return np.zeros((0, *encoded.size), dtype=np.float32)
        tokens = tokenize(texts, self.query_length).to(self.device)
        which = torch.zeros(len(texts), dtype=torch.int64, device=self.device)
        responses = self.network.answer(encoded.features, tokens, which, (self.size, self.size))
        return at_photo_size(responses.maps, encoded.size).cpu().numpy()

    def segment(
        self, photo: Photo | EncodedPhoto, sentences: Sequence[str], threshold: float | None = None
    ) -> np.ndarray:
        """Masks of a photo, bool (N, H, W), see `masks`. Photos and errors are those of `respond`."""
        encoded = photo if isinstance(photo, EncodedPhoto) else self.encode(photo)
        return self.masks(encoded, self.respond(encoded, sentences), threshold)

    def masks(
        self,
        photo: EncodedPhoto,
        responses: np.ndarray,
        threshold: float | None = None,
        cut: bool = True,
        clicks: Clicks = NO_CLICKS,
    ) -> np.ndarray:
        """Masks, bool (N, H, W), from a photo's responses (N, H, W), which are taken for those of N objects.

        A mask is where the response exceeds `threshold`, by default the stage's own. If there is a cutter and `cut`, it
        cuts masks instead, with somebody's `clicks` on the photo for the first of them; it knows no threshold.
        """
        own = self.network.mask_threshold
        if not (cut and self.cutter and len(responses)):
            return responses > (own if threshold is None else threshold)
        masks = responses > own
        return np.stack(refine(self.cutter, photo.for_cutter, responses, masks, range(len(masks)), clicks))


def load_model(
    file: str | Path, device: torch.device | str = "cpu", size: int | None = None, sam: str | Path | None = None
) -> Segmenter:
    """The network of a checkpoint of either stage, ours or a published one; UserError where it cannot be had.

    size: pixels of the square that photos are resized to; None: as in its training. sam: a name on Hugging Face's hub
    or a folder, to cut masks with SAM 2, which has been trained with masks; None: masks are where responses are.
    """
    cutter = Sam(sam, device) if sam else None
    network = load_network(file)
    trained = network.architecture
    return Segmenter(network, size or trained.input_size, trained.query_length, device, cutter)
