"""Runs the checks in worker processes and writes the record of their results."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from . import machine, record
from .bench import Check
from .record import GpuRecord, Result
from .sheet import contact_sheet
from .worker import IMPORT

# For one worker process; a single check has a shorter limit (worker.CHECK_TIMEOUT_SECONDS).
_WORKER_TIMEOUT_SECONDS = 3600.0
# How many lines of a dead worker's output the record keeps.
_KEPT_LINES = 6
# The first words of a traceback that faulthandler prints.
_FAULTHANDLER_PREFIXES = ("Fatal Python error", "Timeout (", "Windows fatal exception")


@dataclass(frozen=True)
class Installation:
    """An installed wheel.

    Attributes:
        name: The file name of the wheel.
        sha256: The sha256 of the wheel.
        interpreter: The Python interpreter to run the checks with.
        site: The directory that contains the wheel's files; None if the interpreter finds them by itself.
        result: The result of installing the wheel.
    """

    name: str
    sha256: str
    interpreter: Path
    site: Path | None
    result: Result


@dataclass
class Progress:
    """What the workers have reported so far; ``started`` is the check that the last worker started last."""

    results: list[Result] = field(default_factory=list)
    machine: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    started: str = ""

    def read(self, file: Path) -> None:
        """Add the lines that a worker wrote; an incomplete last line is ignored."""
        self.started = ""
        for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
            try:
                self._add(json.loads(line))
            except ValueError:
                break

    def _add(self, line: dict[str, Any]) -> None:
        if "machine" in line:
            self.machine, self.versions = line["machine"], line["versions"]
        elif "start" in line:
            self.started = line["start"]
        elif line["result"]["name"] not in self.names:
            self.results.append(Result(**line["result"]))

    @property
    def names(self) -> set[str]:
        """The names of the checks that have a result."""
        return {result.name for result in self.results}


def run(
    installation: Installation, checks: Sequence[Check], program: Sequence[str], scratch: Path, output: Path
) -> GpuRecord:
    """Run every check on an installed wheel, and write the record and the contact sheet below ``output``.

    ``program`` is the command line of a worker, without the interpreter; the path of the job file is appended to it.
    ``scratch`` is a directory for temporary files.
    """
    progress = Progress([installation.result])
    if installation.result.state == "failed":
        _mark_untested(progress, checks, "not installed")
    remaining = [check for check in checks if check.name not in progress.names]
    for turn in range(len(checks) + 1):
        if not remaining:
            break
        _run_worker(installation, remaining, program, scratch / str(turn), progress)
        remaining = [check for check in checks if check.name not in progress.names]
    sheet = contact_sheet(_load_pictures(scratch, checks))
    results = _sort_results(progress, checks)
    gpu_record = record.make(
        installation.name, installation.sha256, progress.machine, progress.versions, results, sheet=sheet
    )
    if sheet:
        record.write(record.sheet_path(gpu_record.sha256, output), sheet)
    record.write(record.path(gpu_record.sha256, output), record.to_json(gpu_record).encode())
    return gpu_record


def _run_worker(
    installation: Installation, checks: Sequence[Check], program: Sequence[str], folder: Path, progress: Progress
) -> None:
    """Run the checks in a new process; if the process dies, the check that it was running has failed."""
    folder.mkdir(parents=True)
    returncode, output = _start_worker(installation, checks, program, folder)
    names_before = progress.names
    progress.read(folder / "results.jsonl")
    if returncode == 0 and progress.names != names_before:
        return
    cause = f"the process died: {_describe_exit(returncode)}: {_shorten(output)}"
    by_name = {check.name: check for check in checks}
    if progress.started in by_name and progress.started not in progress.names:
        check = by_name[progress.started]
        progress.results.append(Result(check.name, "failed", cause, 0.0, check.needs_gpu, check.optional))
        return
    # The process did not die in a check, so another process would die in the same way.
    if IMPORT not in progress.names:
        progress.results.append(Result(IMPORT, "failed", cause, needs_gpu=False))
    _mark_untested(progress, checks, "the process that runs the checks does not start")


def _start_worker(
    installation: Installation, checks: Sequence[Check], program: Sequence[str], folder: Path
) -> tuple[int, str]:
    """Run a worker process to its end; return its exit status (124 after a timeout) and its output."""
    job = folder / "job.json"
    site = str(installation.site) if installation.site else None
    job.write_text(json.dumps({"folder": str(folder), "site": site, "checks": [check.name for check in checks]}))
    command = [str(installation.interpreter), "-I", "-B", *program, str(job)]
    try:
        completed = subprocess.run(
            command,
            env=machine.worker_environment(folder),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_WORKER_TIMEOUT_SECONDS,
            check=False,
        )
        returncode, output = completed.returncode, completed.stdout
    except subprocess.TimeoutExpired as error:
        returncode, output = 124, error.stdout or b""
    return returncode, output.decode("utf-8", "replace")


def _mark_untested(progress: Progress, checks: Iterable[Check], reason: str) -> None:
    """Add the result "untested" for every check that has no result."""
    for check in checks:
        if check.name not in progress.names:
            progress.results.append(Result(check.name, "untested", reason, 0.0, check.needs_gpu, check.optional))


def _describe_exit(returncode: int) -> str:
    try:
        return signal.Signals(-returncode).name if returncode < 0 else f"exit status {returncode}"
    except ValueError:
        return f"signal {-returncode}"


def _shorten(output: str) -> str:
    """Return the first lines of faulthandler's traceback if there is one, else the last lines of the output."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    for number, line in enumerate(lines):
        if line.startswith(_FAULTHANDLER_PREFIXES):
            return " | ".join(lines[number : number + _KEPT_LINES])
    return " | ".join(lines[-_KEPT_LINES:])


def _sort_results(progress: Progress, checks: Sequence[Check]) -> list[Result]:
    """Return the results in the order of the checks, after those of installing and importing."""
    order = {check.name: number for number, check in enumerate(checks)}
    return sorted(progress.results, key=lambda result: order.get(result.name, -1))


def _load_pictures(scratch: Path, checks: Sequence[Check]) -> dict[str, Any]:
    """Return the images that the workers wrote, by caption, in the order of the checks."""
    order = {check.name: number for number, check in enumerate(checks)}
    files = [(file.stem.partition("--"), file) for file in scratch.glob("*/*--*.npy")]
    files.sort(key=lambda one: (order.get(one[0][0], -1), one[1].name))
    return {f"{check}: {image}": np.load(file) for (check, _, image), file in files}
