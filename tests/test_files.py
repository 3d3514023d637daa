"""Files that are written atomically, and folders that are locked."""

import errno
import fcntl
import os

import pytest

from utils.files import atomic_write, lock_folder


def test_a_killed_run_s_temporary_files_are_removed_and_nobody_else_s(tmp_path):
    with atomic_write(tmp_path / "running.pth") as file:
        (name,) = (other.name for other in tmp_path.iterdir())
        dead = name.replace(str(os.getpid()), "99999999")
        kept = [".notes.tmp", ".notes.7.tmp", ".tris.tmp", ".tris.notes.tmp", f"below/{dead}", f"{dead}/file"]
        for other in kept:
            (tmp_path / other).parent.mkdir(exist_ok=True)
            (tmp_path / other).touch()
        (tmp_path / dead.replace("running", "link")).symlink_to(tmp_path / ".notes.tmp")
        (tmp_path / "own").mkdir()
        killed = [tmp_path / folder / dead.replace("running", "killed") for folder in (".", "own")]
        for left in killed:
            left.touch()
        with lock_folder(tmp_path, below=("own", "absent")):
            assert not any(left.exists() for left in killed)
        file.write(b"all of it")
    assert (tmp_path / "running.pth").read_bytes() == b"all of it"
    assert all((tmp_path / other).exists() for other in [*kept, dead.replace("running", "link")])


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_warned_of(number, tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with lock_folder(tmp_path):
        assert f"warning: {tmp_path} cannot be locked" in capsys.readouterr().err
