"""Photos from disk, and the one image transform of the whole project."""

from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torchvision.transforms.v2 import functional as transforms

from utils.errors import UserError

# ImageNet's statistics, although the encoders are CLIP's: kept, because published figures depend on it.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

MAX_PIXELS = 100_000_000  # a header that promises more is refused before anything is decoded
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF")


class ResizedPhoto(NamedTuple):
    """A photo at the size of a network's input, and its own height and width in pixels."""

    image: Image.Image
    height: int
    width: int


def read_photo(path: str | Path) -> Image.Image:
    """The photo as RGB, whatever its mode; UserError where it is absent, damaged or absurdly large."""
    try:
        with Image.open(path, formats=FORMATS) as photo:
            if photo.width * photo.height > MAX_PIXELS:
                raise UserError(f"the photo {path} claims {photo.width} x {photo.height} pixels; replace or shrink it")
            return photo.convert("RGB")
    except FileNotFoundError:
        raise UserError(f"the photo {path} is not there; complete the image folder (data/README.md)") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"the photo {path} cannot be decoded ({error}); fetch it again") from None


def read_resized(path: str | Path, size: int) -> ResizedPhoto:
    """The photo at size x size pixels: bilinear, antialiased, aspect not kept. Raises as `read_photo` does."""
    photo = read_photo(path)
    return ResizedPhoto(photo.resize((size, size), Image.Resampling.BILINEAR), photo.height, photo.width)


def to_input(photo: Image.Image, size: int) -> torch.Tensor:
    """A network's input, float32 (3, size, size), normalised; a photo of another size is resized as above."""
    resized = photo.resize((size, size), Image.Resampling.BILINEAR)
    return transforms.normalize(transforms.to_dtype(transforms.to_image(resized), torch.float32, scale=True), MEAN, STD)
