"""Test wheels on this machine's GPU: install each one beside its torch, and compare what it renders with a reference.

nox -s smoke -- [WHEEL...] [--records DIR] [--bundle FILE]

The default is to test the wheels in dist/ that this machine can install. No compiler is available to the wheel. The
record of each wheel, which promotion requires, is written to records/ beside the wheel. --bundle writes a single file
instead, which runs the same test on another machine with `python FILE`; that machine needs the Python and torch that
the wheel was built for, and no network.

Exit status 0: all checks passed; 1: a check failed; 3: there is no GPU, or something else could not be tested.
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
from scripts.errors import CommandError, UntestedError, UsageError
from scripts.gpu_gate import record as gpu_records
from scripts.gpu_gate.record import GpuRecord
from scripts.model import ROOT, Cell
from scripts.support import environments, interpreters
from scripts.support.command_line import run_main
from scripts.support.files import file_sha256, replace_atomic
from scripts.support.host import host_platform
from scripts.support.process import call
from scripts.support.sandbox import Environment, Surroundings
from scripts.wheel import wheel_file

GATE = ROOT / "scripts" / "gpu_gate"
# The reference is slow, and reading torch from a cold disk takes time.
_GATE_TIMEOUT_SECONDS = 7200.0
# torch's lock also contains these build tools, which a user's machine does not have.
_BUILD_TOOLS = ("ninja",)
# The time stamp of every member of the bundle.
_TIMESTAMP = (2020, 1, 1, 0, 0, 0)


def bundle(wheel: Path, file: Path) -> None:
    """Write the gate and a wheel as one file that Python can run; the same wheel gives the same bytes."""
    with replace_atomic(file) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, content in _bundle_members(wheel):
            member = zipfile.ZipInfo(name, _TIMESTAMP)
            member.compress_type = zipfile.ZIP_DEFLATED
            member.external_attr = 0o644 << 16
            archive.writestr(member, content)


def _bundle_members(wheel: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name and content of each member."""
    # Python runs the __main__.py at the root of a zip file.
    entry_point = GATE / "__main__.py"
    yield "__main__.py", entry_point.read_bytes()
    for source in sorted(set(GATE.rglob("*.py")) - {entry_point}):
        yield f"gpu_gate/{source.relative_to(GATE).as_posix()}", source.read_bytes()
    yield f"wheel/{wheel.name}", wheel.read_bytes()


def run_gate(wheel: Path, output: Path) -> GpuRecord:
    """Test a wheel, and write the record and the contact sheet below ``output``.

    Raises:
        UsageError: if the file does not exist.
        UntestedError: if this machine cannot install the wheel, or if its torch is not locked; no record is written.
        AuditError: if the wheel belongs to no cell of the matrix.
        CommandError: if the gate itself fails.
    """
    with tempfile.TemporaryDirectory(prefix="nvdiffrast-smoke-") as temporary:
        scratch = Path(temporary).resolve()
        cell = _find_cell(wheel, scratch / "unpacked")
        environment = _create_environment(cell, scratch)
        install_options = _install(environment, wheel)
        program = scratch / "gate.pyz"
        bundle(wheel, program)
        command: list[str | Path] = [environment.interpreter, "-I", "-B", program]
        command += ["--output", scratch / "output", *install_options]
        try:
            call(command, cwd=scratch, env={"PYTHONPATH": None}, echo=False, quiet=True, timeout=_GATE_TIMEOUT_SECONDS)
        except CommandError as error:
            # 1 and 3 are the exit statuses of a record whose outcome is not "passed".
            if error.returncode not in (1, 3):
                raise
        return _copy_record(file_sha256(wheel), scratch / "output", output)


def _find_cell(wheel: Path, folder: Path) -> Cell:
    """Unpack the wheel into ``folder`` and return its cell."""
    if not wheel.is_file():
        raise UsageError(f"{wheel}: no such file", hint="build one with `nox -s build`")
    return audit.find_cell(wheel_file.unpack(wheel.absolute(), folder))


def _create_environment(cell: Cell, scratch: Path) -> Environment:
    """Create an environment with the cell's locked torch and without build tools."""
    if cell.platform.name != host_platform():
        raise UntestedError(f"a wheel for {cell.platform.name}, but this machine is {host_platform()}")
    python, lock = interpreters.find(cell.python), environments.torch_lock(cell)
    if python is None:
        raise UntestedError(f"CPython {cell.python} is not installed", hint=f"uv python install {cell.python}")
    folder = environments.create(python, [lock], name="smoke", cache=scratch)
    # The wheel is installed from its file, so no index is necessary.
    environment = Environment(folder, Surroundings("http://127.0.0.1:9/", scratch / "cache"))
    environment.run(f"uv pip uninstall --quiet {' '.join(_BUILD_TOOLS)}")
    return environment


def _install(environment: Environment, wheel: Path) -> list[str]:
    """Install the wheel without an index, and return the gate's options that report the result."""
    before = environment.installed()
    try:
        environment.run(shlex.join(["uv", "pip", "install", "--quiet", "--no-index", str(wheel.absolute())]))
    except CommandError as error:
        return ["--not-installed", " ".join(error.output.split()) or str(error)]
    changed = {name for name, _ in environment.installed().items() ^ before.items()}
    if changed != {"nvdiffrast"}:
        return ["--not-installed", f"installing it changed {', '.join(sorted(changed)) or 'nothing'}"]
    return ["--installed", f"beside torch {before['torch']}; no other package changed"]


def _copy_record(sha256: str, source: Path, output: Path) -> GpuRecord:
    """Copy the contact sheet and the record that the gate wrote, and return the record."""
    content = gpu_records.path(sha256, source).read_bytes()
    sheet = gpu_records.sheet_path(sha256, source)
    if sheet.is_file():
        gpu_records.write(gpu_records.sheet_path(sha256, output), sheet.read_bytes())
    gpu_records.write(gpu_records.path(sha256, output), content)
    return TypeAdapter(GpuRecord).validate_json(content)


def find_wheels(folder: Path) -> list[Path]:
    """Return the wheels in ``folder`` that this machine can install.

    Raises:
        UsageError: if there is no such wheel.
    """
    found = []
    for wheel in sorted(folder.glob("nvdiffrast-*.whl")):
        tags = parse_wheel_filename(wheel.name)[3]
        version = next(iter(tags)).interpreter.removeprefix("cp")
        python = f"{version[0]}.{version[1:]}"
        if any(_is_for_this_platform(tag.platform) for tag in tags) and interpreters.find(python):
            found.append(wheel)
    if not found:
        raise UsageError(f"no wheel in {folder} is for this machine", hint="build one with `nox -s build`")
    return found


def _is_for_this_platform(platform_tag: str) -> bool:
    system, _, processor = host_platform().partition("_")
    return platform_tag.endswith(processor) and ("linux" if system == "linux" else "win") in platform_tag


def show(record: GpuRecord, seconds: float) -> None:
    """Print a record as a checklist."""
    *checks, (outcome, summary) = gpu_records.summary_lines(record)
    for state, line in checks:
        console.mark("info" if state == "known" else state, f"known: {line}" if state == "known" else line)
    console.mark(outcome, f"{summary} ({seconds:.1f} s)")


@dataclass(frozen=True)
class _Options:
    wheels: Sequence[Path]
    records: Path | None
    bundle: Path | None


def _parse(arguments: Sequence[str] | None) -> _Options:
    parser = argparse.ArgumentParser(prog="nox -s smoke --", description="Test wheels on this machine's GPU.")
    parser.add_argument(
        "wheels",
        nargs="*",
        type=Path,
        metavar="WHEEL",
        help="default: the wheels in dist/ that this machine can install",
    )
    parser.add_argument(
        "--records", type=Path, metavar="DIR", help="write records/ below DIR instead of beside the wheel"
    )
    parser.add_argument(
        "--bundle", type=Path, metavar="FILE", help="write a file that tests the wheel on another machine"
    )
    return _Options(**vars(parser.parse_args(arguments)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Test wheels, or write a file that tests one on another machine."""
    options = _parse(arguments)
    selected = options.wheels or find_wheels(ROOT / "dist")
    if options.bundle:
        return _bundle(selected, options.bundle)
    codes = set()
    for wheel in selected:
        begin = time.monotonic()
        output = options.records or wheel.parent
        with console.step(f"smoke {wheel.name}"):
            record = run_gate(wheel, output)
        show(record, time.monotonic() - begin)
        console.mark("info", f"record: {gpu_records.path(record.sha256, output)}")
        codes.add(gpu_records.exit_code(record))
    return 1 if 1 in codes else max(codes)


def _bundle(selected: Sequence[Path], file: Path) -> int:
    if len(selected) != 1:
        raise UsageError(f"--bundle needs exactly one wheel, not {len(selected)}", hint="name the wheel")
    with tempfile.TemporaryDirectory(prefix="nvdiffrast-smoke-") as temporary:
        cell = _find_cell(selected[0], Path(temporary).resolve())
    bundle(selected[0], file)
    console.mark("info", f"{file}: run it with CPython {cell.python}, torch {cell.torch.line} and NumPy")
    return 0


if __name__ == "__main__":
    run_main(main, uses_cache=True)
