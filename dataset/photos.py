"""Photos from disk, and the one image transform of the whole project."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import torch
from PIL import Image, ImageOps
from torchvision.transforms.v2 import functional as transforms

from utils.errors import UserError, reason

# ImageNet's statistics, although the encoders are CLIP's: kept, because published figures depend on it.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

MAX_PIXELS = 100_000_000  # a header that promises more is refused before anything is decoded
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF")
COMPLETE = "complete the image folder (data/README.md)"


class ResizedPhoto(NamedTuple):
    """A photo at the size of a network's input, and its own height and width in pixels."""

    image: Image.Image
    height: int
    width: int


@contextmanager
def opened(path: str | Path | BinaryIO, formats: Sequence[str] = FORMATS) -> Iterator[Image.Image]:
    """The picture with its header read, for use in the block. FileNotFoundError where it is absent.

    ValueError with the reason where it is no such picture, promises more than `MAX_PIXELS`, or fails in the block.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures, which are refused here
            picture = Image.open(path, formats=formats)
        with picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            yield picture
    except FileNotFoundError:
        raise FileNotFoundError("it is not there") from None
    except Image.DecompressionBombError:
        raise ValueError(f"it claims more than {MAX_PIXELS:,} pixels") from None
    except Exception as error:  # a damaged picture can raise almost anything
        raise ValueError(reason(error)) from None


def read_photo(
    path: str | Path | BinaryIO, name: str | None = None, *, upright: bool = False, cure: str | None = None
) -> Image.Image:
    """The photo as RGB, whatever its mode; UserError where it is absent, damaged, absurdly large or not of 8 bits.

    An open file needs the `name` that messages call it by. `cure` ends a message instead of words for data sets.
    `upright` turns the photo as its EXIF data say, for people to look at; masks of data sets count the stored pixels.
    """
    source, path = path, name or path
    try:
        with opened(source) as picture:
            mode, photo = picture.mode, picture.convert("RGB")
            photo = ImageOps.exif_transpose(photo) if upright else photo
    except FileNotFoundError:
        raise UserError(f"the photo {path} is not there; {cure or COMPLETE}") from None
    except ValueError as error:
        raise UserError(f"the photo {path} cannot be decoded ({error}); {cure or 'fetch it again'}") from None
    if mode.startswith(("I", "F")):  # all above 255 is white now
        raise UserError(f"the photo {path} has more than 8 bits a channel (mode {mode}); convert it to 8 bits")
    return photo


def resized(photo: Image.Image, size: int) -> Image.Image:
    """The photo at size x size pixels: bilinear, antialiased, aspect not kept."""
    return photo.resize((size, size), Image.Resampling.BILINEAR)


def read_resized(path: str | Path, size: int) -> ResizedPhoto:
    """The photo at size x size pixels. Raises as `read_photo` does."""
    photo = read_photo(path)
    return ResizedPhoto(resized(photo, size), photo.height, photo.width)


def to_input(photo: Image.Image) -> torch.Tensor:
    """A network's input, float32 (3, H, W): the RGB photo, normalised with ImageNet's statistics (kept, see above)."""
    return transforms.normalize(transforms.to_dtype(transforms.to_image(photo), torch.float32, scale=True), MEAN, STD)
