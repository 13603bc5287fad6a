"""The pages of a simple repository, as text: HTML (PEP 503, 592, 629, 658, 714) and JSON (PEP 691, 700).

Every page has one line an entry, so that an earlier page becomes the next one by changing a line.
The links of a repository are relative, so that it works below any address.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from packaging.version import Version

from scripts.index import catalog as catalogs
from scripts.index.catalog import CPU, Entry, File, PureWheel

PROJECT = "nvdiffrast"
# Change it with anything below that changes a page's bytes: pages of another format are not taken over.
FORMAT = 1

_API = "1.1"
_FILES = "../../../files"
_HEAD = (
    '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    f'<meta name="generator" content="nvdiffrast-wheels, format {FORMAT}">\n'
)
_META = f'<meta name="pypi:repository-version" content="{_API}">\n'
_FOOT = "</body>\n</html>\n"


@dataclass(frozen=True)
class Edit:
    """A line to change in a page: that of ``entry``, in place of the line of ``old``.

    Without ``old`` it is a new line, before that of ``after``; without that, behind the last one, that of ``before``.
    """

    entry: Entry
    old: Entry | None
    after: Entry | None
    before: Entry | None


@dataclass(frozen=True)
class Listing:
    """A page of one line an entry; ``between`` separates two lines, ``versions`` are listed behind ``foot`` if so."""

    head: str
    line: Callable[[File], str]
    between: str
    foot: str
    versions: bool = False

    def render(self, entries: Sequence[File]) -> bytes:
        """The page of these entries."""
        body = self.between.join(map(self.line, entries))
        return f"{self.head}{body}".encode() + self._end(map(_version, entries))[0 if body else 1 :]

    def changed(self, page: bytes, edits: Sequence[Edit]) -> list[bytes | memoryview] | None:
        """The ``page`` with ``edits``, which are in its order, in pieces to be written one after the other.

        None if ``page`` does not have the lines that would be written now.
        """
        end = page.rfind(f"\n{self.foot}".encode())
        versions = self._stated(page, end)
        if versions is None or not page.startswith(self.head.encode()):
            return None
        pieces: list[bytes | memoryview] = []
        done, view = 0, memoryview(page)
        for edit in edits:
            start, stop, line = self._place(edit, page, done, end)
            if start < 0:
                return None
            pieces += [view[done:start], line]
            done = stop
        added = {_version(edit.entry) for edit in edits}.difference(versions)
        tail = self._end([*versions, *added]) if added else page[end:]
        return [*pieces, view[done:end], tail]

    def _place(self, edit: Edit, page: bytes, done: int, end: int) -> tuple[int, int, bytes]:
        """From where to where bytes of the page go, -1 if there is no such place, and what comes instead."""
        line = self.line(edit.entry)
        if edit.old:
            old = self.line(edit.old).encode()
            start = page.find(old, done, end)
            return start, start + len(old), line.encode()
        if edit.after:
            start = page.find(self.line(edit.after).encode(), done, end)
            return start, start, f"{line}{self.between}".encode()
        last = edit.before and page.endswith(self.line(edit.before).encode(), 0, end)
        return (end, end, f"{self.between}{line}".encode()) if last else (-1, -1, b"")

    def _end(self, versions: Iterable[Version]) -> bytes:
        stated = json.dumps([str(version) for version in sorted(set(versions))]) + "}\n" if self.versions else ""
        return f"\n{self.foot}{stated}".encode()

    def _stated(self, page: bytes, end: int) -> list[Version] | None:
        """The versions behind the lines of a page; None if it is no page."""
        if end < 0 or not self.versions:
            return None if end < 0 else []
        try:
            return [*map(_parsed, json.loads(page[end + 1 + len(self.foot) :].rstrip().removesuffix(b"}")))]
        except (ValueError, TypeError):
            return None


def project_html(channel: str, project: str = PROJECT) -> Listing:
    """A project's page in a channel, for installers that read HTML, and for plain file hosting."""
    title = html.escape(f"{project} for {channel}")
    head = f"{_HEAD}{_META}<title>{title}</title>\n</head>\n<body>\n<h1>{title}</h1>\n"
    return Listing(head, html_line, "\n", _FOOT)


def project_json(project: str = PROJECT) -> Listing:
    """A project's page in a channel as JSON."""
    head = f'{{"meta": {{"api-version": "{_API}"}}, "name": "{project}", "files": [\n'
    return Listing(head, json_line, ",\n", '], "versions": ', versions=True)


def catalog_json(packages: Sequence[PureWheel]) -> Listing:
    """The catalog's own file, as :func:`scripts.catalog.dump` writes it."""
    return Listing(catalogs.head(packages), catalogs.line, ",\n", catalogs.FOOT)


def projects(channel: str, packages: Iterable[PureWheel]) -> list[str]:
    """What a channel lists: nvdiffrast where it has CUDA, and the packages without compiled code."""
    return [*([] if channel == CPU else [PROJECT]), *sorted({package.project for package in packages})]


def channel_html(channel: str, listed: Iterable[str]) -> str:
    """The list of projects of a channel."""
    title = html.escape(channel)
    links = "".join(f'<a href="{html.escape(name)}/">{html.escape(name)}</a><br>\n' for name in listed)
    return f"{_HEAD}{_META}<title>{title}</title>\n</head>\n<body>\n<h1>{title}</h1>\n{links}{_FOOT}"


def channel_json(listed: Iterable[str]) -> str:
    """The list of projects of a channel as JSON."""
    return json.dumps({"meta": {"api-version": _API}, "projects": [{"name": name} for name in listed]}) + "\n"


def channels_html(channels: Iterable[str]) -> str:
    """The list of channels, for people: it is no repository itself, and says so."""
    links = "".join(f'<li><a href="{html.escape(name)}/">{html.escape(name)}</a></li>\n' for name in channels)
    text = "<h1>Channels</h1>\n<p>Each is an index of its own. Give an installer the address of one.</p>\n"
    return f"{_HEAD}<title>Channels</title>\n</head>\n<body>\n{text}<ul>\n{links}</ul>\n{_FOOT}"


def html_line(entry: File) -> str:
    """One link. METADATA is announced under the names of PEP 714 and of PEP 658."""
    announced = f'metadata="sha256={entry.metadata_sha256}"'
    python = entry.requires_python
    requires = "" if python is None else f' data-requires-python="{html.escape(python)}"'
    yanked = "" if entry.yanked is None else f' data-yanked="{html.escape(entry.yanked)}"'
    href = f'href="{_url(entry)}#sha256={entry.sha256}"'
    names = f"data-core-{announced} data-dist-info-{announced}"
    return f"<a {href} {names}{requires}{yanked}>{html.escape(entry.name)}</a><br>"


def json_line(entry: File) -> str:
    """One file. Only the name of PEP 714: readers that know the old one misread it in JSON."""
    file: dict[str, Any] = {
        "filename": entry.name,
        "url": _url(entry),
        "hashes": {"sha256": entry.sha256},
        "core-metadata": {"sha256": entry.metadata_sha256},
        "size": entry.size,
        "upload-time": entry.uploaded,
        # A reason that is not there is stated as true, never as an empty text (PEP 691).
        "yanked": False if entry.yanked is None else entry.yanked or True,
    }
    if entry.requires_python is not None:
        file["requires-python"] = entry.requires_python
    return json.dumps(file)


def channel_order(channel: str) -> tuple[int, ...]:
    """A key that sorts "cpu" before "cu130" before "cu130-torch2.9" before "cu130-torch2.10"."""
    return tuple(map(int, re.findall(r"\d+", channel)))


def _url(entry: File) -> str:
    return f"{_FILES}/{entry.sha256}/{entry.name.replace('+', '%2B')}"


def _version(entry: File) -> Version:
    return _parsed(entry.name.split("-", 2)[1])


@lru_cache(maxsize=4096)
def _parsed(version: str) -> Version:
    return Version(version)
