"""Files from the network: over HTTPS, whole or not there under their names, and going on where a connection was cut.

What is there so far of `NAME` lies in `.NAME.part` beside it, until all of it is there and its checksum, where one is
known, is right.
"""

import fcntl
import hashlib
import shutil
import zipfile
from collections.abc import Sequence
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath
from ssl import SSLError
from typing import Any, BinaryIO, NamedTuple
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from tqdm import tqdm

from utils.errors import UserError

TIMEOUT = 60  # seconds without a byte
ATTEMPTS = 5  # in a row that bring nothing new
BLOCK = 1 << 20  # bytes
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Remote(NamedTuple):
    """A file to fetch."""

    url: str
    path: Path
    sha256: str | None = None  # where it is known
    plain: bool = False  # plain HTTP is allowed, because the user named this address


def mirrored(mirror: str, name: str, path: Path, sha256: str | None = None) -> Remote:
    """The file `name` in the folder with the address `mirror`, which the user named."""
    return Remote(f"{mirror.rstrip('/')}/{quote(name)}", path, sha256, plain=True)


def fetch_all(remotes: Sequence[Remote]) -> list[Path]:
    """Fetch the files that are not there yet, after telling their sizes. Returns the paths of all.

    Raises UserError for an address that does not answer or is not HTTPS, a full disk and a wrong checksum.
    """
    missing = [remote for remote in remotes if not remote.path.exists()]
    for remote in missing:
        print(f"{remote.path}: {_megabytes(size_of(remote))} from {remote.url}", flush=True)
    for remote in missing:
        _fetch(remote)
    return [remote.path for remote in remotes]


def size_of(remote: Remote) -> int | None:
    """The size of a file in bytes, None where the server does not say."""
    with _open(remote, method="HEAD") as answer:
        length = answer.headers.get("Content-Length")
        return int(length) if length else None


def _megabytes(size: int | None) -> str:
    return "of unknown size" if size is None else f"{size / 1e6:,.1f} MB"


def _fetch(remote: Remote) -> None:
    part = remote.path.with_name(f".{remote.path.name}.part")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("ab") as file:
            _own(file, part)
            _complete(remote, file)
        _check(remote, part)
        part.replace(remote.path)
    except OSError as error:
        raise UserError(f"cannot write {remote.path}: {error.strerror or error}; check folder and free space") from None


def _own(file: BinaryIO, part: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"another run is fetching {part}; wait for it") from None


def _complete(remote: Remote, file: BinaryIO) -> None:
    """Append what is missing; a cut connection is made anew as long as that brings something."""
    failures = 0
    while failures < ATTEMPTS:
        before = file.tell()
        if _append(remote, file):
            return
        failures = 0 if file.tell() > before else failures + 1
    here = _megabytes(file.tell())
    raise UserError(f"{remote.url} was cut after {here}; run the same command again, it goes on there")


def _append(remote: Remote, file: BinaryIO) -> bool:
    """Write what one connection gives; whether the file is then whole."""
    with _open(remote, Range=f"bytes={file.tell()}-") as answer:
        if answer.status != 206:  # the server begins at the start whatever it is asked, or there is no more
            if answer.status == 416 and answer.headers.get("Content-Range") == f"bytes */{file.tell()}":
                return True
            file.truncate(0)
            file.seek(0)
            if answer.status == 416:
                return False
        length = answer.headers.get("Content-Length")
        total = file.tell() + int(length) if length else None
        _require_space(remote, total, file.tell())
        title = remote.path.name
        with tqdm(total=total, initial=file.tell(), desc=title, unit="B", unit_scale=True, disable=None) as bar:
            try:
                while block := answer.read(BLOCK):
                    file.write(block)
                    bar.update(len(block))
            except (HTTPException, ConnectionError, TimeoutError, SSLError):
                return False
        return total is None or file.tell() == total


def _require_space(remote: Remote, total: int | None, have: int) -> None:
    free = shutil.disk_usage(remote.path.parent).free
    if total is not None and total - have > free:
        raise UserError(f"{remote.path} needs {_megabytes(total - have)}, {_megabytes(free)} are free; make room")


class _SafeRedirects(HTTPRedirectHandler):
    """Follows a redirection only to an address that could have been asked for."""

    def __init__(self, plain: bool):
        self.plain = plain

    def redirect_request(self, request: Request, *answer: Any) -> Request | None:
        _require_https(answer[-1], self.plain)
        return super().redirect_request(request, *answer)


def _open(remote: Remote, method: str = "GET", **headers: str) -> HTTPResponse:
    """The server's answer; 416 is one, every other failure a UserError that names the address."""
    _require_https(remote.url, remote.plain)
    try:
        opener = build_opener(_SafeRedirects(remote.plain))
        return opener.open(Request(remote.url, method=method, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        if error.code == 416:
            return error
        reason = f"answers {error.code} {error.reason}"
    except (OSError, HTTPException, ValueError) as error:
        reason = f"cannot be reached ({getattr(error, 'reason', None) or error})"
    raise UserError(f"{remote.url} {reason}; try again later, or name another place with --mirror URL")


def _require_https(url: str, plain: bool) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and (plain or parts.hostname in LOOPBACK)):
        raise UserError(f"{url} is not an https address; name another place with --mirror URL")


def _check(remote: Remote, part: Path) -> None:
    """The right checksum, where one is known; a wrong file is removed."""
    if remote.sha256 is None:
        return
    digest = hashlib.sha256()
    with part.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    found = digest.hexdigest()
    if found != remote.sha256:
        part.unlink()
        raise UserError(f"{remote.url} has the checksum {found}, not {remote.sha256}; name another place with --mirror")


def unzip(archive: Path, folder: Path) -> None:
    """Unpack an archive below `folder`; UserError for a damaged one, and before anything is written for one with a
    path that leaves the folder."""
    try:
        with zipfile.ZipFile(archive) as content:
            members = [member for member in content.infolist() if not member.is_dir()]
            for member in members:
                _require_inside(archive, member.filename)
            for member in tqdm(members, desc=f"unpacking {archive.name}", unit="file", disable=None):
                content.extract(member, folder)
    except (zipfile.BadZipFile, zipfile.zlib.error, EOFError) as error:
        raise UserError(f"{archive} is damaged ({error}); remove it and fetch it again") from None
    except OSError as error:
        raise UserError(f"cannot unpack {archive}: {error.strerror or error}; check free space") from None


def _require_inside(archive: Path, name: str) -> None:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or (path.parts and path.parts[0].endswith(":")):
        raise UserError(f"{archive} holds the path '{name}', which leaves its folder; fetch it from another place")
