"""Photos from disk, and the one image transform of the whole project."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageOps

from utils.errors import UserError, reason

if TYPE_CHECKING:
    import torch

# ImageNet's statistics, although the encoders are CLIP's: kept, because the published metrics depend on it.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

MAX_PIXELS = Image.MAX_IMAGE_PIXELS  # 89 million; Pillow only warns of more, here it is an error
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF")
ENDINGS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")  # of their files


@contextmanager
def opened(path: str | Path, formats: Sequence[str] = FORMATS) -> Iterator[Image.Image]:
    """The picture with its header read, for use in the block. FileNotFoundError where it is absent.

    ValueError with the reason where it is not such a picture, has more than `MAX_PIXELS`, or fails in the block.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(path, formats=formats)
        with picture:
            yield picture
    except FileNotFoundError:
        raise FileNotFoundError("it is not there") from None
    except Exception as error:  # a damaged picture can raise almost anything
        raise ValueError(reason(error)) from None


def read_photo(path: str | Path, upright: bool = False, hint: str | None = None) -> Image.Image:
    """The photo as RGB, whatever its mode; UserError where it is absent, damaged, too large or not of 8 bits.

    upright: rotate the photo as its EXIF data say, for people to look at; data sets annotate the pixels as stored.
    hint: what to do about an unusable photo, where it does not belong to a data set.
    """
    try:
        with opened(path) as picture:
            mode, photo = picture.mode, picture.convert("RGB")
            photo = ImageOps.exif_transpose(photo) if upright else photo
    except FileNotFoundError:
        raise UserError(f"the photo {path} is not there; {hint or 'see data/README.md'}") from None
    except ValueError as error:
        raise UserError(f"the photo {path} cannot be decoded ({error}); {hint or 'fetch it again'}") from None
    if mode.startswith(("I", "F")):  # converted to RGB, everything above 255 became white
        raise UserError(f"the photo {path} has more than 8 bits per channel (mode {mode}); convert it to 8 bits")
    return photo


def photos_in(folder: Path) -> list[Path]:
    """The photos in a folder, by name; UserError where there is none. Hidden files are not photos."""
    try:
        files = [file for file in folder.iterdir() if file.suffix.lower() in ENDINGS and file.name[0] != "."]
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be read ({error.strerror}); name another one") from None
    if not files:
        raise UserError(f"the folder {folder} holds no photo ({', '.join(ENDINGS)}); name another one")
    return sorted(files)


def resized(photo: Image.Image, size: int) -> Image.Image:
    """The photo at size x size pixels: bilinear, antialiased, aspect ratio not kept."""
    return photo.resize((size, size), Image.Resampling.BILINEAR)


def to_input(photo: Image.Image) -> "torch.Tensor":
    """A network's input, float32 (3, H, W): the RGB photo, scaled to 0..1 and normalised with `MEAN` and `STD`."""
    import torch  # here, because it takes seconds, and readers of annotations do without
    from torchvision.transforms.v2 import functional as transforms

    return transforms.normalize(transforms.to_dtype(transforms.to_image(photo), torch.float32, scale=True), MEAN, STD)
