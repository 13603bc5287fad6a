"""Judge the wheel in this file on this machine.

The interpreter must be the Python that the wheel is for, with NumPy and the torch that it is for. Nothing is
downloaded, and nothing installed but into a temporary folder. The record and a contact sheet go to DIR/records.
Exit status 0: all passed; 1: a check failed; 2: it cannot run here; 3: no GPU, or something else is untested.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from . import record, run, worker
from .bench import State
from .checks import CHECKS
from .record import Result

# Where the wheel lies within the file.
WHEEL = "wheel/"
INSTALL = "install"
WORK = "--work"
_SIGNS = {"passed": "ok", "failed": "FAILED", "untested": "untested", "known": "known fault"}
_LINES = 8


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
        wheel = take_out(program, scratch / "wheel")
        site = None
        if options.installed is not None or options.not_installed is not None:
            state: State = "passed" if options.not_installed is None else "failed"
            how = Result(INSTALL, state, options.not_installed or options.installed, needs_gpu=False)
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


def install(wheel: Path, site: Path) -> Result:
    """Install the wheel alone into a folder of its own, by this interpreter's pip, or by uv where it has none."""
    uv = shutil.which("uv")
    options = ["install", "--quiet", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    if importlib.util.find_spec("pip"):
        command = [sys.executable, "-I", "-m", "pip", "--disable-pip-version-check", *options]
    elif uv:
        command = [uv, "pip", *options, "--python", sys.executable]
    else:
        return Result(INSTALL, "failed", f"{sys.executable} has no pip, and there is no uv on PATH", needs_gpu=False)
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    said = " | ".join(line.strip() for line in done.stdout.splitlines()[-_LINES:])
    if done.returncode:
        return Result(INSTALL, "failed", said or f"exit status {done.returncode}", needs_gpu=False)
    return Result(INSTALL, "passed", "alone, into a folder of its own", needs_gpu=False)
