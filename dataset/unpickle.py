"""Reading pickled annotations that come from the web without letting them run anything."""

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from utils.errors import UserError, reason, shown
from utils.memory import bounded_by


class _Latin1Bytes:
    """What `_codecs.encode` does in the pickles of Python 3's bytes, and nothing else of it.

    Without a dictionary of its own: a pickle can set attributes of whatever it is given, a function's defaults too.
    """

    __slots__ = ()

    def __call__(self, text: str, encoding: str) -> bytes:
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"the encoding {shown(encoding)} is not used by annotations")
        return text.encode("latin1")


_ALLOWED = {
    ("_codecs", "encode"): _Latin1Bytes(),
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    ("collections", "OrderedDict"): dict,
}


class _PlainUnpickler(pickle.Unpickler):
    """Built-in containers, numbers and strings; every other global is refused before it is imported."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it wants to import {shown(f'{module}.{name}')}") from None


def read_pickle(path: Path, cure: str) -> Any:
    """The plain value in a pickle of Python 2 or 3; UserError where it is absent, damaged or more than data."""
    try:
        with path.open("rb") as file, bounded_by(path):
            # Without `readinto`: a cut bytearray would make Python print an error of its own beside ours.
            plain = SimpleNamespace(read=file.read, readline=file.readline, peek=file.peek)
            return _PlainUnpickler(plain, encoding="latin1").load()
    except FileNotFoundError:
        raise UserError(f"{path} is not there; {cure}") from None
    except Exception as error:  # a damaged pickle can raise almost anything
        raise UserError(f"{path} is refused: {reason(error)}; {cure}") from None
