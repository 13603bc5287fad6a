"""Serve on loopback: a static generation with content negotiation, or (``nox -s serve``) an index that takes uploads.

The index that takes uploads is pypiserver with generated credentials. Its folder contains:

    packages/    the uploaded files; a file appears complete, and is never changed or deleted
    htpasswd     the users that may upload; add more with any htpasswd tool (its -m, apr1)
    password     the generated password of user "publisher", readable only by its owner
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

# pypiserver installs an import hook without find_spec; code that calls find_spec of all hooks, such as pytest, fails.
sys.meta_path[:] = [hook for hook in sys.meta_path if hasattr(hook, "find_spec")]

LOOPBACK = "127.0.0.1"
SIMPLE_JSON = "application/vnd.pypi.simple.v1+json"
SIMPLE_HTML = "application/vnd.pypi.simple.v1+html"
USER = "publisher"
_PORT = 8417


def prefers_json(accept: str) -> bool:
    """Return whether an Accept header prefers the JSON form of the simple API (PEP 691) to HTML."""
    weights = dict(_weight(part) for part in accept.split(",") if part.strip())
    html = max(weights.get(kind, 0.0) for kind in (SIMPLE_HTML, "text/html"))
    return weights.get(SIMPLE_JSON, 0.0) > html


def _weight(part: str) -> tuple[str, float]:
    """Return a media range and its quality: ("text/html", 0.2) for "text/html;q=0.2"."""
    message = email.message.Message()
    message["Content-Type"] = part.strip()
    try:
        return message.get_content_type(), float(str(message.get_param("q", "1")))
    except ValueError:
        return message.get_content_type(), 0.0


class _Static(SimpleHTTPRequestHandler):
    """Serves the files below a folder; for a directory its index.json or index.html, by the Accept header."""

    protocol_version = "HTTP/1.1"

    def send_head(self) -> Any:
        # A directory's URL without the closing "/" is redirected, in both forms.
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
        """Respond with status 404: only directories with an index are part of a generation."""
        self.send_error(404)

    def end_headers(self) -> None:
        self.send_header("Vary", "Accept")
        super().end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Log nothing."""


@contextmanager
def static(folder: Path) -> Iterator[str]:
    """Serve a generation, or any folder of static files, on loopback; yield the base URL without a closing slash."""
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
    """A running index that takes uploads: its URL, its user, and the file of the password."""

    url: str
    user: str
    password_file: Path

    @property
    def simple(self) -> str:
        """Return the URL of the simple repository."""
        return f"{self.url}simple/"

    def password(self) -> str:
        """Return the generated password."""
        return self.password_file.read_text(encoding="utf-8").strip()


class _AppendOnlyBackend(SimpleFileBackend):  # type: ignore[misc,unused-ignore]
    """A backend in which files appear complete or not at all, and are never replaced or deleted."""

    def add_package(self, filename: str, stream: BinaryIO) -> None:
        root: Path = self.roots[0]
        with tempfile.NamedTemporaryFile(dir=root, prefix=".") as beside:
            while chunk := stream.read(1 << 20):
                beside.write(chunk)
            beside.flush()
            os.fsync(beside.fileno())
            Path(beside.name).chmod(0o644)
            try:
                # A hard link fails if the name exists: of two simultaneous uploads the second must not win.
                (root / filename).hardlink_to(beside.name)
            except FileExistsError:
                raise HTTPError(400, f"Package {filename!r} already exists!") from None

    def remove_package(self, pkg: object) -> None:
        raise HTTPError(403, "this index never deletes files; yank the wheel instead")


@contextmanager
def uploads(folder: Path, *, port: int = 0) -> Iterator[UploadIndex]:
    """Serve an index that takes uploads on loopback, from ``folder``; port 0 chooses a free port.

    Raises:
        PublishError: if the port is taken, or the folder cannot be used.
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
        # The sockets must be closed in the server's thread, which ends with the last one.
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
    config.backend.backend = _AppendOnlyBackend(config)
    return pypiserver.setup_routes_from_config(pypiserver.app_from_config(config), config)


def _credentials(folder: Path) -> tuple[Path, Path]:
    """Return the paths of the htpasswd file and the password file; both are created at the first start."""
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
    """Write a file that only its owner can read, complete or not at all."""
    # The mode of the temporary file is 0600 from the start.
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as beside:
        beside.write(content)
    Path(beside.name).replace(path)


def _print_usage(index: UploadIndex) -> None:
    """Print how to upload to the index and install from it, without the password."""
    console.mark("passed", f"serving {index.simple} (Ctrl-C ends it)")
    print(f"  install:  pip install --index-url {index.simple} nvdiffrast")
    print(f"  upload:   export TWINE_REPOSITORY_URL={index.url} TWINE_USERNAME={index.user}")
    print(f'            export TWINE_PASSWORD="$(cat {index.password_file})"', flush=True)


def main() -> int:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(
        prog="nox -s serve --", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "build" / "server", help="(build/server/)")
    parser.add_argument("--port", type=int, default=_PORT, help=f"({_PORT}); 0 chooses a free port")
    parsed = parser.parse_args()
    # Services are stopped with SIGTERM, and a shell's background job would ignore SIGINT.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        with uploads(parsed.folder, port=parsed.port) as index:
            _print_usage(index)
            threading.Event().wait()
    except KeyboardInterrupt:
        console.log("ended; the same command serves the same files and password again")
    return 0


if __name__ == "__main__":
    run_main(main)
