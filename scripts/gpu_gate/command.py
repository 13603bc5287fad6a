"""Test the wheel that is bundled in this file on this machine.

Run it with the Python version, the torch version and the CUDA version that the wheel was built for; NumPy must be
installed as well. Nothing is downloaded, and the wheel is installed into a temporary directory only. The record and the
contact sheet are written to DIR/records.

Exit status 0: all checks passed; 1: a check failed; 2: the wheel is for another Python, torch or CUDA version, or torch
or NumPy is missing; 3: there is no GPU, or a check could not run.
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
from .record import Result

# The directory of the wheel inside the bundle.
WHEEL_FOLDER = "wheel/"
# The name of the result of installing the wheel.
INSTALL = "install"
WORKER_OPTION = "--work"
_LABELS = {"passed": "ok", "failed": "FAILED", "untested": "untested", "known": "known fault"}


def main(program: Path, arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status; ``program`` is the bundle."""
    options = _parse(program, arguments)
    if options.work:
        worker.main(options.work)
        return 0
    with tempfile.TemporaryDirectory(prefix="nvdiffrast-gate-") as temporary:
        scratch = Path(temporary).resolve()
        wheel, site = extract_wheel(program, scratch / "wheel"), None
        if options.not_installed is not None:
            result = Result(INSTALL, "failed", options.not_installed, needs_gpu=False)
        elif options.installed is not None:
            result = Result(INSTALL, "passed", options.installed, needs_gpu=False)
        elif mismatch := environment_mismatch(wheel):
            print(f"error: {wheel.name} was built for another environment: {mismatch}", file=sys.stderr)
            print("next:  run this file with the Python and torch versions the wheel was built for", file=sys.stderr)
            return 2
        else:
            site = scratch / "site"
            result = install(wheel, site)
        installation = run.Installation(wheel.name, record.sha256_of(wheel), Path(sys.executable), site, result)
        worker_command = [str(program), WORKER_OPTION]
        gpu_record = run.run(installation, worker.CHECKS, worker_command, scratch / "work", options.output)
    for state, line in record.summary_lines(gpu_record):
        print(f"{_LABELS[state]:>11}  {line}")
    print(f"{'record':>11}  {record.path(gpu_record.sha256, options.output)}")
    return record.exit_code(gpu_record)


def _parse(program: Path, arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"python {program.name}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path(), metavar="DIR", help="default: the current directory")
    parser.add_argument(
        "--installed", metavar="DETAIL", help="the wheel is already installed; DETAIL is written to the record"
    )
    parser.add_argument(
        "--not-installed", metavar="REASON", help="installing the wheel failed; REASON is written to the record"
    )
    parser.add_argument(WORKER_OPTION, type=Path, metavar="JOB", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def extract_wheel(program: Path, folder: Path) -> Path:
    """Extract the wheel from the bundle into ``folder`` and return its path."""
    folder.mkdir(parents=True)
    with zipfile.ZipFile(program) as archive:
        [member] = [name for name in archive.namelist() if name.startswith(WHEEL_FOLDER) and name.endswith(".whl")]
        wheel = folder / member[len(WHEEL_FOLDER) :]
        wheel.write_bytes(archive.read(member))
    return wheel


def environment_mismatch(wheel: Path) -> str:
    """Return how this environment differs from the one the wheel was built for; empty if it matches.

    A mismatch is the user's mistake, not a fault of the wheel. If the wheel has no readable build_info.json, nothing is
    returned here: the check "build-info" reports it.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            info = json.loads(archive.read("nvdiffrast/build_info.json"))
        expected = {"python": info["python"], "torch": _major_minor(info["torch"]), "cuda": info["cuda"]}
    except (KeyError, ValueError):
        return ""
    torch = importlib.util.find_spec("torch")
    assert torch is not None and torch.origin is not None
    # torch/version.py is run by itself because importing torch takes seconds.
    version = runpy.run_path(str(Path(torch.origin).with_name("version.py")))
    actual = {
        "python": f"cp{sys.version_info.major}{sys.version_info.minor}",
        "torch": _major_minor(version["__version__"]),
        "cuda": str(version["cuda"]),
    }
    return ", ".join(f"{key} is {actual[key]}, not {value}" for key, value in expected.items() if actual[key] != value)


def _major_minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def install(wheel: Path, site: Path) -> Result:
    """Extract the wheel into the directory ``site``; nothing else is necessary, as it has no scripts and no data."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
        count = len(archive.namelist())
    return Result(INSTALL, "passed", f"{count} archive members extracted into a separate directory", needs_gpu=False)
