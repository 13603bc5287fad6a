"""torch_builds.yaml, the table of published torch builds: `observe` writes it, `matrix` checks cells against it."""

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
"""The URL of PyTorch's channels; the CUDA tag ("cu130") is appended to it."""
Pythons = Mapping[str, tuple[str, ...]]
"""Platform name -> CPython lines."""

_HEAD = """\
# The published torch builds. `nox -s observe` updates this file from package indexes; the matrix is checked against it.
# channels: PyTorch's channel of each CUDA tag. A channel with `declared` was never observed; the text names the source.
# pypi: the wheels on PyPI for Linux, with the CUDA they were built with. Those for Windows are CPU builds.
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
    """PyTorch's channel of one CUDA tag; ``builds`` maps torch version -> platform -> CPython lines.

    Either ``observed`` (an ISO date) or ``declared`` (the source of the data) is set.
    """

    builds: Mapping[str, Pythons]
    observed: str | None = None
    declared: str | None = None


@dataclass(frozen=True)
class Plain:
    """A torch version on PyPI for Linux x86-64: the CUDA it was built with ("13.0.2") and its CPython lines."""

    cuda: str
    pythons: tuple[str, ...]


@dataclass(frozen=True)
class TorchTable:
    """The table: CUDA tag -> channel, and torch version -> build on PyPI; ``pypi_observed`` is an ISO date."""

    channels: Mapping[str, Channel]
    pypi: Mapping[str, Plain]
    pypi_observed: str

    @property
    def date(self) -> str:
        """Return a text with the dates of observation."""
        dates = {channel.observed for channel in self.channels.values() if channel.observed}
        return f"channels {', '.join(sorted(dates)) or 'never observed'}; PyPI {self.pypi_observed}"

    @property
    def oldest(self) -> str | None:
        """Return the date of the oldest observation in the table, or None if no channel was ever observed."""
        dates = [channel.observed for channel in self.channels.values()]
        observed = [date for date in dates if date]
        return min([*observed, self.pypi_observed]) if observed else None

    def observed(self, tag: str) -> str | None:
        """Return the date of the last observation for a CUDA tag ("cu130"), PyPI included, or None."""
        channel = self.channels.get(tag)
        return min(channel.observed, self.pypi_observed) if channel and channel.observed else None

    def origin(self, cuda: str, torch: str, platform: str, python: str) -> Literal["pypi", "pytorch"] | None:
        """Return the publisher of that torch for CUDA ``cuda`` ("13.0"), or None if the build does not exist.

        ``platform`` is a name as in cell ids, ``python`` a version line ("3.12").
        """
        plain = self.pypi.get(torch)
        if platform == "linux_x86_64" and plain and version_line(plain.cuda) == cuda and python in plain.pythons:
            return "pypi"
        return "pytorch" if python in self._channel(cuda, torch).get(platform, ()) else None

    def pythons(self, cuda: str, torch: str, platform: str) -> tuple[str, ...]:
        """Return the CPython lines for which this torch exists, in ascending order."""
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
        MatrixError: if the file is missing or invalid. The message names the position of every problem.
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
    """Return the content of the file; :func:`load` of it returns an equal table."""
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
