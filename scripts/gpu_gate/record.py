"""What the gate writes down about a wheel: `records/<sha256>.gpu.json`, and a contact sheet beside it."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Literal

from .bench import STATES, State

Verdict = Literal["passed", "failed", "untested"]

SCHEMA = 1
FOLDER = "records"


@dataclass(frozen=True)
class Result:
    """What came of one check; ``seconds`` of wall time. For the rest see bench.Check and bench.Outcome."""

    name: str
    state: State
    detail: str
    seconds: float = 0.0
    needs_gpu: bool = True
    optional: bool = False
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class GpuRecord:
    """What a GPU said of a wheel.

    ``device`` and ``driver`` are empty where there was none, ``versions`` are those of Python, torch, CUDA and the
    rest, ``time`` is UTC in ISO 8601, ``sheet`` the sha256 of the contact sheet, empty where nothing was drawn.
    """

    schema: int
    wheel: str
    sha256: str
    outcome: Verdict
    device: str
    driver: str
    time: str
    versions: Mapping[str, str]
    checks: tuple[Result, ...]
    sheet: str = ""

    def contradiction(self) -> str:
        """Why the record cannot be believed, or nothing."""
        borne_out = verdict(self.checks)
        if self.outcome != borne_out:
            return f"states {self.outcome}, but its checks make it {borne_out}"
        if self.outcome == "passed" and not (self.device and self.driver):
            return "states passed, but names no device and driver"
        if self.outcome == "passed" and not self.sheet:
            return "states passed, but has no contact sheet"
        return ""


def verdict(results: Iterable[Result]) -> Verdict:
    """failed if any check failed, else untested if one that is not optional is, or if no GPU was asked; else passed."""
    found = list(results)
    if any(result.state == "failed" for result in found):
        return "failed"
    if any(result.state == "untested" and not result.optional for result in found):
        return "untested"
    return "passed" if any(result.needs_gpu and result.state == "passed" for result in found) else "untested"


def make(
    wheel: str,
    sha256: str,
    machine: Mapping[str, str],
    versions: Mapping[str, str],
    results: Iterable[Result],
    *,
    sheet: bytes = b"",
) -> GpuRecord:
    """The record of now; ``machine`` has "device" and "driver" where there is a GPU, ``sheet`` is the PNG."""
    checks = tuple(results)
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    sheet_sha256 = hashlib.sha256(sheet).hexdigest() if sheet else ""
    device, driver = machine.get("device", ""), machine.get("driver", "")
    return GpuRecord(SCHEMA, wheel, sha256, verdict(checks), device, driver, now, dict(versions), checks, sheet_sha256)


def text(record: GpuRecord) -> str:
    """The record as JSON."""
    return json.dumps(asdict(record), indent=2, sort_keys=True) + "\n"


def path(sha256: str, folder: Path) -> Path:
    """Where the record about the wheel of that sha256 belongs below ``folder``."""
    return folder / FOLDER / f"{sha256}.gpu.json"


def sheet_path(sha256: str, folder: Path) -> Path:
    """Where its contact sheet belongs."""
    return folder / FOLDER / f"{sha256}.gpu.png"


def write(file: Path, content: bytes) -> None:
    """Write a file whole or not at all, over an earlier one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f"{file.name}.new")
    beside.write_bytes(content)
    beside.replace(file)


def sha256_of(file: Path) -> str:
    """The sha256 of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def exit_code(record: GpuRecord) -> int:
    """0: all passed; 1: a check failed; 3: nothing failed, but no GPU was asked or something else is untested."""
    return {"passed": 0, "failed": 1, "untested": 3}[record.outcome]


def lines(record: GpuRecord) -> list[tuple[State, str]]:
    """What is shown of a record: the state and text of each line; what lacks the same thing is one line."""
    lacking = groupby((one for one in record.checks if one.state == "untested"), lambda one: one.detail)
    shown: list[tuple[State, str]] = [
        (one.state, f"{one.name}: {one.detail or one.state}") for one in record.checks if one.state != "untested"
    ]
    shown += [("untested", f"{', '.join(one.name for one in group)}: {detail}") for detail, group in lacking]
    counts = {state: sum(result.state == state for result in record.checks) for state in STATES}
    counted = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    where = f"{record.device} (driver {record.driver})" if record.device else "no GPU"
    return [*shown, (record.outcome, f"{record.outcome}: {record.wheel} on {where}: {counted}")]
