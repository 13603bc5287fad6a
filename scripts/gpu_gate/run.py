"""Runs the checks of the gate in processes of their own, and makes the record of what they found."""

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

# Seconds for everything; a check that hangs ends much earlier.
_PATIENCE = 3600.0
_LINES = 6
# How faulthandler begins.
_ENDS = ("Fatal Python error", "Timeout (", "Windows fatal exception")


@dataclass(frozen=True)
class Installed:
    """A wheel and where it is installed: in ``site``, or where ``interpreter`` looks anyway."""

    name: str
    sha256: str
    interpreter: Path
    site: Path | None
    how: Result


@dataclass
class Found:
    """What has been told so far; ``begun`` is the check that began last."""

    results: list[Result] = field(default_factory=list)
    machine: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    begun: str = ""

    def read(self, file: Path) -> None:
        """Take in a worker's lines; a torn last one is none."""
        self.begun = ""
        for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
            try:
                self._take(json.loads(line))
            except ValueError:
                break

    def _take(self, told: dict[str, Any]) -> None:
        if "machine" in told:
            self.machine, self.versions = told["machine"], told["versions"]
        elif "start" in told:
            self.begun = told["start"]
        elif told["result"]["name"] not in self.names:
            self.results.append(Result(**told["result"]))

    @property
    def names(self) -> set[str]:
        """What has a result."""
        return {result.name for result in self.results}


def run(installed: Installed, checks: Sequence[Check], program: Sequence[str], folder: Path, output: Path) -> GpuRecord:
    """Make every check of an installed wheel; the record and the contact sheet are written below ``output``.

    ``program`` is what a worker is started with, to which the file of its order is added; ``folder`` is for scratch.
    """
    found = Found([installed.how])
    if installed.how.state == "failed":
        _give_up(found, checks, "not installed")
    todo = [check for check in checks if check.name not in found.names]
    for turn in range(len(checks) + 1):
        if not todo:
            break
        _one_worker(installed, todo, program, folder / str(turn), found)
        todo = [check for check in checks if check.name not in found.names]
    pictures = _pictures(folder, checks)
    sheet = contact_sheet(pictures)
    made = record.make(
        installed.name, installed.sha256, found.machine, found.versions, _in_order(found, checks), sheet=sheet
    )
    if sheet:
        record.write(record.sheet_path(made.sha256, output), sheet)
    record.write(record.path(made.sha256, output), record.text(made).encode())
    return made


def _one_worker(
    installed: Installed, todo: Sequence[Check], program: Sequence[str], folder: Path, found: Found
) -> None:
    """Have a fresh process make the checks; where it dies, the check that it was at has failed."""
    folder.mkdir(parents=True)
    order = folder / "order.json"
    site = str(installed.site) if installed.site else None
    order.write_text(json.dumps({"folder": str(folder), "site": site, "checks": [check.name for check in todo]}))
    command = [str(installed.interpreter), "-I", "-B", *program, str(order)]
    try:
        done = subprocess.run(
            command,
            env=machine.surroundings(folder),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_PATIENCE,
            check=False,
        )
        code, said = done.returncode, done.stdout
    except subprocess.TimeoutExpired as expired:
        code, said = 124, expired.stdout or b""
    before = found.names
    found.read(folder / "results.jsonl")
    if code == 0 and found.names != before:
        return
    cause = f"the process died: {_ended(code)}: {_telling(said.decode('utf-8', 'replace'))}"
    known = {check.name: check for check in todo}
    if found.begun in known and found.begun not in found.names:
        check = known[found.begun]
        found.results.append(Result(check.name, "failed", cause, 0.0, check.needs_gpu, check.optional))
        return
    # It ended in no check: another would end as this one did.
    if IMPORT not in found.names:
        found.results.append(Result(IMPORT, "failed", cause, needs_gpu=False))
    _give_up(found, todo, "the process that makes the checks does not start")


def _give_up(found: Found, checks: Iterable[Check], why: str) -> None:
    for check in checks:
        if check.name not in found.names:
            found.results.append(Result(check.name, "untested", why, 0.0, check.needs_gpu, check.optional))


def _ended(code: int) -> str:
    try:
        return signal.Signals(-code).name if code < 0 else f"exit status {code}"
    except ValueError:
        return f"signal {-code}"


def _telling(said: str) -> str:
    """The lines that tell most: where Python was when it was ended, or else the last ones."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    for place, line in enumerate(lines):
        if line.startswith(_ENDS):
            return " | ".join(lines[place : place + _LINES])
    return " | ".join(lines[-_LINES:])


def _in_order(found: Found, checks: Sequence[Check]) -> list[Result]:
    places = {check.name: place for place, check in enumerate(checks)}
    return sorted(found.results, key=lambda result: places.get(result.name, -1))


def _pictures(folder: Path, checks: Sequence[Check]) -> dict[str, Any]:
    """The pictures that the workers left, by caption, in the order of the checks."""
    places = {check.name: place for place, check in enumerate(checks)}
    files = [(file.stem.partition("--"), file) for file in folder.glob("*/*--*.npy")]
    files.sort(key=lambda one: (places.get(one[0][0], -1), one[1].name))
    return {f"{name}: {what}": np.load(file) for (name, _, what), file in files}
