"""A web server on loopback that serves bytes from memory and misbehaves on request."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Server:
    """``files`` maps paths to contents. The other fields break the answers of a path.

    ``busy``: so many answers of 503 first; ``cut``: the connection ends after so many bytes, once; ``status``: always
    this code; ``ranges``: whether a Range header is honoured.
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
        told, path, wanted = self.server.told, self.path.lstrip("/"), self.headers.get("Range")
        told.requests.append((path, wanted))
        content = told.files.get(path)
        status = told.status.get(path, 200 if content is not None else 404)
        if told.busy[path] > 0:
            told.busy[path] -= 1
            status = 503
        if content is None or status != 200:
            self.send_error(status)
        else:
            self._send(path, content, wanted if told.ranges else None)

    do_HEAD = do_GET  # noqa: N815 - the names http.server calls

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
            self.wfile.write(content[start : self.server.told.cut.pop(path, len(content))])

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the requests are kept."""


class Http(ThreadingHTTPServer):
    """A server on a free loopback port, with what its handler is told by the test."""

    def __init__(self, handler: type[BaseHTTPRequestHandler], told: Any) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.told = told


@contextmanager
def running(handler: type[BaseHTTPRequestHandler], told: Any) -> Iterator[str]:
    """The address of a running server, which ends with a slash."""
    http = Http(handler, told)
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
    """A running server; its ``url`` ends with a slash."""
    told = Server()
    with running(_Handler, told) as told.url:
        yield told
