"""Collect the data of the page's script as compact JSON: the wheels, and the reasons why other wheels do not exist."""

from __future__ import annotations

import base64
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, Generic, TypeVar

from packaging.version import InvalidVersion, Version

from scripts.index.catalog import Catalog, Entry
from scripts.index.install_commands import Commands, TorchCommands, commands, torch_commands
from scripts.matrix.matrix import Matrix
from scripts.matrix.torch_builds import TorchTable
from scripts.model import Cell, cuda_tag, cuda_version, version_line

DETAILS_UP_TO = 2000
"""Up to this many wheels, the page has their sizes and hashes; with more, the script reads the channel's index.json."""

_PLATFORMS = {"linux_x86_64": "Linux x86-64", "win_amd64": "Windows x86-64"}
_GPU = ("passed", "waived", "untested")
_MARK = re.compile("@(CUDA|TORCH|RELEASE)@")
_T = TypeVar("_T")
_Combination = tuple[str, str, str, str, str]
"""(platform, Python, torch, CUDA tag, release), in the order of the page's axes."""


@dataclass(frozen=True)
class Option:
    """An option of an axis: the URL has ``value``, the page shows ``label``."""

    value: str
    label: str


@dataclass(frozen=True)
class Axes:
    """The options of every axis in the order of the page: versions newest first."""

    system: tuple[Option, ...]
    python: tuple[Option, ...]
    torch: tuple[Option, ...]
    cuda: tuple[Option, ...]
    release: tuple[Option, ...]


def platform_label(name: str) -> str:
    """Return "Linux x86-64" for linux_x86_64; a platform without a label is returned unchanged."""
    return _PLATFORMS.get(name, name)


def cuda_label(tag: str) -> str:
    """Return "13.0" for cu130; a text that is not a CUDA tag is returned unchanged."""
    return cuda_version(tag) if tag.removeprefix("cu").isdigit() else tag


def newest_first(versions: Iterable[str]) -> list[str]:
    """Return the distinct versions, newest first; texts that are not versions come last."""

    def key(text: str) -> tuple[bool, Version, str]:
        try:
            return True, Version(text), text
        except InvalidVersion:
            return False, Version("0"), text

    return sorted(set(versions), key=key, reverse=True)


def axes(catalog: Catalog, matrix: Matrix) -> Axes:
    """Return all options that appear in the matrix or in a wheel, including options without a wheel."""
    combinations = [*map(_of_entry, catalog.entries), *_planned(matrix)]
    combinations += [combination for combination, _ in _excluded(matrix)]
    systems, pythons, torches, cudas, releases = ({one[axis] for one in combinations} for axis in range(5))
    tags = {cuda_label(tag): tag for tag in cudas}
    return Axes(
        system=tuple(Option(name, platform_label(name)) for name in sorted(systems)),
        python=tuple(Option(version, version) for version in newest_first(pythons)),
        torch=tuple(Option(version, version) for version in newest_first(torches)),
        cuda=tuple(Option(tags[label], label) for label in newest_first(tags)),
        release=tuple(Option(version, version) for version in newest_first(releases)),
    )


def data(catalog: Catalog, matrix: Matrix, builds: TorchTable, stated: Collection[str] = ()) -> dict[str, Any]:
    """Return the data of the script as values for JSON; the numbers in rows are indices into the other tables.

    ``wheels`` has one row [variant, target, architectures, gpu, waiver + 1, yanked + 1, partial] per wheel in the order
    of the catalog, without trailing zeros. ``planned`` has rows [variant, target] for cells without a published wheel,
    ``excluded`` [variant, target, reason], and ``unplanned`` [torch, CUDA, target] for torch builds that are not in the
    matrix. A variant is [version, release, CUDA, torch], a target [Python, system, end of the wheel's name].
    ``torches`` has rows [torch, CUDA, system, pip command, uv command]. ``stated`` has one character per wheel: "1" if
    the argument ``stated`` has its sha256, else "0". ``observed`` has the date of the oldest observation of torch
    builds, and a date per CUDA; null if its builds were not observed.
    """
    tables = _Tables(axes(catalog, matrix))
    published = {_of_entry(entry) for entry in catalog.entries}
    wheels = [_trimmed(tables.wheel(entry)) for entry in catalog.entries]
    planned = [tables.combination(one) for one in _planned(matrix) if one not in published]
    excluded = [
        [*tables.combination(one), tables.reasons(reason)] for one, reason in _excluded(matrix) if one not in published
    ]
    unplanned = [tables.build(*build) for build in _unplanned(tables.axes, matrix, catalog, builds)]
    return {
        "axes": [[option.value for option in tables.options(axis)] for axis in range(5)],
        "labels": [[option.label for option in tables.options(axis)] for axis in range(5)],
        "default_cuda": matrix.default_toolkit,
        "wheels": wheels,
        "planned": planned,
        "excluded": excluded,
        "unplanned": unplanned,
        "variants": tables.variants.items,
        "targets": tables.targets.items,
        "architectures": tables.architectures.items,
        "reasons": tables.reasons.items,
        "stated": "".join(str(int(entry.sha256 in stated)) for entry in catalog.entries),
        "details": _details(catalog.entries),
        "torches": list(_torches(tables, catalog, matrix, builds)),
        "observed": {"all": builds.oldest, "cuda": [builds.observed(option.value) for option in tables.axes.cuda]},
        "commands": _template(catalog.entries),
    }


@dataclass
class _Table(Generic[_T]):
    """A list of distinct items; a call returns the index of an item and adds a new item."""

    items: list[_T] = field(default_factory=list)
    _known: dict[str, int] = field(default_factory=dict)

    def __call__(self, item: _T) -> int:
        index = self._known.setdefault(repr(item), len(self.items))
        if index == len(self.items):
            self.items.append(item)
        return index


class _Tables:
    """The tables whose indices are in the rows."""

    def __init__(self, choices: Axes) -> None:
        self.axes = choices
        self.variants = _Table[list[str | int]]()
        self.targets = _Table[list[str | int]]()
        self.architectures = _Table[list[Sequence[str]]]()
        self.reasons = _Table[str]()
        self._index = [{option.value: i for i, option in enumerate(self.options(axis))} for axis in range(5)]

    def options(self, axis: int) -> tuple[Option, ...]:
        choices = self.axes
        return (choices.system, choices.python, choices.torch, choices.cuda, choices.release)[axis]

    def wheel(self, entry: Entry) -> list[int]:
        """Return the row of a wheel; its name is version and end, joined by a hyphen."""
        _project, version, end = entry.name.split("-", 2)
        indices = self.combination(_of_entry(entry), version, end)
        architectures = self.architectures([entry.sass, entry.ptx])
        reasons = (0 if reason is None else self.reasons(reason) + 1 for reason in (entry.waiver, entry.yanked))
        return [*indices, architectures, _GPU.index(entry.gpu), *reasons, int(entry.partial)]

    def combination(self, values: _Combination, version: str = "", end: str = "") -> list[int]:
        """Return the indices of variant and target; a combination without a wheel has no version and no end."""
        system, python, torch, cuda, release = (self._index[axis][value] for axis, value in enumerate(values))
        return [self.variants([version, release, cuda, torch]), self.targets([python, system, end])]

    def torch(self, entry: Entry) -> list[int]:
        """Return the indices of a wheel's torch, CUDA and system."""
        at = self._index
        return [at[2][entry.torch], at[3][entry.cuda], at[0][entry.platform]]

    def build(self, system: str, python: str, torch: str, cuda: str) -> list[int]:
        at = self._index
        return [at[2][torch], at[3][cuda], self.targets([at[1][python], at[0][system], ""])]


def _of_entry(entry: Entry) -> _Combination:
    return entry.platform, entry.python, entry.torch, entry.cuda, entry.release


def _planned(matrix: Matrix) -> Iterator[_Combination]:
    yield from map(_of_cell, matrix.cells)


def _of_cell(cell: Cell) -> _Combination:
    return cell.platform.name, cell.python, cell.torch.line, cell.toolkit.tag, cell.release.version


def _excluded(matrix: Matrix) -> Iterator[tuple[_Combination, str]]:
    """Yield the excluded combinations with the reasons; an exclusion lists the ids of its cells."""
    for exclusion in matrix.exclusions:
        for identity in exclusion.cells:
            release, tag, cuda, torch, platform = identity.split("-", 4)
            yield (platform, f"{tag[2]}.{tag[3:]}", torch.removeprefix("torch"), cuda, release), exclusion.reason


def _unplanned(
    choices: Axes, matrix: Matrix, catalog: Catalog, builds: TorchTable
) -> Iterator[tuple[str, str, str, str]]:
    """Yield (platform, Python, torch, CUDA tag) of torch builds for which neither the matrix nor a wheel exists."""
    known = {_of_entry(entry)[:4] for entry in catalog.entries} | {one[:4] for one in _planned(matrix)}
    known |= {one[:4] for one, _ in _excluded(matrix)}
    versions = _versions(builds)
    for cuda, torch, system in product(choices.cuda, choices.torch, choices.system):
        exact = versions.get((cuda.value, torch.value), ())
        pythons = {python for version in exact for python in builds.pythons(cuda.label, version, system.value)}
        builds_of = ((system.value, python.value, torch.value, cuda.value) for python in choices.python)
        yield from (build for build in builds_of if build[1] in pythons and build not in known)


def torch_commands_for(entry: Entry, matrix: Matrix, builds: TorchTable) -> TorchCommands:
    """Return the commands that install the torch of a wheel, in the version of the wheel's cell in the matrix.

    If the matrix no longer has this cell, return the commands for the newest known version of this torch line, or for
    the line ("2.9.*") if the table of builds does not have it.
    """
    build = _of_entry(entry)[:4]
    cell = next((cell for cell in matrix.cells if _of_cell(cell)[:4] == build), None)
    if cell is not None:
        return torch_commands(cell.torch.version, entry.cuda, cell.torch.origin)
    known = newest_first(_versions(builds).get((entry.cuda, entry.torch), ()))
    for version in known:
        origin = builds.origin(cuda_label(entry.cuda), version, entry.platform, entry.python)
        if origin:
            return torch_commands(version, entry.cuda, origin)
    return torch_commands(f"{entry.torch}.*", entry.cuda, "pytorch")


def _torches(tables: _Tables, catalog: Catalog, matrix: Matrix, builds: TorchTable) -> Iterator[list[int | str]]:
    """Yield the rows of ``torches``: one for each torch line, CUDA and system of a wheel."""
    for entry in {(one.torch, one.cuda, one.platform): one for one in catalog.entries}.values():
        shown = torch_commands_for(entry, matrix, builds)
        yield [*tables.torch(entry), shown.pip, shown.uv]


def _versions(builds: TorchTable) -> dict[tuple[str, str], set[str]]:
    """Return the exact versions of the table by CUDA tag and torch line."""
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    for tag, channel in builds.channels.items():
        for version in channel.builds:
            found[tag, version_line(version)].add(version)
    for version, plain in builds.pypi.items():
        found[cuda_tag(plain.cuda), version_line(version)].add(version)
    return found


def _trimmed(row: list[int]) -> list[int]:
    """Return a row without trailing zeros."""
    while len(row) > 2 and not row[-1]:
        row = row[:-1]
    return row


def _details(entries: Sequence[Entry]) -> dict[str, Any] | None:
    """Return the sizes in bytes, and the concatenated hashes in base64; None if the page would become too large."""
    if len(entries) > DETAILS_UP_TO:
        return None
    digests = b"".join(bytes.fromhex(entry.sha256) for entry in entries)
    return {"sizes": [entry.size for entry in entries], "sha256": base64.b64encode(digests).decode()}


def _template(entries: Sequence[Entry]) -> dict[str, str] | None:
    """Return the commands with the marks @BASE@, @CUDA@, @TORCH@ and @RELEASE@, which the script replaces."""
    if not entries:
        return None
    marked = _joined(commands("@BASE@", replace(entries[0], cuda="@CUDA@", torch="@TORCH@", release="@RELEASE@")))
    for entry in {(entry.cuda, entry.torch, entry.release): entry for entry in entries}.values():
        marks = {"@CUDA@": entry.cuda, "@TORCH@": entry.torch, "@RELEASE@": entry.release}
        if {tool: _fill(text, marks) for tool, text in marked.items()} != _joined(commands("@BASE@", entry)):
            raise AssertionError(f"the commands for {entry.name} depend on values that the page's script does not know")
    return marked


def _fill(text: str, marks: Mapping[str, str]) -> str:
    return _MARK.sub(lambda found: marks[found[0]], text)


def _joined(made: Commands) -> dict[str, str]:
    return {"pip": "\n".join(made.pip), "uv": "\n".join(made.uv), "pyproject": made.pyproject}
