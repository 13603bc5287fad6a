"""torch_builds.yaml: which torch builds exist. `observe` writes it, `matrix` checks every combination against it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packaging.version import Version
from pydantic import BaseModel, ConfigDict, ValidationError

from scripts.errors import MatrixError
from scripts.matrix import yaml_document
from scripts.model import ROOT, cuda_tag, version_line

PATH = ROOT / "torch_builds.yaml"
PYTORCH_CHANNEL = "https://download.pytorch.org/whl/"
"""Where PyTorch publishes torch for a CUDA, with the CUDA's tag ("cu130") behind it."""
Pythons = Mapping[str, tuple[str, ...]]
"""Platform name -> CPython lines."""

_HEAD = """\
# Which torch builds exist. `nox -s observe` refreshes this file from package indexes; the matrix is checked against it.
# channels: PyTorch's own channel of a CUDA tag; one that says `declared` was never observed, and says on whose word.
# pypi: the plain wheels of PyPI, Linux alone (those for Windows are CPU builds), with the CUDA they were built with.
"""


class _Raw(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _RawChannel(_Raw):
    observed: str | None = None
    declared: str | None = None
    builds: dict[str, dict[str, tuple[str, ...]]]


class _RawPlain(_Raw):
    cuda: str
    linux_x86_64: tuple[str, ...]


class _RawPypi(_Raw):
    observed: str
    builds: dict[str, _RawPlain]


class _RawTable(_Raw):
    channels: dict[str, _RawChannel]
    pypi: _RawPypi


@dataclass(frozen=True)
class Channel:
    """PyTorch's channel of one CUDA tag: torch version -> platform -> CPython lines.

    Either ``observed`` (an ISO date) or ``declared`` (on whose word) is set.
    """

    builds: Mapping[str, Pythons]
    observed: str | None = None
    declared: str | None = None


@dataclass(frozen=True)
class Plain:
    """One plain torch of PyPI for Linux x86-64: the CUDA it was built with ("13.0.2") and its CPython lines."""

    cuda: str
    pythons: tuple[str, ...]


@dataclass(frozen=True)
class TorchTable:
    """CUDA tag -> channel, torch version -> plain build; ``pypi_observed`` is an ISO date."""

    channels: Mapping[str, Channel]
    pypi: Mapping[str, Plain]
    pypi_observed: str

    @property
    def date(self) -> str:
        """What was observed when, for people."""
        dates = {channel.observed for channel in self.channels.values() if channel.observed}
        return f"channels {', '.join(sorted(dates)) or 'never observed'}; PyPI {self.pypi_observed}"

    @property
    def oldest(self) -> str | None:
        """The date of the oldest observation in the table, None if no channel was ever observed."""
        dates = [channel.observed for channel in self.channels.values()]
        observed = [date for date in dates if date]
        return min([*observed, self.pypi_observed]) if observed else None

    def observed(self, tag: str) -> str | None:
        """Return since when the table is right about a CUDA tag ("cu130"), PyPI included; None if never observed."""
        channel = self.channels.get(tag)
        return min(channel.observed, self.pypi_observed) if channel and channel.observed else None

    def origin(self, cuda: str, torch: str, platform: str, python: str) -> Literal["pypi", "pytorch"] | None:
        """Who publishes that torch for CUDA ("13.0"): PyPI (a plain wheel of that CUDA), a channel, or none.

        ``platform`` is a name as in cell ids, ``python`` a line ("3.12").
        """
        plain = self.pypi.get(torch)
        if platform == "linux_x86_64" and plain and version_line(plain.cuda) == cuda and python in plain.pythons:
            return "pypi"
        return "pytorch" if python in self._channel(cuda, torch).get(platform, ()) else None

    def pythons(self, cuda: str, torch: str, platform: str) -> tuple[str, ...]:
        """The CPython lines that this torch exists for, in order."""
        plain = self.pypi.get(torch)
        found = set(self._channel(cuda, torch).get(platform, ()))
        if platform == "linux_x86_64" and plain and version_line(plain.cuda) == cuda:
            found |= set(plain.pythons)
        return tuple(sorted(found, key=Version))

    def _channel(self, cuda: str, torch: str) -> Pythons:
        channel = self.channels.get(cuda_tag(cuda))
        return channel.builds.get(torch, {}) if channel else {}


def load(path: Path = PATH) -> TorchTable:
    """Read the table.

    Raises:
        MatrixError: it is not there or not a table; all problems, each with its place.
    """
    document = yaml_document.read(path)
    yaml_document.raise_problems(document.problems)
    try:
        raw = _RawTable.model_validate(document.data)
    except ValidationError as error:
        for one in error.errors():
            document.report(one["loc"], one["msg"])
        yaml_document.raise_problems(document.problems)
        raise MatrixError(f"{path}: {error}") from error
    return TorchTable(
        {tag: Channel(channel.builds, channel.observed, channel.declared) for tag, channel in raw.channels.items()},
        {version: Plain(plain.cuda, plain.linux_x86_64) for version, plain in raw.pypi.builds.items()},
        raw.pypi.observed,
    )


def dump(table: TorchTable) -> str:
    """The file's text; :func:`load` of it gives an equal table."""
    lines = [_HEAD + "channels:"]
    for tag in sorted(table.channels, key=lambda tag: int(tag[2:])):
        channel = table.channels[tag]
        key, value = ("observed", channel.observed) if channel.observed else ("declared", channel.declared)
        lines += [f"  {tag}:", f"    {key}: {json.dumps(value)}", "    builds:"]
        for version in sorted(channel.builds, key=Version):
            lines.append(f"      {json.dumps(version)}: {_flow(channel.builds[version])}")
    lines += ["pypi:", f"  observed: {json.dumps(table.pypi_observed)}", "  builds:"]
    for version in sorted(table.pypi, key=Version):
        plain = table.pypi[version]
        inner = f"cuda: {json.dumps(plain.cuda)}, linux_x86_64: {json.dumps(plain.pythons)}"
        lines.append(f"    {json.dumps(version)}: {{{inner}}}")
    return "\n".join(lines) + "\n"


def _flow(pythons: Pythons) -> str:
    return "{" + ", ".join(f"{name}: {json.dumps(pythons[name])}" for name in sorted(pythons)) + "}"
