"""The readers, given damaged files by the hundred: each file is read, or refused with a UserError.

    HYPOTHESIS_PROFILE=long python -m pytest tests/test_fuzz.py

tries 200 times as many, different ones each time, in an hour or so.
"""

import copy
import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataset.masks import rasterise
from tests.small_files import FILES, write_good_files
from utils.errors import UserError

COMMON = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
PROFILES = {"short": {"max_examples": 100, "derandomize": True}, "long": {"max_examples": 20_000}}
PROFILE = settings(**COMMON, **PROFILES[os.environ.get("HYPOTHESIS_PROFILE", "short")])

TEXT = st.text(st.sampled_from("a01 é/\\.:\0\n\ud800😀"), max_size=8)
NUMBER = st.integers(-9, 99) | st.sampled_from([2**31, 2**63, -(2**70), 10**400]) | st.floats()
ODD = st.one_of(
    *(st.none(), st.booleans(), NUMBER, TEXT, st.binary(max_size=4), st.sampled_from(["../a", "a" * 3000, [[[]]]])),
    *(st.lists(NUMBER, max_size=9), st.dictionaries(TEXT, NUMBER, max_size=2)),
)
# Bytes to put in the place of some at a share of the file; values to put in the place of one inside what it holds.
EDITS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 9), st.binary(max_size=6)), min_size=1, max_size=4)
CHANGES = st.lists(st.tuples(st.lists(st.integers(0, 30), max_size=6), ODD), min_size=1, max_size=3)


def edited(content, edits):
    for place, removed, new in edits:
        at = int(place * len(content))
        content = content[:at] + new + content[at + removed :]
    return content


def changed(value, changes):
    """A path chooses an item, an item of that item, and so on, until it ends or there are none."""
    root = [copy.deepcopy(value)]
    for path, new in changes:
        inside, key = root, 0
        for step in path:
            item = inside[key]
            if not isinstance(item, (list, dict)) or not item:
                break
            inside, key = item, list(item)[step % len(item)] if isinstance(item, dict) else step % len(item)
        inside[key] = copy.deepcopy(new)
    return root[0]


@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_read_or_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_good_files()
    value, write, read = FILES[name]
    read(name)

    @PROFILE
    @given(EDITS.map(lambda edits: edited(write(value), edits)) | CHANGES.map(lambda changes: changed(value, changes)))
    def attempt(damaged):
        if not isinstance(damaged, bytes):
            try:
                damaged = write(damaged)
            except Exception:
                return  # no such file can be written
        Path(name).write_bytes(damaged)
        with suppress(UserError):
            read(name)

    attempt()


RLE = st.fixed_dictionaries(
    {"size": st.just([6, 8]) | ODD, "counts": st.lists(st.integers(-2, 50), max_size=9) | st.text(max_size=9) | ODD}
)
POLYGON = st.lists(NUMBER, max_size=10) | ODD


@PROFILE
@given(st.lists(RLE | POLYGON, max_size=3) | RLE | ODD, st.sampled_from([(6, 8), (1, 1), (0, 5), (10**9, 10**9)]))
def test_a_damaged_mask_is_rasterised_or_refused(segmentation, size):
    with suppress(ValueError, TypeError, OverflowError):
        mask = rasterise(segmentation, *size)
        assert (mask.shape, mask.dtype) == (size, bool)
