"""A web server on loopback that serves bytes from memory and misbehaves on request."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


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


@contextmanager
def serve() -> Iterator[Server]:
    """A running server; its ``url`` ends with a slash."""
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, wanted = self.path.lstrip("/"), self.headers.get("Range")
            server.requests.append((path, wanted))
            if server.busy[path] > 0:
                server.busy[path] -= 1
                return self.send_error(503)
            content = server.files.get(path)
            status = server.status.get(path, 200 if content is not None else 404)
            if content is None or status != 200:
                return self.send_error(status)
            self._send(path, content, wanted if server.ranges else None)

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
            if self.command == "HEAD":
                return
            end = server.cut.pop(path, len(content))
            self.wfile.write(content[start:end])

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: pytest shows what is asked for."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{http.server_port}/"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
