"""Query a vulnerability service for all locked versions with pip-audit, and apply requirements/waivers.yaml.

nox -s audit_locks -- [NAME...] [--service URL]

Only names and versions are sent. Exit status 0: no advisory, or all are waived; 22: an advisory without a waiver, an
expired waiver or a malformed one; 3: the service could not be queried.
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
    """An advisory that is accepted before the day ``expires``."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    package: Annotated[str, Field(min_length=1)]
    advisory: Annotated[str, Field(min_length=1)]
    reason: Annotated[str, Field(min_length=20)]
    expires: Annotated[str, Field(pattern=_DAY)]

    def is_valid(self, today: date) -> bool:
        """Return whether the waiver has not expired."""
        return today < date.fromisoformat(self.expires)


@dataclass(frozen=True)
class Advisory:
    """An advisory about a pinned version; ``names`` are all ids of the advisory, ``fixed`` the versions with a fix."""

    package: str
    version: str
    names: tuple[str, ...]
    fixed: tuple[str, ...]

    def waiver(self, waivers: Iterable[Waiver]) -> Waiver | None:
        """Return the waiver for this advisory, expired or not, or None."""
        of_package = (one for one in waivers if canonicalize_name(one.package) == self.package)
        return next((one for one in of_package if one.advisory in self.names), None)

    def __str__(self) -> str:
        fixed = f"fixed in {', '.join(self.fixed)}" if self.fixed else "no fix is known"
        return f"{self.package} {self.version}: {' '.join(self.names)}, {fixed}"


def read_waivers(path: Path = WAIVERS) -> tuple[Waiver, ...]:
    """Read the waivers.

    Raises:
        AdvisoryError: if the file is malformed. The message names the position of every problem.
    """
    hint = f"correct {path.name}; its first lines describe a waiver"
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
        document.report((), "must contain the list `waivers` and nothing else")
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
    """Return (name, public version) -> the names of the locks that pin it, for all locks that exist."""
    found: dict[Pinned, list[str]] = defaultdict(list)
    for lock in chosen:
        # Advisories concern projects on PyPI, not NVIDIA's archives.
        if isinstance(lock, generate.RequirementsLock) and lock.output.is_file():
            for pin in lockfile.read_lock(lock.output):
                found[pin.name, Version(pin.version).public].append(lock.name)
    return dict(found)


def split_versions(pins: Iterable[Pinned]) -> list[list[Pinned]]:
    """Return the pins in lists with one version per name, because a requirement file allows no second version."""
    lists: list[dict[str, str]] = []
    for name, version in sorted(pins):
        fitting = next((one for one in lists if name not in one), None)
        if fitting is None:
            fitting = {}
            lists.append(fitting)
        fitting[name] = version
    return [sorted(one.items()) for one in lists]


def query(pins: Sequence[Pinned], service: str) -> list[Advisory]:
    """Return the advisories of ``service`` (the URL of OSV queries) about pins with distinct names.

    Raises:
        UntestedError: if the service cannot be queried, or does not answer for every pin.
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
            # pip-audit also exits with 1 if it finds advisories; then it has written the answers.
            output = error.output
        if not answers.is_file():
            last = output.strip().splitlines()[-1:] or ["pip-audit printed nothing"]
            raise UntestedError(
                f"{service} could not be queried: {last[0][:300]}",
                hint="run it where the service can be reached, or use another one: --service URL",
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


def report(advisories: Iterable[Advisory], waivers: Sequence[Waiver], pins: Mapping[Pinned, list[str]]) -> int:
    """Print every advisory with the locks that it concerns, and return how many have no valid waiver."""
    today = datetime.now(UTC).date()
    unwaived, used = 0, set()
    for advisory in advisories:
        waiver = advisory.waiver(waivers)
        concerned = ", ".join(pins[advisory.package, advisory.version])
        if waiver is not None:
            used.add(waiver)
        if waiver is not None and waiver.is_valid(today):
            console.mark("info", f"{advisory}; waived until {waiver.expires}: {waiver.reason}")
            continue
        expired = f"; its waiver expired on {waiver.expires}" if waiver else ""
        console.mark("failed", f"{advisory}; locked in {concerned}{expired}")
        unwaived += 1
    for waiver in waivers:
        if waiver not in used:
            console.mark("info", f"{waiver.advisory} is waived for {waiver.package}, but no queried version has it")
    return unwaived


def main() -> int:
    """``nox -s audit_locks -- [NAME...]``."""
    parser = argparse.ArgumentParser(
        prog="nox -s audit_locks --", description="Query advisories about all locked versions."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="locks, as `nox -s lock` names them; default: all")
    parser.add_argument("--service", default=SERVICE, metavar="URL", help="the URL of OSV queries")
    parsed = parser.parse_args()
    waivers = read_waivers()
    pins = pinned(generate.select(parsed.names))
    advisories = [advisory for part in split_versions(pins) for advisory in query(part, parsed.service)]
    unwaived = report(advisories, waivers, pins)
    if unwaived:
        raise AdvisoryError(
            f"advisories without a valid waiver: {unwaived}",
            hint="waive it in requirements/waivers.yaml, or upgrade the locks: nox -s lock -- --upgrade",
        )
    console.mark("passed", f"{len(pins)} pinned versions: {len(advisories)} advisories, all waived")
    return 0


if __name__ == "__main__":
    run_main(main)
