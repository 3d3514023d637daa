"""Photos from disk, and the one image transform of the whole project."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from utils.errors import UserError, reason

if TYPE_CHECKING:
    import torch

# Of pictures' oddities, which each worker would repeat: a picture is read, or refused in words.
warnings.filterwarnings("ignore", module=r"PIL\.")

# ImageNet's statistics, although the encoders are CLIP's: kept, because the published metrics depend on it.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

DEVIATION = 0.05  # of the aspect ratio: some photos have a row more or less than their annotation says
MAX_PIXELS = Image.MAX_IMAGE_PIXELS  # 89 million; Pillow only warns of more, here it is an error
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF")
ENDINGS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")  # of their files

Turn = Image.Transpose
# EXIF's orientations, and what makes the stored pixels upright.
UPRIGHT = {
    2: Turn.FLIP_LEFT_RIGHT,
    3: Turn.ROTATE_180,
    4: Turn.FLIP_TOP_BOTTOM,
    5: Turn.TRANSPOSE,
    6: Turn.ROTATE_270,
    7: Turn.TRANSVERSE,
    8: Turn.ROTATE_90,
}
AS_STORED = UPRIGHT | {6: Turn.ROTATE_90, 8: Turn.ROTATE_270}  # the inverse


@contextmanager
def opened(path: str | Path, formats: Sequence[str] = FORMATS) -> Iterator[Image.Image]:
    """The picture with its header read, for use in the block: size and pixels as stored, whatever its `orientation`.

    FileNotFoundError where it is absent. ValueError with the reason where it is not such a picture, has more than
    `MAX_PIXELS`, or fails in the block; a UserError of the block's own passes.
    """
    try:
        with Image.open(path, formats=formats) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise ValueError(f"it has {picture.width} x {picture.height} pixels, more than {MAX_PIXELS:,}")
            turned = orientation(picture) if picture.format == "TIFF" else 1
            if turned in AS_STORED:  # Pillow makes TIFFs, and no others, upright when it loads them
                picture = picture.transpose(AS_STORED[turned])
                picture.getexif()[ExifTags.Base.Orientation] = turned
            yield picture
    except FileNotFoundError:
        raise FileNotFoundError("it is not there") from None
    except UserError:
        raise
    except UnidentifiedImageError:
        raise ValueError(f"it is not a {'/'.join(formats)} picture") from None
    except Exception as error:  # a damaged picture can raise almost anything
        raise ValueError(reason(error)) from None


def orientation(picture: Image.Image) -> int:
    """A key of `UPRIGHT` where EXIF says that the picture is stored turned, else 1; damaged EXIF data say nothing."""
    with suppress(Exception):
        return picture.getexif().get(ExifTags.Base.Orientation, 1)
    return 1


def read_photo(path: str | Path, upright: bool = False, hint: str | None = None) -> Image.Image:
    """The photo as RGB, whatever its mode; UserError where it is absent, damaged, too large or not of 8 bits.

    upright: rotate the photo as its EXIF data say, for people to look at; data sets annotate the pixels as stored.
    hint: what to do about an unusable photo, where it does not belong to a data set.
    """
    try:
        with opened(path) as picture:
            photo = as_rgb(picture, f"the photo {path}", hint or "fetch it again")
            turned = orientation(picture) if upright else 1
            return photo.transpose(UPRIGHT[turned]) if turned in UPRIGHT else photo
    except FileNotFoundError:
        raise UserError(f"the photo {path} is not there; {hint or 'see data/README.md'}") from None
    except ValueError as error:
        raise UserError(f"the photo {path} cannot be decoded ({error}); {hint or 'fetch it again'}") from None


def more_than_8_bits(picture: Image.Image) -> bool:
    """Whether a photo has more than 8 bits per channel: converted to RGB, everything above 255 would become white."""
    return picture.mode.startswith(("I", "F"))


def as_rgb(photo: Image.Image | np.ndarray, name: str = "the photo", hint: str = "give another photo") -> Image.Image:
    """A PIL image of any mode, or an array uint8 (H, W), (H, W, 3) or (H, W, 4), as RGB without alpha.

    UserError, which calls it `name`, for anything else and where it is damaged.
    """
    kind = type(photo).__name__
    if isinstance(photo, np.ndarray):
        kind = f"an array of {photo.dtype} {photo.shape}"
        if photo.dtype == np.uint8 and photo.size and photo.ndim > 1 and photo.shape[2:] in ((), (3,), (4,)):
            photo = Image.fromarray(photo)
    if not isinstance(photo, Image.Image) or 0 in photo.size:
        raise UserError(f"{name} cannot be used ({kind}); give a path, a PIL image, or an RGB array uint8 (H, W, 3)")
    if more_than_8_bits(photo):
        raise UserError(f"{name} has more than 8 bits per channel (mode {photo.mode}); convert it to 8 bits")
    try:
        return photo.convert("RGB")
    except Exception as error:  # see `opened`
        raise UserError(f"{name} cannot be decoded ({reason(error)}); {hint}") from None


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


def same_aspect(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes (H, W) have the same aspect ratio, within `DEVIATION`."""
    (height, width), (other_height, other_width) = size, other
    return abs(height * other_width - width * other_height) <= DEVIATION * width * other_height


def at_size(
    pixels: np.ndarray, size: tuple[int, int], resample: Image.Resampling = Image.Resampling.NEAREST
) -> np.ndarray:
    """A photo, map or mask, uint8, float32 or bool (H, W[, 3]), resized to `size` (H, W)."""
    if pixels.shape[:2] == tuple(size):
        return pixels
    return np.array(Image.fromarray(pixels).resize(size[::-1], resample))


def to_input(photo: Image.Image) -> "torch.Tensor":
    """A network's input, float32 (3, H, W): the RGB photo, scaled to 0..1 and normalised with `MEAN` and `STD`."""
    import torch  # here, because it takes seconds, and readers of annotations do without
    from torchvision.transforms.v2 import functional as transforms

    return transforms.normalize(transforms.to_dtype(transforms.to_image(photo), torch.float32, scale=True), MEAN, STD)
