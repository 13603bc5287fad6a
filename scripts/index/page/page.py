"""Render the page for people at the root of an index: one file that loads no other file and works without scripts."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from scripts.index.catalog import Catalog, Entry, PureWheel
from scripts.index.install_commands import commands, package_commands
from scripts.index.page import page_data
from scripts.index.page.page_data import Option, cuda_label, newest_first, platform_label
from scripts.matrix import torch_builds
from scripts.matrix.matrix import Matrix
from scripts.matrix.torch_builds import TorchTable
from scripts.wheel.audit_record import STATEMENTS

RESOURCES = Path(__file__).parent
ROWS_UP_TO = 60
"""Up to this many wheels the table has one row per wheel; with more wheels it has one row per channel."""

_STATEMENT_LABELS = {"sbom": "SBOM", "provenance": "provenance"}
_GPU_RECORDS = {"passed": ("gpu", "GPU run"), "waived": ("waiver", "waiver")}
_LEGENDS = {"system": "System", "python": "Python", "torch": "torch", "cuda": "CUDA", "release": "nvdiffrast"}


@dataclass(frozen=True)
class _Group:
    """A group of radio buttons for one axis."""

    name: str
    legend: str
    options: tuple[Option, ...]


@dataclass(frozen=True)
class _Example:
    """The commands for one wheel, for readers without scripts."""

    torch: str
    cuda: str
    torch_command: str
    commands: str


@dataclass(frozen=True)
class _ChannelRow:
    """A channel for a CUDA and a torch in the table of many wheels."""

    folder: str
    cuda: str
    torch: str
    wheels: int
    releases: str
    pythons: str
    systems: str
    notes: str


def render(catalog: Catalog, matrix: Matrix, stated: Collection[str] = ()) -> bytes:
    """Return the page as UTF-8; the same arguments always give the same bytes.

    ``stated`` are the sha256 of the wheels for which the index has a bill of materials and a provenance. All links are
    relative to the root of the index; the page works on a server and as a local file.
    """
    script = _read("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    many = len(catalog.entries) > ROWS_UP_TO
    page = (
        _environment()
        .get_template("page.html")
        .render(
            script_hash=f"sha256-{digest}",
            style=Markup(_read("page.css")),  # noqa: S704 - our own file
            script=Markup(script),  # noqa: S704 - our own file
            data=_script_json(page_data.data(catalog, matrix, _builds(), stated)),
            groups=[*_groups(catalog, matrix)],
            example=_example(catalog, matrix),
            number=len(catalog.entries),
            wheels=[] if many else _newest_first(catalog.entries),
            channels=[*_channel_rows(catalog.entries)] if many else [],
            packages=_by_project(catalog.packages),
            record_links=lambda entry: [*_record_links(entry, entry.sha256 in stated)],
            package_commands=lambda package: "\n".join(package_commands("ADDRESS", package, catalog.packages).pip),
            observed=matrix.table_date,
        )
    )
    return page.encode()


def megabytes(size: int) -> str:
    """Return a size in bytes as text in units of 10^6 bytes ("12.3 MB"); smaller sizes in kB."""
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def architectures(entry: Entry) -> str:
    """Return the GPU architectures of a wheel: "7.5, 9.0; newer ones by PTX 9.0"."""
    listed = ", ".join(entry.sass) or "none"
    return f"{listed}; newer ones by PTX {', '.join(entry.ptx)}" if entry.ptx else listed


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(RESOURCES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "architectures": architectures,
        "breakable": _breakable,
        "marks": lambda entry: [*_marks(entry)],
        "megabytes": megabytes,
    }
    return environment


@cache
def _builds() -> TorchTable:
    return torch_builds.load()


def _read(name: str) -> str:
    return (RESOURCES / name).read_text(encoding="utf-8")


def _script_json(data: object) -> Markup:
    """Return JSON for a <script> element, where "</script" or "<!--" would end the data early."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=True)
    escaped = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return Markup(escaped)  # noqa: S704 - has no markup any more


def _groups(catalog: Catalog, matrix: Matrix) -> Iterator[_Group]:
    """Yield the groups of radio buttons; the script enables the available ones and explains the others."""
    axes = page_data.axes(catalog, matrix)
    for name, legend in _LEGENDS.items():
        yield _Group(name, legend, getattr(axes, name))


def _example(catalog: Catalog, matrix: Matrix) -> _Example | None:
    """Return the commands for the newest wheel that is not yanked, None if no such wheel exists."""
    entry = next((entry for entry in _newest_first(catalog.entries) if entry.yanked is None), None)
    if entry is None:
        return None
    torch = page_data.torch_commands_for(entry, matrix, _builds())
    return _Example(entry.torch, cuda_label(entry.cuda), torch.pip, "\n".join(commands("ADDRESS", entry).pip))


def _newest_first(entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries ordered by release, CUDA and torch, newest first; then by platform, then newest Python."""

    def ranks(values: Iterator[str]) -> dict[str, int]:
        return {value: rank for rank, value in enumerate(newest_first(values))}

    releases, cudas = ranks(entry.release for entry in entries), ranks(cuda_label(entry.cuda) for entry in entries)
    torches, pythons = ranks(entry.torch for entry in entries), ranks(entry.python for entry in entries)
    return sorted(
        entries,
        key=lambda entry: (
            *(releases[entry.release], cudas[cuda_label(entry.cuda)], torches[entry.torch], entry.platform),
            *(pythons[entry.python], entry.name),
        ),
    )


def _by_project(packages: Sequence[PureWheel]) -> list[PureWheel]:
    """Return the packages ordered by project, then newest version first."""
    ranks = {version: rank for rank, version in enumerate(newest_first(package.version for package in packages))}
    return sorted(packages, key=lambda package: (package.project, ranks[package.version]))


def _record_links(entry: Entry, stated: bool) -> Iterator[tuple[str, str]]:
    """Yield URL and label of every record about a wheel."""
    yield f"records/{entry.sha256}.audit.json", "audit"
    if entry.gpu in _GPU_RECORDS:
        kind, label = _GPU_RECORDS[entry.gpu]
        yield f"records/{entry.sha256}.{kind}.json", label
    if stated:
        yield from ((f"records/{entry.sha256}{STATEMENTS[kind]}", label) for kind, label in _STATEMENT_LABELS.items())


def _marks(entry: Entry) -> Iterator[tuple[str, str]]:
    """Yield label and text of every warning about a wheel."""
    if entry.yanked is not None:
        yield "Yanked", entry.yanked
    if entry.partial:
        yield "Partial", "compiled for fewer GPUs than usual, for a rehearsal"
    if entry.gpu == "waived":
        yield "Not run on a GPU", entry.waiver or "waived"
    if entry.gpu == "untested":
        yield "Untested", "has not run on a GPU yet"


def _breakable(name: str) -> Markup:
    """Return a file name with line-break opportunities between its parts."""
    return Markup("<wbr>").join(re.split(r"(?<=-)|(?=\+)", name))


def _channel_rows(entries: Sequence[Entry]) -> Iterator[_ChannelRow]:
    """Yield a row per CUDA and torch, newest first."""
    grouped: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in entries:
        grouped[entry.cuda, entry.torch].append(entry)
    cudas = newest_first(cuda_label(cuda) for cuda, _ in grouped)
    torches = newest_first(torch for _, torch in grouped)
    for cuda, torch in sorted(grouped, key=lambda key: (cudas.index(cuda_label(key[0])), torches.index(key[1]))):
        yield _channel_row(grouped[cuda, torch])


def _channel_row(entries: Sequence[Entry]) -> _ChannelRow:
    first = entries[0]
    gpu = [entry.gpu for entry in entries]
    notes = {
        "yanked": sum(entry.yanked is not None for entry in entries),
        "partial": sum(entry.partial for entry in entries),
        "not run on a GPU": gpu.count("waived"),
        "untested": gpu.count("untested"),
    }
    return _ChannelRow(
        folder=first.channels[1],
        cuda=cuda_label(first.cuda),
        torch=first.torch,
        wheels=len(entries),
        releases=", ".join(newest_first(entry.release for entry in entries)),
        pythons=", ".join(newest_first(entry.python for entry in entries)),
        systems=", ".join(sorted({platform_label(entry.platform) for entry in entries})),
        notes=", ".join(f"{number} {label}" for label, number in notes.items() if number),
    )
