"""`demo.py --web`: GET / is the page, POST /segment takes a photo and sentences and gives response maps.

Request:  {"name": file name, "photo": base64 of the file, "sentences": [...]}
Response: {"photo": JPEG, "results": [{"sentence": ..., "map": PNG, "peak": [x, y] or null}, ...]}, pictures as data
          URLs, all of the same size; or {"error": one sentence} with status 400.
A map's PNG is grey: 0 where the response is not positive, else 1..255, so that a pixel is in the mask of a threshold t
where its level exceeds 255 t. Painting and thresholds are the page's work.
"""

import json
from base64 import b64decode, b64encode
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from dataset.photos import read_photo
from model.segmenter import Segmenter
from utils.errors import UserError
from utils.metrics import peak
from utils.pictures import jpeg, png

PAGE = Path(__file__).with_name("page.html")
ADDRESS = "127.0.0.1"  # nobody but this machine
MAX_REQUEST = 70_000_000  # bytes: a photo of 50 MB in base64
MAX_PIXELS = 25_000_000  # each sentence takes 4 bytes for each of them
MAX_SENTENCES = 8
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; connect-src 'self'"
)


class Server(ThreadingHTTPServer):
    """Answers on a port of the loopback; UserError where it is taken. Port 0 is any free one."""

    daemon_threads = True

    def __init__(self, segmenter: Segmenter, port: int):
        try:
            super().__init__((ADDRESS, port), Handler)
        except OSError as error:
            raise UserError(f"port {port} cannot be used ({error.strerror}); choose another --port") from None
        self.segmenter, self.one_at_a_time = segmenter, Lock()

    @property
    def url(self) -> str:
        return f"http://{ADDRESS}:{self.server_port}"


def serve(segmenter: Segmenter, port: int) -> None:
    """Serve the page until Ctrl-C."""
    with Server(segmenter, port) as server:
        print(f"{server.url} is the demo's page; Ctrl-C ends it", flush=True)
        server.serve_forever()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        if self._refused():
            return
        if self.path == "/":
            self._answer(200, "text/html; charset=utf-8", PAGE.read_bytes())
        else:
            self._answer(404, "text/plain", b"there is nothing here\n")

    def do_POST(self) -> None:
        if self._refused():
            return
        try:
            status, answer = 200, segment(self.server.segmenter, self._request(), self.server.one_at_a_time)
        except UserError as error:
            status, answer = 400, {"error": str(error)}
        self._answer(status, "application/json", json.dumps(answer).encode())

    def _refused(self) -> bool:
        """A page of another site that reaches us under its own name (DNS rebinding) gets nothing."""
        ours = (f"{ADDRESS}:{self.server.server_port}", f"localhost:{self.server.server_port}")
        if self.headers.get("Host") in ours:
            return False
        self._answer(403, "text/plain", b"this page is for this machine alone\n")
        return True

    def _request(self) -> dict[str, Any]:
        """The JSON of a request. Other sites' pages cannot send that type without asking, and we never agree."""
        length = self.headers.get("Content-Length", "")
        if self.headers.get("Content-Type") != "application/json" or not length.isdigit():
            raise UserError("the request is no JSON; use the page")
        if int(length) > MAX_REQUEST:
            self.close_connection = True
            raise UserError(f"the file is larger than {MAX_REQUEST * 3 // 4 // 10**6} MB; shrink the photo")
        try:
            request = json.loads(self.rfile.read(int(length)))
            return {
                "name": str(request["name"]),
                "photo": b64decode(request["photo"]),
                "sentences": request["sentences"],
            }
        except (ValueError, KeyError, TypeError, RecursionError):
            raise UserError("the request is damaged; use the page") from None

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        with suppress(ConnectionError):  # the browser has gone
            self.send_response(status)
            headers = {"Content-Type": kind, "Content-Length": len(body), "Content-Security-Policy": POLICY}
            for name, value in (headers | {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}).items():
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing: the page itself tells what happened."""


def segment(segmenter: Segmenter, request: dict[str, Any], one_at_a_time: Lock) -> dict[str, Any]:
    """The answer to a request; UserError for a photo or sentences that cannot be used."""
    sentences = request.get("sentences")
    if not isinstance(sentences, list) or not 0 < len(sentences) <= MAX_SENTENCES:
        raise UserError(f"give one to {MAX_SENTENCES} sentences, one a line")
    photo = read_photo(BytesIO(request["photo"]), request["name"], upright=True, cure="choose another")
    if photo.width * photo.height > MAX_PIXELS:
        raise UserError(
            f"the photo has {photo.width} x {photo.height} pixels; shrink it to {MAX_PIXELS // 10**6} million"
        )
    with one_at_a_time:
        maps = segmenter.respond(photo, sentences)
    return {
        "photo": _data_url("jpeg", jpeg(np.asarray(photo))),
        "results": [_result(sentence, response) for sentence, response in zip(sentences, maps, strict=True)],
    }


def _result(sentence: str, response: np.ndarray) -> dict[str, Any]:
    levels = np.ceil(255 * response.clip(0, 1)).astype(np.uint8)
    row, column = peak(response)
    return {
        "sentence": sentence,
        "map": _data_url("png", png(levels)),
        "peak": [column, row] if levels.any() else None,
    }


def _data_url(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{b64encode(data).decode()}"
