"""Serve on loopback: a static generation with content negotiation, or (``nox -s serve``) an index that takes uploads.

The upload-capable index is pypiserver with generated credentials. Its folder holds:

    packages/    what was uploaded; a file appears whole, and never changes or goes away again
    htpasswd     who may upload; more lines can be added with any htpasswd tool (its -m, apr1)
    password     the generated password of user "publisher", readable by its owner alone
"""

from __future__ import annotations

import argparse
import email.message
import os
import secrets
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import pypiserver  # type: ignore[import-untyped,unused-ignore]
import waitress  # type: ignore[import-untyped,unused-ignore]
from passlib.apache import HtpasswdFile  # type: ignore[import-untyped,unused-ignore]
from pypiserver.backend import SimpleFileBackend  # type: ignore[import-untyped,unused-ignore]
from pypiserver.bottle_wrapper import HTTPError  # type: ignore[import-untyped,unused-ignore]
from waitress import wasyncore

from scripts import console
from scripts.errors import PublishError
from scripts.model import ROOT
from scripts.support.command_line import run_main

# pypiserver brings an import hook of an old kind, without find_spec, which trips whoever walks the hooks (pytest does).
sys.meta_path[:] = [hook for hook in sys.meta_path if hasattr(hook, "find_spec")]

LOOPBACK = "127.0.0.1"
SIMPLE_JSON = "application/vnd.pypi.simple.v1+json"
SIMPLE_HTML = "application/vnd.pypi.simple.v1+html"
USER = "publisher"
_PORT = 8417


def prefers_json(accept: str) -> bool:
    """Whether an Accept header asks for the JSON form of the simple API (PEP 691) before any HTML."""
    weights = dict(_weight(part) for part in accept.split(",") if part.strip())
    html = max(weights.get(kind, 0.0) for kind in (SIMPLE_HTML, "text/html"))
    return weights.get(SIMPLE_JSON, 0.0) > html


def _weight(part: str) -> tuple[str, float]:
    """One media range and its quality: "text/html;q=0.2" is ("text/html", 0.2)."""
    message = email.message.Message()
    message["Content-Type"] = part.strip()
    try:
        return message.get_content_type(), float(str(message.get_param("q", "1")))
    except ValueError:
        return message.get_content_type(), 0.0


class _Static(SimpleHTTPRequestHandler):
    """Files below a folder; of a folder, index.json or index.html by the Accept header."""

    protocol_version = "HTTP/1.1"

    def send_head(self) -> Any:
        # A folder's address ends in "/"; without it the answer is a redirect, as for any form.
        path = urlsplit(self.path).path
        wants_json = path.endswith("/") and prefers_json(self.headers.get("Accept", ""))
        if wants_json and Path(self.translate_path(path), "index.json").is_file():
            self.path = f"{path}index.json"
        return super().send_head()

    def guess_type(self, path: str | os.PathLike[str]) -> str:
        name = Path(path).name
        if name == "index.json":
            return SIMPLE_JSON
        return "text/html; charset=utf-8" if name.endswith(".html") else super().guess_type(path)

    def list_directory(self, path: str | os.PathLike[str]) -> None:
        """A folder without an index is not there: what a generation holds is said by its indexes alone."""
        self.send_error(404)

    def end_headers(self) -> None:
        self.send_header("Vary", "Accept")
        super().end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""


@contextmanager
def static(folder: Path) -> Iterator[str]:
    """Serve a generation, or any folder of static files, on loopback; yields the base URL without a closing slash."""
    server = ThreadingHTTPServer((LOOPBACK, 0), partial(_Static, directory=str(folder.resolve())))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://{LOOPBACK}:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass(frozen=True)
class UploadIndex:
    """A running upload-capable index: where to upload to and install from, as whom, and where the password lies."""

    url: str
    user: str
    password_file: Path

    @property
    def simple(self) -> str:
        """The simple repository that installers read."""
        return f"{self.url}simple/"

    def password(self) -> str:
        """The generated password."""
        return self.password_file.read_text(encoding="utf-8").strip()


class _Kept(SimpleFileBackend):  # type: ignore[misc,unused-ignore]
    """Files appear complete or not at all, are never replaced, and never removed."""

    def add_package(self, filename: str, stream: BinaryIO) -> None:
        root: Path = self.roots[0]
        with tempfile.NamedTemporaryFile(dir=root, prefix=".") as beside:
            while chunk := stream.read(1 << 20):
                beside.write(chunk)
            beside.flush()
            os.fsync(beside.fileno())
            Path(beside.name).chmod(0o644)
            try:
                # A link, not a rename: of two uploads of one name at once, the second must not win.
                (root / filename).hardlink_to(beside.name)
            except FileExistsError:
                raise HTTPError(400, f"Package {filename!r} already exists!") from None

    def remove_package(self, pkg: object) -> None:
        raise HTTPError(403, "nothing is ever deleted from this index; yank instead")


@contextmanager
def uploads(folder: Path, *, port: int = 0) -> Iterator[UploadIndex]:
    """Serve an index that takes uploads on loopback, from ``folder``; port 0 is any free one.

    Raises:
        PublishError: the port is taken, or the folder cannot be used.
    """
    packages = folder.absolute() / "packages"
    try:
        packages.mkdir(parents=True, exist_ok=True)
        htpasswd, password_file = _credentials(folder.absolute())
        server = waitress.create_server(_application(packages, htpasswd), host=LOOPBACK, port=port, threads=8)
    except OSError as error:
        raise PublishError(
            f"cannot serve {folder} on port {port}: {error.strerror or error}", hint="give another --port or folder"
        ) from error
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield UploadIndex(f"http://{LOOPBACK}:{server.effective_port}/", USER, password_file)
    finally:
        # Its sockets belong to its own thread, which ends when the last is closed.
        server.trigger.pull_trigger(lambda: wasyncore.close_all(server._map))
        thread.join()
        server.task_dispatcher.shutdown()


def _application(packages: Path, htpasswd: Path) -> Any:
    config = pypiserver.Config.default_with_overrides(
        roots=[packages],
        authenticate=["update"],
        password_file=str(htpasswd),
        disable_fallback=True,
        hash_algo="sha256",
    )
    config.backend.backend = _Kept(config)
    return pypiserver.setup_routes_from_config(pypiserver.app_from_config(config), config)


def _credentials(folder: Path) -> tuple[Path, Path]:
    """The htpasswd file and the password's, made at the first start and kept from then on."""
    htpasswd, password_file = folder / "htpasswd", folder / "password"
    if not (htpasswd.exists() and password_file.exists()):
        password = secrets.token_urlsafe(24)
        # apr1, not bcrypt: current bcrypt does not work with the reader, and a random password needs no slow hash.
        users = HtpasswdFile(str(htpasswd) if htpasswd.exists() else None, default_scheme="apr_md5_crypt")
        users.set_password(USER, password)
        _write_private(htpasswd, users.to_string())
        _write_private(password_file, f"{password}\n".encode())
    return htpasswd, password_file


def _write_private(path: Path, content: bytes) -> None:
    """Write a file that its owner alone can read, whole or not at all."""
    # mkstemp's mode is 0600 from the start.
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as beside:
        beside.write(content)
    Path(beside.name).replace(path)


def _explain(index: UploadIndex) -> None:
    """How to upload to it and install from it; the password itself is not shown."""
    console.mark("passed", f"serving {index.simple} (Ctrl-C ends it)")
    print(f"  install:  pip install --index-url {index.simple} nvdiffrast")
    print(f"  upload:   export TWINE_REPOSITORY_URL={index.url} TWINE_USERNAME={index.user}")
    print(f'            export TWINE_PASSWORD="$(cat {index.password_file})"', flush=True)


def main() -> int:
    """``nox -s serve -- [FOLDER]``: until interrupted."""
    parser = argparse.ArgumentParser(
        prog="nox -s serve --", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "build" / "server", help="(build/server/)")
    parser.add_argument("--port", type=int, default=_PORT, help=f"({_PORT}); 0 is any free one")
    parsed = parser.parse_args()
    # A service is ended by SIGTERM; and a shell's background job would ignore Ctrl-C.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        with uploads(parsed.folder, port=parsed.port) as index:
            _explain(index)
            threading.Event().wait()
    except KeyboardInterrupt:
        console.log("ended; the same command serves the same files and password again")
    return 0


if __name__ == "__main__":
    run_main(main)
