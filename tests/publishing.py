"""Make wheels that can be staged, their records, and an upload server that fails on request."""

from __future__ import annotations

import base64
import dataclasses
import email.parser
import email.policy
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from scripts.gpu_gate import record as gpu
from scripts.gpu_gate.bench import State
from scripts.gpu_gate.record import Result
from scripts.index import ledger, package_record
from scripts.index.store import Store, digest
from scripts.model import Cell, TorchBuild
from scripts.publish import stand_ins
from scripts.support.files import file_sha256
from scripts.wheel import audit_record
from scripts.wheel.audit_record import Check, Outcome
from tests.loopback import Http, running
from tests.unit.wheel_factory import CELL, Parts, text_parts

BY = "A. Publisher"


def cell(line: str = CELL.torch.line) -> Cell:
    """Return a cell for a torch line."""
    return dataclasses.replace(CELL, torch=TorchBuild(line, f"{line}.0", "pypi"))


def audited(wheel: Path, *, outcome: Outcome = "passed", partial: bool = False, id_: str = CELL.id) -> Path:
    """Write an audit record next to a wheel; return the wheel."""
    check = Check("everything", outcome, "as the test wants it")
    audit_record.save(audit_record.make(wheel, id_, (check,), {"python": "3"}, partial=partial), wheel.parent)
    return wheel


def wheel(folder: Path, line: str = CELL.torch.line, text: str = "", parts: Parts | None = None) -> Path:
    """Make an audited wheel for a torch line; another ``text`` gives other bytes."""
    made = parts or text_parts(cell(line))
    if text:
        made.members["nvdiffrast/__init__.py"] = text.encode()
    folder.mkdir(parents=True, exist_ok=True)
    return audited(made.write(folder), id_=made.cell.id)


def pure_wheel(
    folder: Path, name: str = "torch_rasterizer", version: str = "0.1.0", requires: Sequence[str] = (), body: str = ""
) -> Path:
    """Make a wheel without compiled code and its record of two builds; return the wheel."""
    made = stand_ins.wheel(folder, name, version, requires=requires, body=body)
    package_record.save(package_record.make(made, 2, {"python": "3"}), folder)
    return made


SHEET = b"a contact sheet"


def gpu_record(path: Path, found: State = "passed", **changes: object) -> dict[str, object]:
    """Return a GPU record of a wheel with one check in the state ``found``, as a dict with ``changes``."""
    results = [Result("triangle", found, "as the test wants it")]
    machine = {"device": "a GPU", "driver": "1.2"}
    made = gpu.make(path.name, file_sha256(path), machine, {"torch": "2"}, results, sheet=SHEET)
    return {**dataclasses.asdict(made), **changes}


def save_gpu_record(path: Path, folder: Path, found: State = "passed", **changes: object) -> None:
    """Write a GPU record and its contact sheet below ``folder``."""
    sha256 = file_sha256(path)
    gpu.write(gpu.path(sha256, folder), json.dumps(gpu_record(path, found, **changes)).encode())
    gpu.write(gpu.sheet_path(sha256, folder), SHEET)


def proved(store: Path) -> None:
    """Write to the ledger that the staged index was proved."""
    ledger.append(store, "proved", by=BY, catalog=digest(Store(store).catalog("staged")))


def tree(root: Path, *without: str) -> str:
    """Return a hash of all names, links and bytes below a folder, except the lock and the names ``without``."""
    found = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.name == ".lock" or path.name in without:
            continue
        what = str(path.readlink()).encode() if path.is_symlink() else path.read_bytes() if path.is_file() else b"/"
        found.update(repr((str(path.relative_to(root)), hashlib.sha256(what).digest())).encode())
    return found.hexdigest()


class UploadServer:
    """The state of the server with the upload API.

    ``files`` maps names to bytes. ``broken`` has one item per failing upload: the status of the answer, "cut" to close
    the connection before the file is stored, or "lost" to store the file and send no answer. ``reading`` has the
    statuses of the next answers to GET. ``silent`` hides the hashes.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.broken: list[int | str] = []
        self.reading: list[int] = []
        self.silent = False
        self.uploads = 0
        self.password = "secret-of-the-test"
        self.url = ""


class _Handler(BaseHTTPRequestHandler):
    server: Http

    def do_GET(self) -> None:
        state = self.server.state
        if state.reading:
            self.send_error(state.reading.pop(0))
        elif not state.files:
            self.send_error(404)
        else:
            links = (
                f'<a href="/{name}{_fragment(state, content)}">{name}</a>' for name, content in state.files.items()
            )
            body = "\n".join(links).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def do_POST(self) -> None:
        state = self.server.state
        body = self.rfile.read(int(self.headers["Content-Length"]))
        state.uploads += 1
        expected = "Basic " + base64.b64encode(f"publisher:{state.password}".encode()).decode()
        if self.headers.get("Authorization") != expected:
            return self.send_error(403, "Forbidden")
        what = state.broken.pop(0) if state.broken else 200
        if isinstance(what, int) and what != 200:
            return self.send_error(what)
        if what != "cut":
            name, content = _uploaded(self.headers["Content-Type"], body)
            if name in state.files:
                return self.send_error(400, "File already exists")
            state.files[name] = content
        if what in ("cut", "lost"):
            self.close_connection = True
            return None
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
        return None

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


def _fragment(state: UploadServer, content: bytes) -> str:
    return "" if state.silent else f"#sha256={hashlib.sha256(content).hexdigest()}"


def _uploaded(kind: str, body: bytes) -> tuple[str, bytes]:
    head = f"Content-Type: {kind}\r\n\r\n".encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
    for part in message.iter_parts():
        if name := part.get_filename():
            content = part.get_payload(decode=True)
            assert isinstance(content, bytes)
            return name, content
    raise AssertionError("no file in the upload")


@contextmanager
def upload_server() -> Iterator[UploadServer]:
    """Run a server with an upload API during the block; its ``url`` ends with a slash."""
    state = UploadServer()
    with running(_Handler, state) as state.url:
        yield state
