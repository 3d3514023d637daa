"""What ends a pass and what only a ref, and processes that fail."""

import os
import signal

import pytest
import torch
from PIL import Image

from IRNet.passes import PhotoRefs, PhotoWork, run_pass
from IRNet.processes import start_processes
from utils.errors import UserError, WriteError

LACK = "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"


class Failing(PhotoWork):
    """Raises `error` for photos of one pixel, in preparation or in making the ref's file."""

    def __init__(self, error, early):
        self.error, self.early = error, early

    def is_finished(self, name):
        return False

    def prepare(self, photo, device):
        return self._fail(photo) if self.early else photo

    def make(self, name, prepared):
        self._fail(prepared)
        return True

    def _fail(self, photo):
        if photo.shape[0] == 1:
            raise self.error
        return photo


def run_failing(folder, error, early):
    photos = []
    for size in (1, 2):
        Image.new("RGB", (size, size)).save(folder / f"{size}.png")
        photos.append(PhotoRefs(folder / f"{size}.png", [f"0_{size}"]))
    run_pass("test", Failing(error, early), photos, torch.device("cpu"), 0)


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("error", [RuntimeError(LACK), MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_a_photo_that_needs_too_much_memory_is_refused_and_the_rest_goes_on(tmp_path, capsys, error, early):
    run_failing(tmp_path, error, early)
    told = capsys.readouterr()
    assert "test: 0_1 refused: there is not enough memory for a photo of this size" in told.err
    assert told.out == "test: 1 made (0 of them empty), 0 already there, 1 refused\n"


@pytest.mark.parametrize("early", [True, False])
def test_an_error_of_the_program_is_not_taken_for_want_of_memory(tmp_path, early):
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        run_failing(tmp_path, RuntimeError("shapes do not fit"), early)


def write_on_a_full_disk():
    try:
        raise OSError(28, "No space left on device")
    except OSError as error:
        raise WriteError("cannot write x.png: No space left on device; check folder and free space") from error


def make_a_mistake():
    raise UserError("the photo is bad; fetch it again")


def be_killed():
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("run", "line"),
    [
        (write_on_a_full_disk, "cannot write x.png: No space left on device; check folder and free space"),
        (make_a_mistake, "the photo is bad; fetch it again"),
        (be_killed, "process 0 died, perhaps for want of memory; try a lower --num_workers"),
    ],
)
def test_what_ends_a_process_ends_the_run_in_one_line(run, line):
    with pytest.raises(UserError) as caught:
        start_processes(1, run)
    assert str(caught.value) == line
