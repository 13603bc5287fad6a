"""Judge wheels on this machine's GPU: install each beside the real torch, with no compiler, and hold what it renders
against a reference.

nox -s smoke -- [WHEEL...] [--records DIR] [--bundle FILE]

Without a name: the wheels in dist/ that this machine can install. The record of each, which promotion asks for, goes
to records/ beside the wheel. --bundle writes one file instead, that does the same on another machine, which needs the
wheel's Python and torch, and no network: python FILE.

Exit status 0: all passed; 1: a check failed; 3: no GPU, or something else could not be tested.
"""

from __future__ import annotations

import argparse
import shlex
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import parse_wheel_filename
from pydantic import TypeAdapter

from scripts import console
from scripts.audit import audit
from scripts.errors import CommandError, UntestedError, UsageError, run_main
from scripts.gpu_gate import record as records
from scripts.gpu_gate.record import GpuRecord
from scripts.model import ROOT, Cell
from scripts.support import environments, interpreters
from scripts.support.files import file_sha256
from scripts.support.host import host_platform
from scripts.support.process import call
from scripts.support.sandbox import Environment, Surroundings
from scripts.wheel import wheel_file

GATE = ROOT / "scripts" / "gpu_gate"
# Seconds; the reference is slow, and torch is read from a cold disk.
_PATIENCE = 7200.0
# What torch's lock has for builds; a machine of a user has none of it.
_BUILDERS = ("ninja",)
_EPOCH = (2020, 1, 1, 0, 0, 0)
_START = """\
import pathlib
import sys

from gpu_gate.__main__ import main

if __name__ == "__main__":
    sys.exit(main(pathlib.Path(__file__).parent.absolute()))
"""


def bundle(wheel: Path, file: Path) -> None:
    """Write the gate and a wheel as one file that Python runs; the same bytes for the same wheel."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f"{file.name}.new")
    with zipfile.ZipFile(beside, "w") as archive:
        for name, content in _members(wheel):
            member = zipfile.ZipInfo(name, _EPOCH)
            member.compress_type = zipfile.ZIP_DEFLATED
            member.external_attr = 0o644 << 16
            archive.writestr(member, content)
    beside.replace(file)


def _members(wheel: Path) -> Iterator[tuple[str, bytes]]:
    yield "__main__.py", _START.encode()
    for source in sorted(GATE.rglob("*.py")):
        yield f"gpu_gate/{source.relative_to(GATE).as_posix()}", source.read_bytes()
    yield f"wheel/{wheel.name}", wheel.read_bytes()


def smoke(wheel: Path, output: Path) -> GpuRecord:
    """Judge a wheel; the record and the contact sheet are written below ``output``.

    Raises:
        UntestedError: this machine cannot install it, or its torch is not locked; no record is written.
        AuditError: it is no wheel of the matrix.
        CommandError: the gate itself failed.
    """
    with tempfile.TemporaryDirectory(prefix="nvdiffrast-smoke-") as temporary:
        scratch = Path(temporary).resolve()
        cell = _cell(wheel, scratch / "unpacked")
        environment = _environment(cell, scratch)
        installed = _install(environment, wheel)
        program = scratch / "gate.pyz"
        bundle(wheel, program)
        command: list[str | Path] = [environment.interpreter, "-I", "-B", program]
        command += ["--output", scratch / "output", *installed]
        try:
            call(command, cwd=scratch, env={"PYTHONPATH": None}, echo=False, quiet=True, timeout=_PATIENCE)
        except CommandError as error:
            if error.returncode not in (1, 3):
                raise
        return _take(file_sha256(wheel), scratch / "output", output)


def _cell(wheel: Path, folder: Path) -> Cell:
    if not wheel.is_file():
        raise UsageError(f"{wheel}: no such file", mend="`nox -s build` makes one")
    return audit.find_cell(wheel_file.unpack(wheel.absolute(), folder))


def _environment(cell: Cell, scratch: Path) -> Environment:
    """A new environment with the cell's locked torch, and nothing that compiles."""
    if cell.platform.name != host_platform():
        raise UntestedError(f"a wheel for {cell.platform.name}, this machine is {host_platform()}")
    python, lock = interpreters.find(cell.python), environments.torch_lock(cell)
    if python is None:
        raise UntestedError(f"no CPython {cell.python} here", mend=f"uv python install {cell.python}")
    folder = environments.create(python, [lock], name="smoke", cache=scratch)
    environment = Environment(folder, Surroundings("http://127.0.0.1:9/", scratch / "cache"))
    environment.run(f"uv pip uninstall --quiet {' '.join(_BUILDERS)}")
    return environment


def _install(environment: Environment, wheel: Path) -> list[str]:
    """Install the wheel from its file alone; the options that tell the gate how that went."""
    before = environment.installed()
    try:
        environment.run(shlex.join(["uv", "pip", "install", "--quiet", "--no-index", str(wheel.absolute())]))
    except CommandError as error:
        return ["--not-installed", " ".join(error.output.split()) or str(error)]
    changed = {name for name, _ in environment.installed().items() ^ before.items()}
    if changed != {"nvdiffrast"}:
        return ["--not-installed", f"installing it changed {', '.join(sorted(changed)) or 'nothing'}"]
    return ["--installed", f"beside torch {before['torch']}, which stayed as it was"]


def _take(sha256: str, source: Path, output: Path) -> GpuRecord:
    """Keep what the gate wrote."""
    content = records.path(sha256, source).read_bytes()
    sheet = records.sheet_path(sha256, source)
    if sheet.is_file():
        records.write(records.sheet_path(sha256, output), sheet.read_bytes())
    records.write(records.path(sha256, output), content)
    return TypeAdapter(GpuRecord).validate_json(content)


def here(folder: Path) -> list[Path]:
    """The wheels in a folder that this machine can install.

    Raises:
        UsageError: there is none.
    """
    found = []
    for wheel in sorted(folder.glob("nvdiffrast-*.whl")):
        tags = parse_wheel_filename(wheel.name)[3]
        line = next(iter(tags)).interpreter.removeprefix("cp")
        if any(_of_this_system(tag.platform) for tag in tags) and interpreters.find(f"{line[0]}.{line[1:]}"):
            found.append(wheel)
    if not found:
        raise UsageError(f"no wheel in {folder} is for this machine", mend="make one: nox -s build")
    return found


def _of_this_system(tag: str) -> bool:
    system, _, processor = host_platform().partition("_")
    return tag.endswith(processor) and ("linux" if system == "linux" else "win") in tag


def show(record: GpuRecord, seconds: float) -> None:
    """Print a record as a checklist."""
    *checks, (outcome, summary) = records.lines(record)
    for state, line in checks:
        console.mark("info" if state == "known" else state, f"known: {line}" if state == "known" else line)
    console.mark(outcome, f"{summary} ({seconds:.1f} s)")


@dataclass(frozen=True)
class _Options:
    wheels: Sequence[Path]
    records: Path | None
    bundle: Path | None


def _parse(arguments: Sequence[str] | None) -> _Options:
    parser = argparse.ArgumentParser(prog="nox -s smoke --", description="Judge wheels on this machine's GPU.")
    parser.add_argument(
        "wheels", nargs="*", type=Path, metavar="WHEEL", help="default: those in dist/ for this machine"
    )
    parser.add_argument("--records", type=Path, metavar="DIR", help="write records/ below DIR, not beside the wheel")
    parser.add_argument("--bundle", type=Path, metavar="FILE", help="write the gate and one wheel as one file instead")
    return _Options(**vars(parser.parse_args(arguments)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge wheels, or write a file that judges one elsewhere."""
    options = _parse(arguments)
    named = options.wheels or here(ROOT / "dist")
    if options.bundle:
        return _bundle(named, options.bundle)
    codes = set()
    for wheel in named:
        begin = time.monotonic()
        with console.step(f"smoke {wheel.name}"):
            record = smoke(wheel, options.records or wheel.parent)
        show(record, time.monotonic() - begin)
        console.mark("info", f"record: {records.path(record.sha256, options.records or wheel.parent)}")
        codes.add(records.exit_code(record))
    return 1 if 1 in codes else max(codes)


def _bundle(named: Sequence[Path], file: Path) -> int:
    if len(named) != 1:
        raise UsageError(f"--bundle takes one wheel, not {len(named)}", mend="name it")
    with tempfile.TemporaryDirectory(prefix="nvdiffrast-smoke-") as temporary:
        cell = _cell(named[0], Path(temporary).resolve())
    bundle(named[0], file)
    console.mark("info", f"{file}: run it with CPython {cell.python} that has torch {cell.torch.line} and NumPy")
    return 0


if __name__ == "__main__":
    run_main(main, uses_cache=True)
