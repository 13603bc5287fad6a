"""A web server on loopback that serves bytes from memory and can give faulty answers."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Server:
    """The state of a server: ``files`` maps paths to contents, and ``requests`` lists path and Range of each request.

    Faulty answers are set by path. ``busy`` is the number of answers with status 503 before the first good one.
    ``cut`` is the number of bytes after which the connection ends, once. ``status`` is the status of every answer.
    If ``ranges`` is False, the server ignores Range headers.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.busy: Counter[str] = Counter()
        self.cut: dict[str, int] = {}
        self.status: dict[str, int] = {}
        self.ranges = True
        self.requests: list[tuple[str, str | None]] = []
        self.url = ""


class _Handler(BaseHTTPRequestHandler):
    server: Http

    def do_GET(self) -> None:
        state, path, wanted = self.server.state, self.path.lstrip("/"), self.headers.get("Range")
        state.requests.append((path, wanted))
        content = state.files.get(path)
        status = state.status.get(path, 200 if content is not None else 404)
        if state.busy[path] > 0:
            state.busy[path] -= 1
            status = 503
        if content is None or status != 200:
            self.send_error(status)
        else:
            self._send(path, content, wanted if state.ranges else None)

    do_HEAD = do_GET  # noqa: N815 - http.server requires this name

    def _send(self, path: str, content: bytes, wanted: str | None) -> None:
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if start and start >= len(content):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Type", "text/html" if path.endswith("/") else "application/octet-stream")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[start : self.server.state.cut.pop(path, len(content))])

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing; ``requests`` has all requests."""


class Http(ThreadingHTTPServer):
    """A server on a free loopback port; ``state`` is an object that its handler uses."""

    def __init__(self, handler: type[BaseHTTPRequestHandler], state: Any) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.state = state


@contextmanager
def running(handler: type[BaseHTTPRequestHandler], state: Any) -> Iterator[str]:
    """Run a server during the block; yield its URL, which ends with a slash."""
    http = Http(handler, state)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}/"
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


@contextmanager
def serve() -> Iterator[Server]:
    """Run a server during the block; its ``url`` ends with a slash."""
    state = Server()
    with running(_Handler, state) as state.url:
        yield state
