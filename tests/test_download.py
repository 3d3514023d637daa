"""The download scripts and the demo's download, with the real curl and unzip and the real addresses.

A `.curlrc` leads every connection to servers of this process, over TLS where the address is https.
"""

import hashlib
import http.server
import os
import shutil
import ssl
import subprocess
import threading
import zipfile
from io import BytesIO

import pytest

from tests.conftest import ROOT, run

CONTENT = bytes(range(256)) * 40
WEIGHTS = "/fawnliu/storage/releases/download/{}/{}"
STAGE2 = WEIGHTS.format("v1.0.1", "stage2_refcocog_umd.pth")
UNC = "bvisionweb1.cs.unc.edu/licheng/referit/data"

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl to make a certificate")


class Files:
    """What the servers have and were asked; a GET sends at most `cut` bytes, never a range unless `resumes`."""

    def __init__(self):
        self.files, self.asked, self.ranges, self.cut, self.resumes = {}, [], [], 1 << 30, True


def handler(state: Files):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            content = state.files.get(self.path)
            start = int(self.headers.get("Range", "bytes=0-")[6:-1]) if state.resumes else 0
            if self.command == "GET":
                state.asked.append(f"{self.headers['Host'].split(':')[0]}{self.path}")
                state.ranges.append(start)
            if content is None or start >= len(content):
                self.send_response(404 if content is None else 416)
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content[start : start + state.cut])

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    return Handler


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    names = "subjectAltName=DNS:github.com,DNS:web.archive.org"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", file, "-out", f"{file}.crt"]
    subprocess.run([*make, "-subj", "/CN=test", "-addext", names, "-days", "2"], check=True, capture_output=True)
    with file.open("a") as both:
        both.write(file.with_name("both.pem.crt").read_text())
    return file


@pytest.fixture
def internet(certificate, tmp_path, monkeypatch):
    """The two servers' `Files`; curl finds them under any name, on port 80 and 443."""
    state = Files()
    plain, tls = (http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler(state)) for _ in range(2))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    tls.socket = context.wrap_socket(tls.socket, server_side=True)
    lines = [f'connect-to = ":443:127.0.0.1:{tls.server_port}"', f'connect-to = ":80:127.0.0.1:{plain.server_port}"']
    home = tmp_path / "home"
    home.mkdir()
    (home / ".curlrc").write_text("\n".join([*lines, f'cacert = "{certificate}"', 'noproxy = "*"']))
    monkeypatch.setenv("CURL_HOME", str(home))
    for server in (plain, tls):
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield state
    for server in (plain, tls):
        server.shutdown()
        server.server_close()


@pytest.fixture
def download(tmp_path):
    """Runs a download script in a copy of its folder: status, output, errors; `download.root` is the copy."""
    root = tmp_path / "clone"
    shutil.copytree(ROOT / "scripts", root / "scripts")

    def run(kind, *names):
        command = ["bash", root / "scripts" / f"download_{kind}.sh", *names]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout, done.stderr.strip().splitlines()

    run.root = root
    return run


def files_in(folder):
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def archive(**files) -> bytes:
    content = BytesIO()
    with zipfile.ZipFile(content, "w") as packed:
        for name, text in files.items():
            packed.writestr(name, text)
    return content.getvalue()


def test_all_ten_published_checkpoints_are_fetched_once_from_where_they_are(internet, download):
    names = ["referit", "refcoco", "refcoco+", "refcocog_google", "refcocog_umd"]
    published = {f"stage{s}_{name}.pth": f"v1.0.{4 if s == 1 else 1}" for name in names for s in (1, 2)}
    internet.files = {WEIGHTS.format(release, file): file.encode() for file, release in published.items()}
    status, printed, errors = download("weights", "stage2_refcocog_umd")
    assert status == 0, errors
    assert printed == f"weights/stage2_refcocog_umd.pth: fetching 0 MB from https://github.com{STAGE2}\n"
    assert files_in(download.root / "weights") == ["SHA256SUMS", "stage2_refcocog_umd.pth"]
    assert download("weights", "refcoco+")[0] == 0
    assert len(files_in(download.root / "weights")) == 4
    status, printed, _ = download("weights")
    assert (status, "weights/stage2_refcocog_umd.pth is already there\n" in printed) == (0, True)
    found = {f.name: f.read_text() for f in (download.root / "weights").iterdir() if f.suffix}
    assert found == {name: name for name in published}
    assert len(internet.asked) == 10


@pytest.mark.parametrize(
    ("beginning", "ranges", "asked"),
    [
        (CONTENT[:7000], True, [7000]),
        (CONTENT, True, []),  # killed before the file got its name
        (CONTENT + b"of another file", True, [0]),
        (b"of another file", False, [0, 0]),  # a server that cannot resume
    ],
)
def test_an_interrupted_download_resumes(internet, download, beginning, ranges, asked):
    internet.files[STAGE2], internet.resumes = CONTENT, ranges
    (download.root / "weights").mkdir()
    (download.root / "weights" / "stage2_refcocog_umd.pth.part").write_bytes(beginning)
    status, _, errors = download("weights", "stage2_refcocog_umd")
    assert (status, internet.ranges) == (0, asked), errors
    assert (download.root / "weights" / "stage2_refcocog_umd.pth").read_bytes() == CONTENT
    assert files_in(download.root / "weights") == ["SHA256SUMS", "stage2_refcocog_umd.pth"]


def test_a_checkpoint_that_differs_from_another_machines_is_refused(internet, download):
    weights = download.root / "weights"
    internet.files[STAGE2] = CONTENT
    assert download("weights", "stage2_refcocog_umd")[0] == 0
    assert subprocess.run(["sha256sum", "--check", "--status", "SHA256SUMS"], cwd=weights).returncode == 0
    (weights / "stage2_refcocog_umd.pth").unlink()  # the sums alone go to the next machine
    internet.files[STAGE2] = CONTENT[::-1]
    status, _, errors = download("weights", "stage2_refcocog_umd")
    assert (status, files_in(weights)) == (2, ["SHA256SUMS"])
    assert "stage2_refcocog_umd.pth differs from the one in weights/SHA256SUMS" in errors[-1]
    internet.files[STAGE2] = CONTENT
    assert download("weights", "stage2_refcocog_umd")[0] == 0
    assert len((weights / "SHA256SUMS").read_text().splitlines()) == 1


def test_a_cut_connection_keeps_what_came_and_an_absent_file_is_named(internet, download):
    internet.files[STAGE2], internet.cut = CONTENT, 4000
    status, _, errors = download("weights", "stage2_refcocog_umd")
    assert (status, errors[-1].endswith("run the same command again, it resumes")) == (2, True)
    assert files_in(download.root / "weights") == ["stage2_refcocog_umd.pth.part"]
    internet.cut = len(CONTENT)
    assert download("weights", "stage2_refcocog_umd")[0] == 0
    assert internet.ranges[-1] == 4000
    status, _, errors = download("weights", "stage2_referit")
    assert (status, "404" in "".join(errors)) == (2, True)
    assert errors[-1].startswith("download_weights.sh: weights/stage2_referit.pth could not be fetched")


@pytest.mark.parametrize("kind", ["weights", "data"])
def test_an_unknown_name_and_help(download, kind):
    status, printed, errors = download(kind, "refcoco", "stage3_refcoco")
    assert (status, printed, len(errors)) == (2, "", 1)
    assert "'stage3_refcoco'; known are " in errors[0]
    assert f"bash scripts/download_{kind}.sh [NAME ...]" in download(kind, "--help")[1]


STAMPS = {"refcoco": 20220413011718, "refcoco+": 20220413011656, "refcocog": 20220413012904}


@pytest.mark.parametrize(("name", "stamp"), STAMPS.items())
def test_annotations_come_from_the_internet_archive(internet, download, name, stamp):
    content = {f"{name}/instances.json": "{}", f"{name}/refs(unc).p": "", f"__MACOSX/{name}/instances.json": "x"}
    internet.files[f"/web/{stamp}/https://{UNC}/{name}.zip"] = archive(**content)
    status, _, errors = download("data", name)
    assert status == 0, errors
    assert files_in(download.root / "data") == [f"refer/{name}/instances.json", f"refer/{name}/refs(unc).p"]
    assert internet.asked == [f"web.archive.org/web/{stamp}/https://{UNC}/{name}.zip"]
    assert download("data", name)[1] == f"data/refer/{name} is already there\n"


def test_coco_is_checked_by_its_checksum(internet, download):
    photos = archive(**{"train2014/COCO_train2014_000000000009.jpg": "a photo"})
    internet.files["/zips/train2014.zip"] = photos
    status, _, errors = download("data", "coco")
    assert (status, "another checksum than 0da8c0bd3d6becc4dcb32757491aca88" in errors[-1]) == (2, True)
    assert files_in(download.root / "data") == []
    script = download.root / "scripts" / "download_data.sh"
    script.write_text(script.read_text().replace("0da8c0bd3d6becc4dcb32757491aca88", hashlib.md5(photos).hexdigest()))
    assert download("data", "coco")[0] == 0
    assert files_in(download.root / "data") == ["train2014/COCO_train2014_000000000009.jpg"]
    assert set(internet.asked) == {"images.cocodataset.org/zips/train2014.zip"}


def test_referit_comes_from_two_archives_whatever_their_layout(internet, download):
    annotations = {"some/where/train.pickle": "1", "else/test.pickle": "2"}
    internet.files[WEIGHTS.format("v1.0.2", "referit_annotations.zip")] = archive(**annotations)
    photos = {"saiapr_tc-12/00/images/25.jpg": "photo", "saiapr_tc-12/00/segmented_images/25.jpg": "drawing"}
    photos |= {"saiapr_tc-12/41/images/40.jpg": "photo", "saiapr_tc-12/00/labels.txt": ""}
    internet.files[f"/web/20220515000000/http://{UNC}/images/saiapr_tc-12.zip"] = archive(**photos)
    status, _, errors = download("data", "referit")
    assert status == 0, errors
    expected = ["annotations/test.pickle", "annotations/train.pickle", "images/25.jpg", "images/40.jpg"]
    assert files_in(download.root / "data" / "referit") == expected
    assert (download.root / "data/referit/images/25.jpg").read_text() == "photo"
    assert files_in(download.root / "data") == [f"referit/{name}" for name in expected]


def test_an_archive_that_is_damaged_or_reaches_out_of_its_folder(internet, download):
    place = f"/web/20220413011718/https://{UNC}/refcoco.zip"
    internet.files[place] = archive(x="text" * 100)[:-40]
    status, _, errors = download("data", "refcoco")
    damaged = "download_data.sh: data/refcoco.zip is damaged; remove it and run the same command again"
    assert (status, errors[-1]) == (2, damaged)
    before = files_in(download.root.parent)
    for name in ("../../../../out", "a/../../../../../out", "/tmp/tris-out"):
        (download.root / "data" / "refcoco.zip").unlink(missing_ok=True)
        internet.files[place] = archive(**{name: "x", "refcoco/instances.json": "{}"})
        download("data", "refcoco")
        assert all(file.startswith("clone/data/") for file in set(files_in(download.root.parent)) - set(before))
        assert not os.path.lexists("/tmp/tris-out")


def test_the_demo_downloads_its_checkpoint(internet, download, tmp_path, monkeypatch, capsys):
    (download.root / "demo.py").symlink_to(ROOT / "demo.py")
    file = download.root / "weights" / "stage2_refcocog_umd.pth"
    for content, message in ((None, "could not be downloaded, see above; try again, or "), (CONTENT, "checkpoint")):
        internet.files[STAGE2] = content
        words = ["--img", ROOT / "figs" / "demo.png", "--text", "x"]
        status, _, errors = run(download.root / "demo.py", *words, monkeypatch=monkeypatch, capsys=capsys)
        assert (status, str(file) in errors, message in errors, errors.count("\n")) == (2, True, True, 1)
    assert file.read_bytes() == CONTENT  # which is no checkpoint
