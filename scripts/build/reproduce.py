"""Build a cell twice as differently as one machine can, and compare: other folders, another clock, another umask."""

from __future__ import annotations

import dataclasses
import io
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from elftools.elf.elffile import ELFFile

from scripts import console
from scripts.build import build
from scripts.errors import CommandError, ReproduceError
from scripts.model import ROOT, Cell
from scripts.support import process
from scripts.support.command_line import run_main
from scripts.support.files import file_sha256


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """What must not matter: the name and depth of the temporary folder, the time zone, the umask."""

    folder: str
    zone: str
    umask: int


SURROUNDINGS = (
    Surroundings("first", "UTC", 0o022),
    Surroundings("second/in a deeper folder", "Pacific/Chatham", 0o077),
)


@contextmanager
def surrounded(by: Surroundings, base: Path) -> Iterator[Path]:
    """Run the block, and every command it starts, in these surroundings; yields the temporary folder."""
    folder = base / by.folder
    folder.mkdir(parents=True)
    names = {"TMPDIR": str(folder), "TZ": by.zone}
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    tempfile.tempdir = None
    umask = os.umask(by.umask)
    try:
        yield folder
    finally:
        os.umask(umask)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        tempfile.tempdir = None


def _sections(content: bytes) -> dict[str, bytes]:
    return {section.name: section.data() for section in ELFFile(io.BytesIO(content)).iter_sections()}


def _different_sections(one: bytes, other: bytes) -> str:
    """Which sections of two ELF files differ; empty if they are not both ELF."""
    if not (one.startswith(b"\x7fELF") and other.startswith(b"\x7fELF")):
        return ""
    first, second = _sections(one), _sections(other)
    names = [name for name in {**first, **second} if first.get(name) != second.get(name)]
    return f" (sections {', '.join(names)})" if names else " (headers only)"


def differences(one: Path, other: Path) -> list[str]:
    """One line for each member of two wheels that is not the same in both."""
    with zipfile.ZipFile(one) as first, zipfile.ZipFile(other) as second:
        members, others = {i.filename: i for i in first.infolist()}, {i.filename: i for i in second.infolist()}
        lines = [f"{name}: only in one of them" for name in sorted(members.keys() ^ others.keys())]
        for name in sorted(members.keys() & others.keys()):
            content, counterpart = first.read(name), second.read(name)
            if content != counterpart:
                lines.append(f"{name}: content{_different_sections(content, counterpart)}")
            elif _header(members[name]) != _header(others[name]):
                lines.append(f"{name}: {_header(members[name])} against {_header(others[name])}")
        if not lines and list(members) != list(others):
            lines.append("the members are in another order")
    return lines


def _header(info: zipfile.ZipInfo) -> str:
    return f"mode {info.external_attr >> 16:o}, time {info.date_time}, compressed to {info.compress_size}"


def _explain(one: Path, other: Path) -> str:
    lines = differences(one, other) or ["nothing inside differs; the archives themselves do"]
    if process.which("diffoscope"):
        # It exits 1 because they differ; what it prints is the point.
        with suppress(CommandError):
            process.call(["diffoscope", "--text", "-", one, other])
    else:
        lines.append("(install diffoscope for more)")
    return "\n".join(f"  {line}" for line in lines)


def build_twice(cell: Cell, options: build.Options, base: Path) -> tuple[Path, Path]:
    """Two wheels of ``cell``, each from empty caches in surroundings of its own."""
    made = []
    inputs = build.gather(cell, options)
    for number, surroundings in enumerate(SURROUNDINGS):
        with surrounded(surroundings, base) as folder:
            its_own = dataclasses.replace(
                options, output=base / f"wheel{number}", objects=folder / "objects", kept=None
            )
            made.append(build.make_wheel(cell, inputs, its_own))
    return made[0], made[1]


def reproduce(cell: Cell, options: build.Options) -> bool:
    """Print both hashes, and what differs if they do."""
    base = ROOT / "build" / "reproduce" / cell.id
    shutil.rmtree(base, ignore_errors=True)
    one, other = build_twice(cell, options, base)
    hashes = file_sha256(one), file_sha256(other)
    for path, digest in zip((one, other), hashes, strict=True):
        print(f"{digest}  {path.relative_to(ROOT)}")
    if hashes[0] != hashes[1]:
        console.mark("failed", f"{cell.id}: two builds differ\n{_explain(one, other)}")
        return False
    console.mark("passed", f"{cell.id}: two builds are bit-identical")
    return True


def main() -> int:
    """``nox -s reproduce -- [CELL...]``: the options of ``scripts.build.build``."""
    parsed = build.arguments("reproduce", __doc__).parse_args()
    options = build.parsed_options(parsed, fresh=True)
    different = [cell.id for cell in build.chosen_cells(parsed) if not reproduce(cell, options)]
    if different:
        raise ReproduceError(f"not reproducible: {', '.join(different)}")
    return 0


if __name__ == "__main__":
    run_main(main, uses_cache=True)
