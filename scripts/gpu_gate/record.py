"""The gate's record of a wheel: `records/<sha256>.gpu.json`, and the contact sheet `records/<sha256>.gpu.png`."""

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

OverallState = Literal["passed", "failed", "untested"]

SCHEMA = 1
FOLDER = "records"


@dataclass(frozen=True)
class Result:
    """The result of one check in a record; ``seconds`` is wall time. See bench.Check and bench.Outcome."""

    name: str
    state: State
    detail: str
    seconds: float = 0.0
    needs_gpu: bool = True
    optional: bool = False
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class GpuRecord:
    """The results of all checks of one wheel on one machine.

    Attributes:
        schema: The version of this format.
        wheel: The file name of the wheel.
        sha256: The sha256 of the wheel.
        outcome: The overall state.
        device: The GPU; empty if there is no GPU.
        driver: The driver's version; empty if there is no GPU.
        time: When the record was made, UTC in ISO 8601.
        versions: The versions of Python, torch, CUDA and so on.
        checks: The result of every check.
        sheet: The sha256 of the contact sheet; empty if nothing was drawn.
    """

    schema: int
    wheel: str
    sha256: str
    outcome: OverallState
    device: str
    driver: str
    time: str
    versions: Mapping[str, str]
    checks: tuple[Result, ...]
    sheet: str = ""

    def contradiction(self) -> str:
        """Return why the record contradicts itself, or an empty string if it does not."""
        expected = overall_state(self.checks)
        if self.outcome != expected:
            return f"states {self.outcome}, but its checks make it {expected}"
        if self.outcome == "passed" and not (self.device and self.driver):
            return "states passed, but names no device and driver"
        if self.outcome == "passed" and not self.sheet:
            return "states passed, but has no contact sheet"
        return ""


def overall_state(results: Iterable[Result]) -> OverallState:
    """Return the state of a wheel from the results of its checks.

    "failed" if any check failed; else "untested" if a check that is not optional is untested, or if no check passed on
    a GPU; else "passed".
    """
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
    """Create a record with the current time.

    ``machine`` contains "device" and "driver" if there is a GPU (see machine.gpu); ``sheet`` is the contact sheet as
    PNG.
    """
    checks = tuple(results)
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    sheet_sha256 = hashlib.sha256(sheet).hexdigest() if sheet else ""
    return GpuRecord(
        schema=SCHEMA,
        wheel=wheel,
        sha256=sha256,
        outcome=overall_state(checks),
        device=machine.get("device", ""),
        driver=machine.get("driver", ""),
        time=now,
        versions=dict(versions),
        checks=checks,
        sheet=sheet_sha256,
    )


def to_json(record: GpuRecord) -> str:
    """Return the record as JSON."""
    return json.dumps(asdict(record), indent=2, sort_keys=True) + "\n"


def path(sha256: str, folder: Path) -> Path:
    """Return the path of the record of the wheel with that sha256 below ``folder``."""
    return folder / FOLDER / f"{sha256}.gpu.json"


def sheet_path(sha256: str, folder: Path) -> Path:
    """Return the path of the contact sheet of the wheel with that sha256 below ``folder``."""
    return folder / FOLDER / f"{sha256}.gpu.png"


def write(file: Path, content: bytes) -> None:
    """Write a file atomically; replace an existing one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f"{file.name}.new")
    temporary.write_bytes(content)
    temporary.replace(file)


def sha256_of(file: Path) -> str:
    """Return the sha256 of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def exit_code(record: GpuRecord) -> int:
    """Return the exit status: 0 if all checks passed, 1 if a check failed, 3 if none failed but some are untested."""
    return {"passed": 0, "failed": 1, "untested": 3}[record.outcome]


def summary_lines(record: GpuRecord) -> list[tuple[State, str]]:
    """Return the lines that show a record to the user, each with its state; the last line is the overall state.

    Consecutive untested checks with the same reason share one line.
    """
    untested = groupby((check for check in record.checks if check.state == "untested"), lambda check: check.detail)
    lines: list[tuple[State, str]] = [
        (check.state, f"{check.name}: {check.detail or check.state}")
        for check in record.checks
        if check.state != "untested"
    ]
    lines += [("untested", f"{', '.join(check.name for check in group)}: {reason}") for reason, group in untested]
    counts = {state: sum(check.state == state for check in record.checks) for state in STATES}
    summary = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    device = f"{record.device} (driver {record.driver})" if record.device else "no GPU"
    return [*lines, (record.outcome, f"{record.outcome}: {record.wheel} on {device}: {summary}")]
