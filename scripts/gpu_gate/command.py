"""Judge the wheel in this file on this machine.

The interpreter must be the Python that the wheel is for, with NumPy and the torch that it is for. Nothing is
downloaded, and nothing installed but into a temporary folder. The record and a contact sheet go to DIR/records.
Exit status 0: all passed; 1: a check failed; 2: it cannot run here; 3: no GPU, or something else is untested.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import runpy
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from . import record, run, worker
from .checks import CHECKS
from .record import Result

# Where the wheel lies within the file.
WHEEL = "wheel/"
INSTALL = "install"
WORK = "--work"
_SIGNS = {"passed": "ok", "failed": "FAILED", "untested": "untested", "known": "known fault"}


def main(program: Path, arguments: Sequence[str] | None = None) -> int:
    """Run as the command line says; ``program`` is the file that holds all this."""
    parser = argparse.ArgumentParser(
        prog=f"python {program.name}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path(), metavar="DIR", help="default: the current folder")
    parser.add_argument("--installed", metavar="HOW", help="the wheel is in this environment already, installed so")
    parser.add_argument("--not-installed", metavar="WHY", help="it could not be installed; the record says so")
    parser.add_argument(WORK, type=Path, metavar="ORDER", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.work:
        worker.main(options.work)
        return 0
    with tempfile.TemporaryDirectory(prefix="nvdiffrast-gate-") as temporary:
        scratch = Path(temporary).resolve()
        wheel, site = take_out(program, scratch / "wheel"), None
        if options.not_installed is not None:
            how = Result(INSTALL, "failed", options.not_installed, needs_gpu=False)
        elif options.installed is not None:
            how = Result(INSTALL, "passed", options.installed, needs_gpu=False)
        elif wrong := misplaced(wheel):
            print(f"error: {wheel.name} is for another environment: {wrong}", file=sys.stderr)
            print("next:  run this with the Python that has the torch that the wheel is for", file=sys.stderr)
            return 2
        else:
            site = scratch / "site"
            how = install(wheel, site)
        installed = run.Installed(wheel.name, record.sha256_of(wheel), Path(sys.executable), site, how)
        made = run.run(installed, CHECKS, [str(program), WORK], scratch / "work", options.output)
    for state, line in record.lines(made):
        print(f"{_SIGNS[state]:>11}  {line}")
    print(f"{'record':>11}  {record.path(made.sha256, options.output)}")
    return record.exit_code(made)


def take_out(program: Path, folder: Path) -> Path:
    """Copy the wheel out of the file."""
    folder.mkdir(parents=True)
    with zipfile.ZipFile(program) as archive:
        [member] = [name for name in archive.namelist() if name.startswith(WHEEL) and name.endswith(".whl")]
        target = folder / member[len(WHEEL) :]
        target.write_bytes(archive.read(member))
    return target


def misplaced(wheel: Path) -> str:
    """Why this interpreter is not one that the wheel is for, or nothing: that would be no fault of the wheel's."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            info = json.loads(archive.read("nvdiffrast/build_info.json"))
        wanted = {"python": info["python"], "torch": _line(info["torch"]), "cuda": info["cuda"]}
    except (KeyError, ValueError):
        # That is the wheel's own fault, which the checks find.
        return ""
    torch = importlib.util.find_spec("torch")
    assert torch is not None and torch.origin is not None
    found = runpy.run_path(str(Path(torch.origin).with_name("version.py")))
    here = {
        "python": f"cp{sys.version_info.major}{sys.version_info.minor}",
        "torch": _line(found["__version__"]),
        "cuda": str(found["cuda"]),
    }
    return ", ".join(f"{key} is {here[key]}, not {value}" for key, value in wanted.items() if here[key] != value)


def _line(version: str) -> str:
    return ".".join(version.split(".")[:2])


def install(wheel: Path, site: Path) -> Result:
    """Lay the wheel into a folder of its own, which is all that installing it means: it has no scripts and no data."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
        members = len(archive.namelist())
    return Result(INSTALL, "passed", f"{members} members laid into a folder of its own", needs_gpu=False)
