"""Pickled annotations, which come from the web, read without running anything."""

import pickle
from pathlib import Path
from typing import Any

from utils.errors import UserError, reason, shown


class _PlainUnpickler(pickle._Unpickler):
    """Built-in containers, numbers and strings; every other global is refused before it is imported.

    The base class is the one written in Python: the one in C allocates gigabytes where a few bytes name a large memo
    index, and is only one second faster on the largest data set.
    """

    # Without bytearrays: no annotation has one, and a few bytes could ask for one of any size.
    dispatch = {code: load for code, load in pickle._Unpickler.dispatch.items() if code != pickle.BYTEARRAY8[0]}

    def find_class(self, module: str, name: str) -> Any:
        # How Python 3 pickles bytes for Python 2. A function of its own each time: a pickle may set attributes of it.
        if (module, name) == ("_codecs", "encode"):
            return lambda text, encoding: text.encode({"latin1": "latin1"}[encoding])
        if module in ("builtins", "__builtin__") and name == "set":
            return set
        raise pickle.UnpicklingError(f"it tries to import {shown(f'{module}.{name}')}")

    def get_extension(self, code: int) -> None:
        # The inherited one finds what another unpickler has imported for the code, without asking `find_class`.
        raise pickle.UnpicklingError(f"it names the extension code {code}")


def read_pickle(path: Path, hint: str) -> Any:
    """The plain value in a pickle of Python 2 or 3; UserError where it is absent, damaged or holds more than data."""
    try:
        with path.open("rb") as file:
            return _PlainUnpickler(file, encoding="latin1").load()
    except FileNotFoundError:
        raise UserError(f"{path} is not there; {hint}") from None
    except Exception as error:  # a damaged pickle can raise almost anything
        raise UserError(f"{path} cannot be read: {reason(error)}; {hint}") from None
