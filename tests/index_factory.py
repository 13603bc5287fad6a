"""Make entries without files, and small wheels that pip and uv can install."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from scripts.index.catalog import Catalog, Entry, PureWheel

PAGE = b"<!DOCTYPE html><title>The page for people</title>\n"
METADATA = "Metadata-Version: 2.1\nName: nvdiffrast\nVersion: {version}\nRequires-Python: {python}\n"


def entry(
    release: str = "0.4.0",
    *,
    cuda: str = "cu130",
    torch: str = "2.11",
    python: str = "3.11",
    platform: str = "manylinux_2_28_x86_64",
) -> Entry:
    """Return an entry whose file does not exist."""
    tag = "cp" + python.replace(".", "")
    name = f"nvdiffrast-{release}+{cuda}.torch{torch}-{tag}-{tag}-{platform}.whl"
    system = "win_amd64" if platform.startswith("win") else "linux_x86_64"
    return Entry(
        name=name,
        sha256=_sha256(name.encode()),
        size=123456,
        uploaded="2026-11-21T10:00:00Z",
        metadata_sha256=_sha256(name.encode() + b".metadata"),
        requires_python=">=3.10",
        cell=f"{release}-{tag}-{cuda}-torch{torch}-{system}",
        release=release,
        python=python,
        cuda=cuda,
        torch=torch,
        platform=system,
        sass=("8.0", "9.0"),
        ptx=("9.0",),
    )


def catalog(entries: Iterable[Entry]) -> Catalog:
    """Return a catalog of the entries."""
    return Catalog(tuple(sorted(entries, key=lambda one: one.name)))


def pooled(store: Path, one: Entry, *, source: str = "", python: str = ">=3.8") -> Entry:
    """Put a wheel with the entry's name into the pool of a store; return the entry with its hashes and size.

    ``source`` is the text of nvdiffrast/__init__.py.
    """
    version = one.name.split("-")[1]
    metadata = METADATA.format(version=version, python=python).encode()
    info = f"nvdiffrast-{version}.dist-info"
    tag = "-".join(one.name.removesuffix(".whl").split("-")[2:])
    members = {
        "nvdiffrast/__init__.py": (source or f"version = {version!r}\n").encode(),
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: false\nTag: {tag}\n".encode(),
    }
    record = "".join(f"{name},sha256={_record_hash(content)},{len(content)}\n" for name, content in members.items())
    members[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as wheel:
        for name, text in members.items():
            wheel.writestr(zipfile.ZipInfo(name), text)
    sha256 = _sha256(content.getvalue())
    folder = store / "pool" / sha256
    folder.mkdir(parents=True, exist_ok=True)
    (folder / one.name).write_bytes(content.getvalue())
    (folder / f"{one.name}.metadata").write_bytes(metadata)
    (store / "records").mkdir(exist_ok=True)
    (store / "records" / f"{sha256}.audit.json").write_text("{}\n")
    made = {"sha256": sha256, "size": len(content.getvalue()), "metadata_sha256": _sha256(metadata)}
    return replace(one, **made, requires_python=python)  # type: ignore[arg-type]


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _record_hash(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def pure(project: str = "torch-rasterizer", version: str = "0.1.0", *, requires: Sequence[str] = ()) -> PureWheel:
    """Return an entry of a wheel without compiled code whose file does not exist."""
    name = f"{project.replace('-', '_')}-{version}-py3-none-any.whl"
    digests = (_sha256(name.encode()), _sha256(name.encode() + b".metadata"))
    return PureWheel(name, digests[0], 2345, "2026-11-21T10:00:00Z", digests[1], ">=3.10", tuple(requires))
