"""A store whose wheels are stand-ins: named, hashed and listed like real wheels, but without content."""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scripts.index import writer
from scripts.index.catalog import Catalog, Entry
from scripts.publish import stand_ins
from scripts.support.files import file_sha256
from scripts.support.host import host_platform

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
UPLOADED = "2026-11-01T12:00:00Z"
_TAGS = {"linux_x86_64": "manylinux_2_28_x86_64", "win_amd64": "win_amd64"}
HERE = host_platform()


@dataclass(frozen=True)
class Wanted:
    """A wheel of a stand-in store; ``requires`` replaces its requirements."""

    cuda: str
    torch: str
    python: str = PYTHON
    release: str = "0.3.3.1"
    platform: str = HERE
    uploaded: str = UPLOADED
    yanked: str | None = None
    requires: Sequence[str] | None = None

    @property
    def version(self) -> str:
        """Return the version with its local part."""
        return f"{self.release}+{self.cuda}.torch{self.torch}"


def make(root: Path, wanted: Iterable[Wanted]) -> Path:
    """Create a store at ``root`` with these wheels staged."""
    (root / "records").mkdir(parents=True)
    entries = [_pool(root / "pool", one) for one in wanted]
    catalog = Catalog(tuple(sorted(entries, key=lambda entry: entry.name)))
    generation = root / "generations" / "stand-in"
    writer.generate(catalog, generation, page=b"<!DOCTYPE html>\n<title>stand-in</title>\n")
    (root / "staged").symlink_to("generations/stand-in")
    return root


def _pool(pool: Path, wanted: Wanted) -> Entry:
    tag = "cp" + wanted.python.replace(".", "")
    requires = ["numpy", f"torch=={wanted.torch}.*"] if wanted.requires is None else wanted.requires
    with tempfile.TemporaryDirectory() as folder:
        made = stand_ins.wheel(
            Path(folder),
            "nvdiffrast",
            wanted.version,
            requires=requires,
            tag=f"{tag}-{tag}-{_TAGS[wanted.platform]}",
        )
        sha256 = file_sha256(made)
        placed = pool / sha256 / made.name
        placed.parent.mkdir(parents=True)
        shutil.copy(made, placed)
    with zipfile.ZipFile(placed) as archive:
        metadata = archive.read(f"nvdiffrast-{wanted.version}.dist-info/METADATA")
    placed.with_name(f"{placed.name}.metadata").write_bytes(metadata)
    return replace(_entry(placed, wanted), metadata_sha256=hashlib.sha256(metadata).hexdigest())


def _entry(wheel: Path, wanted: Wanted) -> Entry:
    tag = "cp" + wanted.python.replace(".", "")
    return Entry(
        name=wheel.name,
        sha256=wheel.parent.name,
        size=wheel.stat().st_size,
        uploaded=wanted.uploaded,
        metadata_sha256="",
        requires_python=">=3.9",
        cell=f"{wanted.release}-{tag}-{wanted.cuda}-torch{wanted.torch}-{wanted.platform}",
        release=wanted.release,
        python=wanted.python,
        cuda=wanted.cuda,
        torch=wanted.torch,
        platform=wanted.platform,
        sass=("9.0",),
        ptx=(),
        yanked=wanted.yanked,
    )
