"""The demo's page: its server by hand, and the whole in a real browser where there is one."""

import json
import threading
from base64 import b64decode, b64encode
from http.client import HTTPConnection
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from torch import nn

from model.segmenter import Segmenter
from tests.browser import AVAILABLE, REASON, browser, wait_for
from utils.errors import UserError
from utils.maps import Responses
from utils.pictures import jpeg, png
from web.server import Server


class Redness(nn.Module):
    """Responds to red and to nothing else; a stand-in whose masks are known."""

    mask_threshold = 0.0

    def respond(self, images, tokens, photo):
        maps = (images[photo, :1] - images[photo, 1:2] - 1).relu()
        return Responses(maps, maps)


@pytest.fixture(scope="module")
def server():
    with Server(Segmenter(Redness(), size=32), port=0) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.shutdown()


def red_square() -> np.ndarray:
    """A photo of 64 x 48 pixels, grey with a red square from (16, 12) to (32, 24)."""
    photo = np.full((48, 64, 3), 128, dtype=np.uint8)
    photo[12:24, 16:32] = (255, 0, 0)
    return photo


def ask(server, body, kind="application/json", host=None, path="/segment"):
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    headers = {"Content-Type": kind, "Host": host or f"127.0.0.1:{server.server_port}"}
    connection.request("POST", path, body if isinstance(body, str) else json.dumps(body), headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def question(photo: bytes, sentences=("the red one",)):
    return {"name": "photo.png", "photo": b64encode(photo).decode(), "sentences": list(sentences)}


def picture(url: str) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(b64decode(url.split(",")[1]))))


def test_an_answer_has_photo_map_and_peak(server):
    status, body = ask(server, question(png(red_square()), ["one", "two"]))
    answer = json.loads(body)
    assert status == 200
    assert picture(answer["photo"]).shape == (48, 64, 3)
    assert [result["sentence"] for result in answer["results"]] == ["one", "two"]
    levels = picture(answer["results"][0]["map"])
    expected = Segmenter(Redness(), size=32).respond(red_square(), ["one"])[0]
    assert (levels == np.ceil(255 * expected)).all()
    assert ((levels > 0) == (expected > 0)).all()
    x, y = answer["results"][0]["peak"]
    assert 16 <= x < 32 and 12 <= y < 24
    grey = json.loads(ask(server, question(png(np.full((8, 8, 3), 128, dtype=np.uint8))))[1])
    assert grey["results"][0]["peak"] is None


def test_a_photo_is_turned_as_phones_show_it(server):
    file = BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.fromarray(red_square()).save(file, format="JPEG", exif=exif)
    answer = json.loads(ask(server, question(file.getvalue()))[1])
    assert picture(answer["photo"]).shape == (64, 48, 3)
    assert picture(answer["results"][0]["map"]).shape == (64, 48)


def test_sentences_are_a_list():
    segmenter = Segmenter(Redness(), size=32)
    with pytest.raises(UserError, match="'man' is one sentence; give a list of them"):
        segmenter.segment(red_square(), "man")
    assert segmenter.segment(red_square(), []).shape == (0, 48, 64)


BAD = {
    "no photo": (question(b"half a photo"), "the photo photo.png cannot be decoded"),
    "no sentence": (question(png(red_square()), []), "give one to 8 sentences"),
    "an empty sentence": (question(png(red_square()), [" "]), "empty sentence"),
    "a sentence that is none": (question(png(red_square()), [3]), "a sentence that is no text (3)"),
    "too many sentences": (question(png(red_square()), ["a"] * 9), "give one to 8 sentences"),
    "a large photo": (question(png(np.zeros((4, 7_000_000), dtype=np.uint8))), "shrink it to 25 million"),
    "no JSON": ("{", "the request is damaged"),
    "a list": ("[]", "the request is damaged"),
    "no base64": ({"name": "", "photo": 3, "sentences": ["a"]}, "the request is damaged"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_request_gets_one_sentence(server, case):
    body, expected = BAD[case]
    status, answer = ask(server, body)
    assert status == 400
    assert expected in json.loads(answer)["error"]


def test_other_sites_get_nothing(server):
    good = question(png(red_square()))
    assert ask(server, good, host="evil.example")[0] == 403
    assert ask(server, good, kind="text/plain")[0] == 400  # what a page may send without asking first
    assert server.server_address[0] == "127.0.0.1"


def test_a_port_that_is_taken(server):
    with pytest.raises(UserError, match=f"port {server.server_port} cannot be used .*; choose another --port"):
        Server(Segmenter(Redness()), server.server_port)


@pytest.mark.skipif(not AVAILABLE, reason=REASON)
def test_in_a_browser(server, tmp_path):
    """Upload, type, see, move the threshold, download; and a bad file gets a message."""
    (tmp_path / "red.png").write_bytes(png(red_square()))
    (tmp_path / "bad.jpg").write_bytes(jpeg(red_square())[:200])
    with browser(tmp_path) as page:
        page.open(server.url)
        page.click("button")
        assert page.text("#message") == "Choose a photo first."
        page.send("#photo", str(tmp_path / "red.png"))
        page.click("button")
        assert page.text("#message") == "Type a sentence first."
        page.send("#sentences", "the red one\n<b>bold</b>")
        page.click("button")
        wait_for(lambda: page.text("h2") == "the red one|<b>bold</b>")
        inside = Segmenter(Redness(), size=32).respond(red_square(), ["x"])[0]
        assert f"Mask, {100 * (inside > 0).mean():.1f} % of the photo" in page.text("figcaption")
        shown = page.run(
            "const c = document.querySelector('.mask'); return [...c.getContext('2d').getImageData(24, 18, 1, 1).data]"
        )
        assert np.abs(np.array(shown) - (255, 0, 0, 255)).max() <= 4  # red as JPEG keeps it, not veiled
        page.run("const s = document.querySelector('article input'); s.value = 127; s.oninput()")
        page.click("article a")
        saved = tmp_path / "mask of the red one.png"
        wait_for(saved.exists)
        with Image.open(saved) as mask:
            assert (np.asarray(mask.convert("L")) == 255 * (np.ceil(255 * inside) > 127)).all()
        page.send("#photo", str(tmp_path / "bad.jpg"))
        page.click("button")
        wait_for(lambda: "the photo bad.jpg cannot be decoded" in page.text("#message"))
        assert page.text("h2") == ""
