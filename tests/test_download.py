"""Downloads from a server of this process, which cuts connections, forgets ranges and tells lies."""

import hashlib
import io
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from utils.download import Remote, fetch_all, mirrored, unzip
from utils.errors import UserError

CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Files(ThreadingHTTPServer):
    """Serves `files`; a GET of `cut` ends after so many bytes, `ranges` False ignores Range."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {"/file.bin": CONTENT}
        self.redirects: dict[str, str] = {}
        self.cut, self.ranges = len(CONTENT), True
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.do_GET(body=False)

    def do_GET(self, body=True):
        server = self.server
        if self.path in server.redirects:
            return self.reply(302, {"Location": server.redirects[self.path]})
        if self.path not in server.files:
            return self.reply(404, {})
        content = server.files[self.path]
        begin = int(self.headers.get("Range", "bytes=0-")[6:-1]) if server.ranges else 0
        if body:
            server.asked.append(self.headers.get("Range"))
        if begin >= len(content):
            return self.reply(416, {"Content-Range": f"bytes */{len(content)}"})
        self.reply(206 if body and server.ranges else 200, {"Content-Length": len(content) - begin})
        if body:
            self.wfile.write(content[begin : begin + server.cut])
        return None

    def reply(self, status, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Files() as files:
        threading.Thread(target=files.serve_forever, args=(0.01,), daemon=True).start()
        yield files
        files.shutdown()


@pytest.fixture
def remote(server, tmp_path):
    return Remote(f"{server.url}/file.bin", tmp_path / "folder" / "file.bin", SHA256)


def left_in(folder):
    return sorted(file.name for file in folder.rglob("*") if file.is_file())


def test_a_file_arrives_whole_and_its_size_is_told_before(server, remote, tmp_path, capsys):
    assert fetch_all([remote]) == [remote.path]
    assert remote.path.read_bytes() == CONTENT
    assert left_in(tmp_path) == ["file.bin"]
    assert f"file.bin: 0.0 MB from {server.url}/file.bin" in capsys.readouterr().out
    fetch_all([remote])
    assert len(server.asked) == 1  # it is there: nobody is asked again


def test_a_cut_connection_goes_on_where_it_was(server, remote):
    server.cut = 4000
    fetch_all([remote])
    assert remote.path.read_bytes() == CONTENT
    assert server.asked == ["bytes=0-", "bytes=4000-", "bytes=8000-"]


def test_a_stopped_download_goes_on_in_the_next_run(server, remote):
    remote.path.parent.mkdir()
    (remote.path.parent / ".file.bin.part").write_bytes(CONTENT[:7000])
    fetch_all([remote])
    assert (server.asked, remote.path.read_bytes()) == (["bytes=7000-"], CONTENT)


def test_a_download_that_was_complete_but_for_its_name(server, remote):
    remote.path.parent.mkdir()
    (remote.path.parent / ".file.bin.part").write_bytes(CONTENT)
    fetch_all([remote])
    assert remote.path.read_bytes() == CONTENT


def test_more_than_the_file_holds_is_thrown_away(server, remote):
    remote.path.parent.mkdir()
    (remote.path.parent / ".file.bin.part").write_bytes(CONTENT + b"of another file")
    fetch_all([remote])
    assert remote.path.read_bytes() == CONTENT


def test_a_server_without_ranges(server, remote):
    server.ranges = False
    remote.path.parent.mkdir()
    (remote.path.parent / ".file.bin.part").write_bytes(b"something else")
    fetch_all([remote])
    assert remote.path.read_bytes() == CONTENT


def test_a_connection_that_brings_nothing_is_given_up_and_kept(server, remote, tmp_path):
    remote.path.parent.mkdir()
    (remote.path.parent / ".file.bin.part").write_bytes(CONTENT[:100])
    server.cut = 0
    with pytest.raises(UserError, match="was cut after 0.0 MB; run the same command again, it goes on there"):
        fetch_all([remote])
    assert left_in(tmp_path) == [".file.bin.part"]
    assert len(server.asked) == 5


def test_a_wrong_checksum_leaves_nothing(remote, tmp_path):
    with pytest.raises(UserError, match=f"has the checksum {SHA256}, not 0; name another place"):
        fetch_all([remote._replace(sha256="0")])
    assert left_in(tmp_path) == []


def test_failures_name_the_address(server, tmp_path):
    with pytest.raises(UserError, match="/none.bin answers 404 .*; try again later, or name another place"):
        fetch_all([mirrored(server.url, "none.bin", tmp_path / "x")])
    with pytest.raises(UserError, match="cannot be reached"):
        fetch_all([Remote("http://127.0.0.1:9/file.bin", tmp_path / "x")])
    assert left_in(tmp_path) == []


def test_plain_http_only_from_this_machine_or_a_named_mirror(server, tmp_path):
    with pytest.raises(UserError, match="http://example.org/x is not an https address"):
        fetch_all([Remote("http://example.org/x", tmp_path / "x")])
    with pytest.raises(UserError, match="file:///etc/passwd is not an https address"):
        fetch_all([Remote("file:///etc/passwd", tmp_path / "x", plain=True)])
    server.redirects["/away"] = "http://example.org/x"
    with pytest.raises(UserError, match="http://example.org/x is not an https address"):
        fetch_all([Remote(f"{server.url}/away", tmp_path / "x")])


def archive(**files) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as packed:
        for name, text in files.items():
            packed.writestr(name, text)
    return content.getvalue()


@pytest.mark.parametrize("name", ["../out", "/tmp/out", "a/../../out", "..\\out", "C:\\out"])
def test_an_archive_cannot_write_outside_its_folder(tmp_path, name):
    (tmp_path / "x.zip").write_bytes(archive(**{"good": "1", name: "2"}))
    with pytest.raises(UserError, match="which leaves its folder"):
        unzip(tmp_path / "x.zip", tmp_path / "inside")
    assert left_in(tmp_path) == ["x.zip"]


def test_a_damaged_archive(tmp_path):
    whole = archive(text="some text that is long enough to be damaged")
    (tmp_path / "x.zip").write_bytes(whole.replace(b"long enough", b"LONG enough"))
    with pytest.raises(UserError, match="x.zip is damaged .*; remove it and fetch it again"):
        unzip(tmp_path / "x.zip", tmp_path / "inside")
    (tmp_path / "x.zip").write_bytes(whole[:50])
    with pytest.raises(UserError, match="x.zip is damaged"):
        unzip(tmp_path / "x.zip", tmp_path / "inside")


def test_data_sets_are_fetched_and_unpacked_once(server, tmp_path, script):
    server.files["/refcoco+.zip"] = archive(**{"refcoco+/instances.json": "{}", "refcoco+/refs(unc).p": ""})
    server.files["/refcoco%2B.zip"] = server.files["/refcoco+.zip"]
    words = ["scripts/download.py", "data", "refcoco+", "--output", tmp_path, "--mirror", server.url]
    status, _, told = script(*words)
    assert status == 0, told
    assert left_in(tmp_path) == ["instances.json", "refs(unc).p"]
    assert (tmp_path / "refer" / "refcoco+" / "instances.json").is_file()
    status, printed, _ = script(*words)
    assert (status, printed, len(server.asked)) == (0, "", 1)


def test_weights_without_an_address_are_named_in_one_line(server, tmp_path, script):
    words = ["scripts/download.py", "weights", "stage2_referit", "--output", tmp_path]
    status, _, told = script(*words)
    assert (status, told.count("\n")) == (2, 1)
    assert f"put them into {tmp_path}, or name a place: --mirror URL" in told
    server.files["/stage2_referit.pth"] = CONTENT
    assert script(*words, "--mirror", server.url)[0] == 0
    assert (tmp_path / "stage2_referit.pth").read_bytes() == CONTENT


def test_a_name_of_weights_means_both_stages(server, tmp_path, script):
    server.files |= {f"/stage{stage}_refcocog_umd.pth": CONTENT for stage in (1, 2)}
    words = ["scripts/download.py", "weights", "refcocog_umd", "stage2_refcocog_umd"]
    status, _, told = script(*words, "--output", tmp_path, "--mirror", server.url)
    assert status == 0, told
    assert left_in(tmp_path) == ["stage1_refcocog_umd.pth", "stage2_refcocog_umd.pth"]
    assert len(server.asked) == 2


def test_without_names_all_are_fetched_that_can_be(server, tmp_path, script, monkeypatch):
    status, _, told = script("scripts/download.py", "weights", "--output", tmp_path)
    assert (status, all(f"stage{stage}_referit.pth" in told for stage in (1, 2))) == (2, True)
    asked = []
    monkeypatch.setattr("utils.download.fetch_all", lambda remotes: asked.extend(remotes))
    script("scripts/download.py", "data", "--output", tmp_path)
    names = ["train2014.zip", "refcoco.zip", "refcoco+.zip", "refcocog.zip"]
    assert [remote.path.name for remote in asked] == names
    asked.clear()
    script("scripts/download.py", "data", "--output", tmp_path, "--mirror", server.url)
    assert [remote.path.name for remote in asked] == [*names, "referit.zip"]
