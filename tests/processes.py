"""Scripts in processes of their own, forked from one that has already imported what takes seconds to import.

Nothing of this repository is imported before the fork, and the script ends as any Python program does.
"""

import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
IMPORTED = ["open_clip", "cv2", "pycocotools.mask"]  # and with these torch, torchvision, numpy, Pillow


class Started:
    """A script that runs in a process group of its own, as a terminal starts it; used as a `subprocess.Popen` is."""

    def __init__(self, words, stdout=None, environment=()):
        self.printed = [tempfile.TemporaryFile("w+") for _ in range(2)]  # noqa: SIM115 - standard output and error
        self.returncode, (reader, writer) = None, os.pipe()
        request = json.dumps([[*map(str, words)], dict(environment)]).encode()
        out, errors = (file.fileno() for file in self.printed)
        socket.send_fds(_server(), [request], [out if stdout is None else stdout, errors, writer])
        os.close(writer)
        self.told = os.fdopen(reader)  # by its keeper: its number, and how it ended
        self.pid = int(self.told.readline())

    def poll(self, timeout=0):
        if self.returncode is None and select.select([self.told], [], [], timeout)[0]:
            self.returncode = int(self.told.readline())
        return self.returncode

    def wait(self, timeout):
        if self.poll(timeout) is None:
            raise subprocess.TimeoutExpired("the script", timeout)
        return self.returncode

    def communicate(self, timeout):
        self.wait(timeout)
        for file in self.printed:
            file.seek(0)
        return tuple(file.read() for file in self.printed)

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)


def run_processes(*words, timeout=200):
    """A script in two processes that know of each other as torchrun's do, and must succeed; what the first printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    started = [Started(words, environment=group | {"RANK": str(n), "LOCAL_RANK": str(n)}) for n in range(2)]
    printed = [process.communicate(timeout) for process in started]
    assert [process.returncode for process in started] == [0, 0], printed
    return printed[0][0]


@cache
def _server():
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    words = [sys.executable, "-c", "from tests.processes import serve; serve()"]
    subprocess.Popen(words, cwd=ROOT, stdin=theirs)  # ends with us
    return ours


def serve():
    """In the server: run each script that is asked for, until nobody can ask any more."""
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()  # a collection would copy all that the fork shares, when a script ends at the latest
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for keepers
    with socket.socket(fileno=os.dup(0)) as channel:
        while True:
            request, files, _, _ = socket.recv_fds(channel, 1 << 20, 3)
            if not request:
                return
            if not os.fork():
                break
            for file in files:
                os.close(file)
    _keep(*json.loads(request), *files)


def _keep(words, environment, stdout, stderr, told):
    """Fork the script; say its number, and how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if number := os.fork():
        os.write(told, b"%d\n" % number)
        os.write(told, b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]))
        os._exit(0)
    os.close(told)
    os.setsid()
    for file, stream in ((os.open(os.devnull, os.O_RDONLY), 0), (stdout, 1), (stderr, 2)):
        os.dup2(file, stream)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", 1, errors="backslashreplace")
    os.environ.update(environment)
    sys.argv = words
    runpy.run_path(words[0], run_name="__main__")
