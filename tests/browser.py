"""A headless Chromium for tests, driven by the W3C WebDriver protocol through Debian's chromedriver."""

import json
import shutil
import subprocess
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

REASON = "needs chromium and chromedriver (apt-get install chromium chromium-driver)"
AVAILABLE = bool(shutil.which("chromium") and shutil.which("chromedriver"))
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the protocol's name for an element
ARGUMENTS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1000,1100"]


class Browser:
    """One page."""

    def __init__(self, session: str):
        self.session = session

    def call(self, path: str, **values: Any) -> Any:
        return _post(f"{self.session}/{path}", values)

    def open(self, url: str) -> None:
        self.call("url", url=url)

    def run(self, script: str) -> Any:
        return self.call("execute/sync", script=script, args=[])

    def send(self, selector: str, keys: str) -> None:
        """Type into an element; for a file's input `keys` is the path."""
        element = self.call("element", using="css selector", value=selector)[ELEMENT]
        self.call(f"element/{element}/value", text=keys)

    def click(self, selector: str) -> None:
        element = self.call("element", using="css selector", value=selector)[ELEMENT]
        self.call(f"element/{element}/click")

    def text(self, selector: str) -> str:
        return self.run(f"return [...document.querySelectorAll('{selector}')].map(e => e.textContent).join('|')")

    def screenshot(self, path: Path) -> None:
        with urlopen(f"{self.session}/screenshot", timeout=30) as answer:
            path.write_bytes(b64decode(json.load(answer)["value"]))


@contextmanager
def browser(downloads: Path) -> Iterator[Browser]:
    """A browser that saves downloads in a folder."""
    driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True)
    try:
        line = next(line for line in driver.stdout if "successfully on port" in line)
        root = f"http://127.0.0.1:{line.rsplit(' ', 1)[1].strip().rstrip('.')}/session"
        options = {"args": [*ARGUMENTS, f"--user-data-dir={downloads / 'profile'}"]}
        options |= {"prefs": {"download.default_directory": str(downloads)}}
        session = _post(root, {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}})["sessionId"]
        yield Browser(f"{root}/{session}")
        urlopen(Request(f"{root}/{session}", method="DELETE"), timeout=30).close()
    finally:
        driver.terminate()
        driver.wait(timeout=30)


def wait_for(condition: Callable[[], Any], seconds: float = 120) -> Any:
    """What `condition` gives as soon as it is true."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return value


def _post(url: str, values: dict[str, Any]) -> Any:
    request = Request(url, json.dumps(values).encode(), {"Content-Type": "application/json"})
    with urlopen(request, timeout=200) as answer:
        return json.load(answer)["value"]
