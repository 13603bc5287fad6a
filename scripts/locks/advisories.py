"""Ask a vulnerability service about everything that is locked, by pip-audit, less requirements/waivers.yaml.

nox -s audit_locks -- [NAME...] [--service URL]

Only names and versions are sent. Exit status 0: nothing is known, or it is waived; 22: an advisory, a waiver that has
expired or is malformed; 3: the service could not be asked.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any

from packaging.utils import canonicalize_name
from packaging.version import Version
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from scripts import console
from scripts.errors import AdvisoryError, CommandError, PipelineError, UntestedError
from scripts.locks import generate, lockfile
from scripts.matrix import yaml_document
from scripts.model import ROOT
from scripts.support.command_line import run_main
from scripts.support.process import call

WAIVERS = ROOT / "requirements" / "waivers.yaml"
SERVICE = "https://api.osv.dev/v1/query"
_DAY = r"^\d{4}-\d{2}-\d{2}$"

Pinned = tuple[str, str]


class Waiver(BaseModel):
    """An advisory that is let pass until ``expires``, the first day on which it no longer is."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    package: Annotated[str, Field(min_length=1)]
    advisory: Annotated[str, Field(min_length=1)]
    reason: Annotated[str, Field(min_length=20)]
    expires: Annotated[str, Field(pattern=_DAY)]

    def holds(self, today: date) -> bool:
        """Whether it has not expired."""
        return today < date.fromisoformat(self.expires)


@dataclass(frozen=True)
class Advisory:
    """What a service knows about a pinned version; ``names`` are all that the advisory goes by."""

    package: str
    version: str
    names: tuple[str, ...]
    fixed: tuple[str, ...]

    def waiver(self, waivers: Iterable[Waiver]) -> Waiver | None:
        """The waiver that is about it, expired or not."""
        about = (one for one in waivers if canonicalize_name(one.package) == self.package)
        return next((one for one in about if one.advisory in self.names), None)

    def __str__(self) -> str:
        fixed = f"fixed in {', '.join(self.fixed)}" if self.fixed else "no fix is known"
        return f"{self.package} {self.version}: {' '.join(self.names)}, {fixed}"


def read_waivers(path: Path = WAIVERS) -> tuple[Waiver, ...]:
    """The recorded waivers.

    Raises:
        AdvisoryError: the file is malformed; every problem with its place.
    """
    hint = f"correct {path.name}; its first lines say what a waiver is"
    try:
        document = yaml_document.read(path)
        waivers = _waivers(document)
        yaml_document.raise_problems(document.problems)
    except PipelineError as error:
        raise AdvisoryError(str(error), hint=hint) from error
    return waivers


def _waivers(document: yaml_document.Document) -> tuple[Waiver, ...]:
    data = document.data
    if not isinstance(data, dict) or list(data) != ["waivers"] or not isinstance(data["waivers"], list):
        document.report((), "must hold the list `waivers` and nothing else")
        return ()
    found = []
    for number, one in enumerate(data["waivers"]):
        try:
            waiver = Waiver.model_validate(one)
            date.fromisoformat(waiver.expires)
            found.append(waiver)
        except ValidationError as error:
            for problem in error.errors():
                document.report(("waivers", number, *problem["loc"]), problem["msg"])
        except ValueError as error:
            document.report(("waivers", number, "expires"), str(error))
    return tuple(found)


def pinned(chosen: Iterable[generate.Lock]) -> dict[Pinned, list[str]]:
    """(name, public version) of everything in the locks that there are, and the locks that pin it."""
    found: dict[Pinned, list[str]] = defaultdict(list)
    for lock in chosen:
        # An advisory is about a project on the package index; NVIDIA's archives have none.
        if isinstance(lock, generate.RequirementsLock) and lock.output.is_file():
            for pin in lockfile.read_lock(lock.output):
                found[pin.name, Version(pin.version).public].append(lock.name)
    return dict(found)


def rounds(pins: Iterable[Pinned]) -> list[list[Pinned]]:
    """The pins in as few lists as have each name but once: a requirement file takes no two versions."""
    lists: list[dict[str, str]] = []
    for name, version in sorted(pins):
        fitting = next((one for one in lists if name not in one), None)
        if fitting is None:
            fitting = {}
            lists.append(fitting)
        fitting[name] = version
    return [sorted(one.items()) for one in lists]


def ask(pins: Sequence[Pinned], service: str) -> list[Advisory]:
    """What ``service`` (the address of an OSV query) knows about the pins, each name once.

    Raises:
        UntestedError: it could not be asked, or did not answer for every pin.
    """
    with tempfile.TemporaryDirectory(prefix="nvdiffrast-advisories-") as folder:
        requirements, answers = Path(folder, "requirements.txt"), Path(folder, "answers.json")
        requirements.write_text("".join(f"{name}=={version}\n" for name, version in pins), encoding="utf-8")
        command: list[str | os.PathLike[str]] = [sys.executable, "-m", "pip_audit", "--requirement", requirements]
        command += ["--no-deps", "--disable-pip"]
        command += ["--vulnerability-service", "osv", "--osv-url", service, "--cache-dir", Path(folder, "cache")]
        command += ["--format", "json", "--output", answers, "--progress-spinner", "off"]
        try:
            output = call(command, echo=False, quiet=True)
        except CommandError as error:
            # It exits 1 for advisories too: then there are answers.
            output = error.output
        if not answers.is_file():
            last = output.strip().splitlines()[-1:] or ["pip-audit said nothing"]
            raise UntestedError(
                f"{service} could not be asked: {last[0][:300]}",
                hint="run it where the service is reachable, or name another: --service URL",
            )
        return _advisories(json.loads(answers.read_text(encoding="utf-8")), pins)


def _advisories(answers: Mapping[str, Any], pins: Sequence[Pinned]) -> list[Advisory]:
    answered: dict[Pinned, Any] = {
        (canonicalize_name(one["name"]), one.get("version", "")): one for one in answers["dependencies"]
    }
    missing = [f"{name} {version}" for name, version in pins if (name, version) not in answered]
    if missing:
        raise UntestedError(f"no answer about {', '.join(missing)}")
    return [
        Advisory(name, version, (known["id"], *sorted(known["aliases"])), tuple(known["fix_versions"]))
        for name, version in pins
        for known in answered[name, version]["vulns"]
    ]


def judge(advisories: Iterable[Advisory], waivers: Sequence[Waiver], pins: Mapping[Pinned, list[str]]) -> int:
    """Print every advisory with the locks that it concerns, and return how many are not waived."""
    today = datetime.now(UTC).date()
    open_, used = 0, set()
    for advisory in advisories:
        waiver = advisory.waiver(waivers)
        concerned = ", ".join(pins[advisory.package, advisory.version])
        if waiver is not None:
            used.add(waiver)
        if waiver is not None and waiver.holds(today):
            console.mark("info", f"{advisory}; waived until {waiver.expires}: {waiver.reason}")
            continue
        expired = f"; its waiver has expired on {waiver.expires}" if waiver else ""
        console.mark("failed", f"{advisory}; locked in {concerned}{expired}")
        open_ += 1
    for waiver in waivers:
        if waiver not in used:
            console.mark("info", f"{waiver.advisory} is waived for {waiver.package}, and nothing that was asked has it")
    return open_


def main() -> int:
    """``nox -s audit_locks -- [NAME...]``."""
    parser = argparse.ArgumentParser(prog="nox -s audit_locks --", description="Ask about what is locked.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="locks, as `nox -s lock` names them; default: all")
    parser.add_argument("--service", default=SERVICE, metavar="URL", help="where OSV queries go")
    parsed = parser.parse_args()
    waivers = read_waivers()
    pins = pinned(generate.select(parsed.names))
    advisories = [one for some in rounds(pins) for one in ask(some, parsed.service)]
    unwaived = judge(advisories, waivers, pins)
    if unwaived:
        raise AdvisoryError(
            f"advisories about what is locked that nothing waives: {unwaived}",
            hint="waive it in requirements/waivers.yaml, or raise the locks: nox -s lock -- --upgrade",
        )
    console.mark("passed", f"{len(pins)} pinned versions: {len(advisories)} advisories, all waived")
    return 0


if __name__ == "__main__":
    run_main(main)
