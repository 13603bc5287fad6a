"""The page for people at an index's root: one file, nothing loaded from elsewhere, a table where scripts do not run."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from functools import cache
from html import escape
from pathlib import Path
from string import Template

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
"""Up to this many wheels the table has a row a wheel, beyond a row a channel."""

_STATED = {"sbom": "SBOM", "provenance": "provenance"}
_AXES = ("system", "python", "torch", "cuda", "release")
_LEGENDS = {"system": "System", "python": "Python", "torch": "torch", "cuda": "CUDA", "release": "nvdiffrast"}


def render(catalog: Catalog, matrix: Matrix, stated: Collection[str] = ()) -> bytes:
    """Return the page as UTF-8; the same arguments give the same bytes.

    ``stated`` holds the sha256 of wheels that have a bill of materials and a provenance among the index's records. All
    links are relative to the root of the index; the page works from a folder as from a server.
    """
    data = json.dumps(page_data.data(catalog, matrix, _builds(), stated), separators=(",", ":"), ensure_ascii=True)
    script = _resource("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = Template(_resource("page.html")).substitute(
        script_hash=f"sha256-{digest}",
        style=_resource("page.css"),
        script=script,
        # Inside <script>, only a closing tag or a comment would end the data early.
        data=data.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"),
        groups="\n".join(_groups(catalog, matrix)),
        without_script=_without_script(catalog, matrix),
        count=_count(len(catalog.entries), "wheel"),
        table=_table(catalog.entries, stated),
        packages=_packages(catalog.packages),
        observed=escape(matrix.table_date),
    )
    return page.encode()


@cache
def _builds() -> TorchTable:
    return torch_builds.load()


def _resource(name: str) -> str:
    return (RESOURCES / name).read_text(encoding="utf-8")


def _groups(catalog: Catalog, matrix: Matrix) -> Iterator[str]:
    """A group of radio buttons an axis; the script says which can be chosen, and why the others cannot."""
    axes = page_data.axes(catalog, matrix)
    for name in _AXES:
        options: tuple[Option, ...] = getattr(axes, name)
        choices = "".join(
            f'<label><input type="radio" name="{name}" value="{escape(option.value)}"><span>{escape(option.label)}'
            "</span></label>"
            for option in options
        )
        yield (
            f'<fieldset id="{name}"><legend>{_LEGENDS[name]}</legend>'
            f'<div class="options">{choices}</div><ul class="reasons"></ul></fieldset>'
        )


def _without_script(catalog: Catalog, matrix: Matrix) -> str:
    """Return what to do where scripts do not run, for the newest wheel that is not yanked."""
    entry = next((entry for entry in _ordered(catalog.entries) if entry.yanked is None), None)
    if entry is None:
        return "<p>Nothing can be installed from here yet.</p>"
    torch = page_data.torch_commands_for(entry, matrix, _builds())
    lines = escape("\n".join(commands("ADDRESS", entry).pip))
    return (
        f"<h2>Install</h2><p>Choosing needs JavaScript. Without it: install torch {escape(entry.torch)} for CUDA "
        f"{escape(cuda_label(entry.cuda))}, unless you have it:</p><pre>{escape(torch.pip)}</pre>"
        "<p>Then run this with the page's address, less its last slash, for <code>ADDRESS</code>. For another CUDA "
        f"name its channel.</p><pre>{lines}</pre>"
    )


def _ordered(entries: Sequence[Entry]) -> list[Entry]:
    """The newest release first, then the newest CUDA, torch, Python."""

    def ranks(values: Iterator[str]) -> dict[str, int]:
        return {value: rank for rank, value in enumerate(newest_first(values))}

    releases, cudas = ranks(entry.release for entry in entries), ranks(cuda_label(entry.cuda) for entry in entries)
    torches, pythons = ranks(entry.torch for entry in entries), ranks(entry.python for entry in entries)
    return sorted(
        entries,
        key=lambda one: (
            *(releases[one.release], cudas[cuda_label(one.cuda)], torches[one.torch], one.platform),
            *(pythons[one.python], one.name),
        ),
    )


def _table(entries: Sequence[Entry], stated: Collection[str]) -> str:
    if not entries:
        return "<p>No wheel is published here yet.</p>"
    few = len(entries) <= ROWS_UP_TO
    heads = ("Wheel", "Size", "GPU architectures", "Evidence") if few else ("Channel", "Wheels", "For", "To note")
    rows = (_wheel_row(entry, entry.sha256 in stated) for entry in _ordered(entries)) if few else _channel_rows(entries)
    head = "".join(f'<th scope="col">{head}</th>' for head in heads)
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{chr(10).join(rows)}\n</tbody></table>"


def _packages(packages: Sequence[PureWheel]) -> str:
    """The section of what has no compiled code; nothing where there is none of it."""
    if not packages:
        return ""
    heads = "".join(f'<th scope="col">{head}</th>' for head in ("Wheel", "Size", "Install", "Evidence"))
    rows = "\n".join(_package_row(package, packages) for package in _by_project(packages))
    return (
        '<section aria-labelledby="pure-title">\n<h2 id="pure-title">Without compiled code</h2>\n'
        "<p>In plain PyTorch, for every system, with CUDA or without; every channel lists them, and "
        '<a href="whl/cpu/index.html">whl/cpu/</a> lists nothing else. They are '
        "under the Apache License 2.0. Install torch first."
        "<noscript> Put this page's address, less its last slash, for <code>ADDRESS</code>.</noscript></p>\n"
        f"<table><thead><tr>{heads}</tr></thead><tbody>\n{rows}\n</tbody></table>\n</section>"
    )


def _by_project(packages: Sequence[PureWheel]) -> list[PureWheel]:
    """By project, the newest version first."""
    ranks = {version: rank for rank, version in enumerate(newest_first(one.version for one in packages))}
    return sorted(packages, key=lambda one: (one.project, ranks[one.version]))


def _package_row(package: PureWheel, packages: Sequence[PureWheel]) -> str:
    file = escape(f"files/{package.sha256}/{package.name}")
    mark = "" if package.yanked is None else f'<p class="mark"><b>Yanked:</b> {escape(package.yanked)}</p>'
    lines = escape("\n".join(package_commands("ADDRESS", package, packages).pip))
    shown = f'<pre class="address">{lines}</pre>' if package.yanked is None else ""
    return (
        f'<tr><th scope="row"><a href="{file}">{_breakable(package.name)}</a>{mark}</th>'
        f"<td>{megabytes(package.size)}</td><td>{shown}</td>"
        f'<td><a href="records/{package.sha256}.package.json">builds</a><br>'
        f'sha256 <code class="hash">{escape(package.sha256)}</code></td></tr>'
    )


def _wheel_row(entry: Entry, stated: bool) -> str:
    file = f"files/{entry.sha256}/{entry.name}"
    records = {"audit": "audit"} | {"passed": {"gpu": "GPU run"}, "waived": {"waiver": "waiver"}}.get(entry.gpu, {})
    links = [f'<a href="records/{entry.sha256}.{kind}.json">{label}</a>' for kind, label in records.items()]
    if stated:
        links += [f'<a href="records/{entry.sha256}{STATEMENTS[kind]}">{label}</a>' for kind, label in _STATED.items()]
    marks = "".join(f'<p class="mark">{mark}</p>' for mark in _marks(entry))
    return (
        f'<tr><th scope="row"><a href="{escape(file)}">{_breakable(entry.name)}</a>{marks}</th>'
        f"<td>{megabytes(entry.size)}</td><td>{escape(architectures(entry))}</td>"
        f'<td>{" · ".join(links)}<br>sha256 <code class="hash">{escape(entry.sha256)}</code></td></tr>'
    )


def _marks(entry: Entry) -> Iterator[str]:
    if entry.yanked is not None:
        yield f"<b>Yanked:</b> {escape(entry.yanked)}"
    if entry.partial:
        yield "<b>Partial:</b> compiled for fewer GPUs than a release, for a rehearsal"
    if entry.gpu == "waived":
        yield f"<b>Not run on a GPU:</b> {escape(entry.waiver or 'waived')}"
    if entry.gpu == "untested":
        yield "<b>Untested:</b> no GPU has run it yet"


def _breakable(name: str) -> str:
    """A file name that may be broken where its parts end."""
    return escape(name).replace("-", "-<wbr>").replace("+", "<wbr>+")


def megabytes(size: int) -> str:
    """``12.3 MB`` of 10^6 bytes; smaller sizes in kB."""
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def architectures(entry: Entry) -> str:
    """``7.5, 9.0; newer ones by PTX 9.0``."""
    listed = ", ".join(entry.sass) or "none"
    return f"{listed}; newer ones by PTX {', '.join(entry.ptx)}" if entry.ptx else listed


def _channel_rows(entries: Sequence[Entry]) -> Iterator[str]:
    grouped: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in entries:
        grouped[entry.cuda, entry.torch].append(entry)
    cudas = newest_first(cuda_label(cuda) for cuda, _ in grouped)
    torches = newest_first(torch for _, torch in grouped)
    for cuda, torch in sorted(grouped, key=lambda one: (cudas.index(cuda_label(one[0])), torches.index(one[1]))):
        yield _channel_row(grouped[cuda, torch])


def _channel_row(entries: Sequence[Entry]) -> str:
    first = entries[0]
    releases = ", ".join(newest_first(entry.release for entry in entries))
    pythons = ", ".join(newest_first(entry.python for entry in entries))
    systems = ", ".join(sorted({platform_label(entry.platform) for entry in entries}))
    gpu = [entry.gpu for entry in entries]
    notes = {
        "yanked": sum(entry.yanked is not None for entry in entries),
        "partial": sum(entry.partial for entry in entries),
        "not run on a GPU": gpu.count("waived"),
        "untested": gpu.count("untested"),
    }
    noted = ", ".join(f"{number} {what}" for what, number in notes.items() if number)
    return (
        f'<tr><th scope="row"><a href="whl/{escape(first.channels[1])}/nvdiffrast/index.html">CUDA '
        f"{escape(cuda_label(first.cuda))}, torch {escape(first.torch)}</a></th><td>{len(entries)}</td>"
        f"<td>nvdiffrast {escape(releases)}<br>Python {escape(pythons)}<br>{escape(systems)}</td><td>{noted}</td></tr>"
    )


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
