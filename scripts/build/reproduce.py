"""Build a cell twice, in different folders, time zones and umasks, and compare the two wheels."""

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
from scripts.build.cell_wheel import make_wheel
from scripts.build.inputs import Options, gather
from scripts.errors import CommandError, ReproduceError
from scripts.model import ROOT, Cell
from scripts.support import process
from scripts.support.command_line import run_main
from scripts.support.files import file_sha256


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """Conditions that must not change a wheel: name and depth of the temporary folder, time zone, umask."""

    folder: str
    zone: str
    umask: int


SURROUNDINGS = (
    Surroundings("first", "UTC", 0o022),
    Surroundings("second/in a deeper folder", "Pacific/Chatham", 0o077),
)


@contextmanager
def in_surroundings(surroundings: Surroundings, base: Path) -> Iterator[Path]:
    """Run the block, and every command that it starts, in these surroundings; yield the temporary folder."""
    folder = base / surroundings.folder
    folder.mkdir(parents=True)
    names = {"TMPDIR": str(folder), "TZ": surroundings.zone}
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    tempfile.tempdir = None
    umask = os.umask(surroundings.umask)
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
    """Return which sections of two ELF files differ; empty if one of them is not an ELF file."""
    if not (one.startswith(b"\x7fELF") and other.startswith(b"\x7fELF")):
        return ""
    first, second = _sections(one), _sections(other)
    names = [name for name in {**first, **second} if first.get(name) != second.get(name)]
    return f" (sections {', '.join(names)})" if names else " (headers only)"


def differences(one: Path, other: Path) -> list[str]:
    """Return one line per member that differs between two wheels."""
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
    lines = differences(one, other) or ["no member differs, only the archives themselves"]
    if process.which("diffoscope"):
        # Its exit status 1 means that the files differ.
        with suppress(CommandError):
            process.call(["diffoscope", "--text", "-", one, other])
    else:
        lines.append("(install diffoscope for more)")
    return "\n".join(f"  {line}" for line in lines)


def build_twice(cell: Cell, options: Options, base: Path) -> tuple[Path, Path]:
    """Build two wheels of ``cell``, each from empty caches and in other surroundings."""
    made = []
    inputs = gather(cell, options)
    for number, surroundings in enumerate(SURROUNDINGS):
        with in_surroundings(surroundings, base) as folder:
            own_options = dataclasses.replace(
                options, output=base / f"wheel{number}", objects=folder / "objects", kept=None
            )
            made.append(make_wheel(inputs, own_options))
    return made[0], made[1]


def reproduce(cell: Cell, options: Options) -> bool:
    """Build a cell twice, print both hashes and any differences, and return whether the wheels are equal."""
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
    """Build the named cells twice and compare."""
    parsed = build.arguments("reproduce", __doc__).parse_args()
    options = build.parsed_options(parsed, fresh=True)
    different = [cell.id for cell in build.chosen_cells(parsed) if not reproduce(cell, options)]
    if different:
        raise ReproduceError(f"not reproducible: {', '.join(different)}")
    return 0


if __name__ == "__main__":
    run_main(main, uses_cache=True)
