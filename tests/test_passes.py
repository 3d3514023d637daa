"""A pass over photos: who works at the same time, and what becomes of refs when one fails."""

from pathlib import Path
from threading import Barrier

import pytest
import torch

from dataset.passes import map_photos, working_size
from utils.errors import UserError, WriteError

PHOTOS = [(Path(f"{number}.jpg"), [f"{number}_a", f"{number}_b"]) for number in range(4)]


def test_with_a_gpu_photos_are_worked_on_by_threads_at_the_same_time():
    both = Barrier(2, timeout=20)  # raises unless two are there at once

    def work(path, names):
        both.wait()
        yield names[0], True
        if path.name == "2.jpg":
            raise UserError("it is bad")
        yield names[1], False

    outcomes = map_photos("test", PHOTOS, work, torch.device("cuda"), workers=2)
    refused = {name: str(outcome) for name, outcome in outcomes.items() if isinstance(outcome, UserError)}
    assert list(outcomes) == [name for _, names in PHOTOS for name in names]
    assert refused == {"2_b": "it is bad"} and outcomes["2_a"] is True and outcomes["3_b"] is False


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("error", [WriteError("disk full"), RuntimeError("a bug")])
def test_what_is_not_the_photos_fault_ends_the_pass(device, error):
    def work(path, names):
        raise error

    with pytest.raises(type(error), match=str(error)):
        map_photos("test", PHOTOS, work, torch.device(device), workers=0)


def test_a_pass_computes_with_one_thread_and_gives_the_others_back():
    torch.set_num_threads(2)
    outcomes = map_photos(
        "test", PHOTOS, lambda _, names: [(names[0], torch.get_num_threads() == 1)], torch.device("cpu"), workers=0
    )
    assert list(outcomes.values()) == [True] * 4 and torch.get_num_threads() == 2


def test_working_size_by_hand():
    assert working_size((480, 640)) == (480, 640) and working_size((3000, 4000)) == (750, 1000)
    assert working_size((1, 4000)) == (1, 1000)
