"""The short version of `python -m tests.fuzz`."""

import pytest

from tests.fuzz import fuzz, plant

INPUTS = {"jsonl": 500, "refs": 300, "instances": 200, "referit": 500, "checkpoint": 150, "map": 300, "names": 300}


@pytest.mark.parametrize("reader", INPUTS)
def test_damaged_files_are_refused_in_words(reader, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plant()
    accepted = fuzz(reader, INPUTS[reader])
    assert INPUTS[reader] - accepted > 0  # some were damaged
    assert accepted or reader == "checkpoint"  # some still held what is needed; this checkpoint is too small for that
