"""The demo's page, asked by Gradio's own client, and used in a real browser where there is one."""

import os
import shutil
import sys
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest
from PIL import Image

import demo
from model.segmenter import Segmenter
from tests.stand_ins import Flood, Redness
from utils.errors import UserError

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def red_square() -> np.ndarray:
    """A photo of 64 x 48 pixels, grey with a red square from (16, 12) to (32, 24)."""
    photo = np.full((48, 64, 3), 128, dtype=np.uint8)
    photo[12:24, 16:32] = (255, 0, 0)
    return photo


SEGMENTER = Segmenter(Redness(), size=32)
EXPECTED = SEGMENTER.respond(red_square(), ["x"])[0]  # float32 (48, 64)


@pytest.fixture(scope="module")
def url():
    """The page of a machine behind a proxy, which knows nothing of the page."""
    pytest.importorskip("gradio", reason="needs requirements-web.txt")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("http_proxy", "all_proxy", "GRADIO_TEMP_DIR"):
            patch.setenv(name, "http://127.0.0.1:9")
        patch.delenv("no_proxy", raising=False)
        patch.setenv("NO_PROXY", "site.example")
        page = demo.launch(SEGMENTER, port=0)
        assert os.environ["no_proxy"] == "site.example,127.0.0.1,localhost"
        yield page.local_url
        page.close()


@pytest.fixture
def browser(url):
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def photo(tmp_path):
    Image.fromarray(red_square()).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def mask_in(file) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image.convert("L"))


def test_sentences_are_a_list():
    with pytest.raises(UserError, match="'man' is one sentence; give a list of them"):
        SEGMENTER.segment(red_square(), "man")
    assert SEGMENTER.segment(red_square(), []).shape == (0, 48, 64)


def test_without_gradio_one_line_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.setattr(sys, "argv", ["demo.py", "--web"])
    with pytest.raises(UserError, match="run: pip install -r requirements-web.txt"):
        demo.main()


def test_other_sites_cannot_reach_the_page_under_their_name(url):
    with pytest.raises(HTTPError, match="400"):
        urlopen(Request(url, headers={"Host": "site.example"}))


def test_a_photo_and_sentences_give_pictures_and_masks(url, photo):
    client = pytest.importorskip("gradio_client")
    page, upload = client.Client(url, verbose=False), client.handle_file(str(photo))
    pictures, files = page.predict(upload, "the red one\n\na/b\n", 0.5, api_name="/segment")
    share = f"{(EXPECTED > 0.5).mean():.1%} of the photo"
    captions = ["the red one", f"the red one: {share}", "a/b", f"a/b: {share}"]
    assert [picture["caption"] for picture in pictures] == captions
    assert len(files) == 2
    assert all((mask_in(file) == 255 * (EXPECTED > 0.5)).all() for file in files)
    before = SEGMENTER.network.encoded
    _, files = page.predict(upload, "the red one", 1.0, api_name="/segment")
    assert SEGMENTER.network.encoded == before  # the photo is kept
    assert not mask_in(files[0]).any()
    for missing in ((upload, " \n"), (None, "the red one")):
        with pytest.raises(Exception, match="Choose a photo and type a sentence"):
            page.predict(*missing, 0.5, api_name="/segment")


def test_what_is_no_photo_is_refused_in_the_command_lines_words(url, tmp_path):
    client = pytest.importorskip("gradio_client")
    page = client.Client(url, verbose=False)
    Image.fromarray(np.full((9, 9), 300, np.uint16)).save(tmp_path / "deep.png")
    (tmp_path / "page.jpg").write_text("<html>")
    refusals = {"deep.png": "has more than 8 bits per channel", "page.jpg": "cannot be decoded"}
    for file, words in refusals.items():
        with pytest.raises(Exception, match=f"^the photo {file} {words}"):
            page.predict(client.handle_file(str(tmp_path / file)), "x", 0.5, api_name="/segment")


def test_the_page_survives_that_its_temporary_folder_is_swept_away(url, photo):
    client = pytest.importorskip("gradio_client")
    page = client.Client(url, verbose=False)
    shutil.rmtree(os.environ["GRADIO_TEMP_DIR"])
    _, files = page.predict(client.handle_file(str(photo)), "the red one", 0.5, api_name="/segment")
    assert (mask_in(files[0]) == 255 * (EXPECTED > 0.5)).all()


def test_a_port_that_is_taken(url, script):
    port = url.rstrip("/").rsplit(":", 1)[1]
    status, _, errors = script("demo.py", "--web", "--port", port, "--pretrain", "absent.pth")
    assert (status, errors) == (2, f"demo.py: port {port} cannot be used; choose another --port\n")


@pytest.mark.skipif(not CHROMIUM, reason="needs Chromium (apt-get install chromium)")
def test_in_a_browser(url, photo, browser):
    """Upload, type, see, move the threshold, download."""
    page = browser.new_page()
    page.goto(url)
    page.locator("input[type=file]").first.set_input_files(str(photo))
    page.get_by_label("Sentences").fill("the red one\n<b>bold</b>")
    page.get_by_role("button", name="Segment", exact=True).click()
    page.get_by_text(f"{(EXPECTED > 0).mean():.1%} of the photo").first.wait_for()
    slider = page.locator("input[type=range]").first
    slider.fill("0.5")
    slider.dispatch_event("pointerup")
    page.get_by_text(f"{(EXPECTED > 0.5).mean():.1%} of the photo").first.wait_for()
    with page.expect_download() as download:
        page.locator("a[download]").first.click()
    assert (mask_in(download.value.path()) == 255 * (EXPECTED > 0.5)).all()


@pytest.mark.skipif(not CHROMIUM, reason="needs Chromium (apt-get install chromium)")
def test_a_click_on_the_photo_cuts_the_mask_anew(url, photo, browser):
    """The stand-in cuts the square that the sentence names, and after a click on the grey around it all of that."""
    cutting = demo.launch(Segmenter(Redness(), size=32, cutter=Flood()), port=0)
    page = browser.new_page()
    page.goto(cutting.local_url)
    page.locator("input[type=file]").first.set_input_files(str(photo))
    page.get_by_label("Sentences").fill("the red one")
    page.get_by_role("button", name="Segment", exact=True).click()
    square = (red_square()[:, :, 0] == 255).mean()
    page.get_by_text(f"{square:.1%} of the photo").first.wait_for()
    page.locator("img").first.click(position={"x": 3, "y": 3})
    page.get_by_text(f"{1 - square:.1%} of the photo").first.wait_for()
    page.get_by_label("Sentences").fill("red")  # the click was about another sentence
    page.get_by_role("button", name="Segment", exact=True).click()
    page.get_by_text(f"red: {square:.1%} of the photo").first.wait_for()
    cutting.close()
