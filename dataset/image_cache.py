"""Resized photos in one memory-mapped file, filled as they are first asked for and shared between processes.

A record holds a photo's pixels and size, and a checksum of them and of the photo file's length and time. A record is
used only where its checksum is right, so neither a kill while it is written, nor two processes that write it at once,
nor another photo under the same name gives a wrong image: the photo is then read, and the record written anew.
"""

import hashlib
import os
import shutil
import zlib
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from PIL import Image

from dataset.photos import ResizedPhoto, read_resized
from dataset.references import Split
from utils.errors import UserError

ReadResized = Callable[[Path], ResizedPhoto]


def photo_reader(split: Split, size: int, folder: str | Path | None) -> ReadResized:
    """Gives a photo of the split at size x size pixels; with a `folder` through the cache there."""
    if not folder:
        return partial(read_resized, size=size)
    return ImageCache(folder, [split.photo_path(reference) for reference in split.references], size)


class ImageCache:
    """`read_resized` of some photos, kept in a file in `folder` that is named by the photos' paths and the size.

    Takes 3 size^2 + 16 bytes a photo. UserError, before anything is written, where the disk has fewer.
    """

    def __init__(self, folder: str | Path, paths: Sequence[Path], size: int):
        self.size = size
        self.place = {path: number for number, path in enumerate(dict.fromkeys(paths))}
        listed = "\n".join([str(size), *(str(path.absolute()) for path in self.place)])
        key = hashlib.sha256(os.fsencode(listed)).hexdigest()[:16]
        self.file = Path(folder) / f"images_{key}.cache"
        pixels = ("pixels", "u1", (size, size, 3))
        self.record = np.dtype([("checksum", "<u8"), ("height", "<u4"), ("width", "<u4"), pixels])
        _reserve(self.file, len(self.place) * self.record.itemsize)

    def __call__(self, path: Path) -> ResizedPhoto:
        try:
            stamp = path.stat()
        except OSError:
            return read_resized(path, self.size)  # which says what is wrong
        number = self.place[path]
        record = self.records[number : number + 1].copy()  # what is checked is then what is used
        if record["checksum"][0] != _checksum(record, stamp):
            photo = read_resized(path, self.size)
            record["pixels"], record["height"], record["width"] = np.asarray(photo.image), photo.height, photo.width
            record["checksum"] = _checksum(record, stamp)
            self.records[number : number + 1] = record
        return ResizedPhoto(Image.fromarray(record["pixels"][0]), int(record["height"][0]), int(record["width"][0]))

    @cached_property
    def records(self) -> np.memmap:
        return np.memmap(self.file, self.record, mode="r+", shape=(len(self.place),))

    def __getstate__(self) -> dict:
        """Another process opens the file for itself."""
        return {name: value for name, value in vars(self).items() if name != "records"}


def _checksum(record: np.ndarray, stamp: os.stat_result) -> int:
    """Above 0, which an unwritten record has."""
    facts = (stamp.st_size, stamp.st_mtime_ns, record["height"][0], record["width"][0])
    return zlib.crc32(record["pixels"][0], zlib.crc32(np.array(facts, dtype=np.int64))) + 1


def _reserve(file: Path, size: int) -> None:
    """Make `file` `size` bytes long, keeping what is in it, all of it really on the disk: a mapping cannot report that
    the disk is full. Processes may do so at once."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(file.parent).free
        needed = size - (file.stat().st_blocks * 512 if file.exists() else 0)
        if needed > free:
            raise UserError(
                f"the image cache needs {needed / 1e6:,.0f} MB more in {file.parent}, {free / 1e6:,.0f} MB are free; "
                "choose another --cache_images, or leave it out"
            )
        file.touch()
        with file.open("r+b") as opened:  # not to append: where nothing can be reserved, glibc writes, but not so
            os.posix_fallocate(opened.fileno(), 0, max(size, 1))  # it refuses to reserve nothing
    except OSError as error:
        raise UserError(
            f"cannot write {file}: {error.strerror or error}; choose another --cache_images, or leave it out"
        ) from None
