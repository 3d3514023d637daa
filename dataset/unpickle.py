"""Reading pickled annotations that come from the web without letting them run anything."""

import pickle
from pathlib import Path
from typing import Any

from utils.errors import UserError


def _latin1_bytes(text: str, encoding: str) -> bytes:
    """What `_codecs.encode` does in the pickles of Python 3's bytes, and nothing else of it."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"the encoding '{encoding}' is not used by annotations")
    return text.encode("latin1")


_ALLOWED = {
    ("_codecs", "encode"): _latin1_bytes,
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
            raise pickle.UnpicklingError(f"it wants to import {module}.{name}") from None


def read_pickle(path: Path, cure: str) -> Any:
    """The plain value in a pickle of Python 2 or 3; UserError where it is absent, damaged or more than data."""
    try:
        with path.open("rb") as file:
            return _PlainUnpickler(file, encoding="latin1").load()
    except FileNotFoundError:
        raise UserError(f"{path} is not there; {cure}") from None
    except Exception as error:  # a damaged pickle can raise almost anything
        raise UserError(f"{path} is refused: {error or type(error).__name__}; {cure}") from None
