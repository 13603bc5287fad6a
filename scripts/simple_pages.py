"""The pages of a simple repository, as text: HTML (PEP 503, 592, 629, 658, 714) and JSON (PEP 691, 700).

Every page has one line an entry, so that an earlier page becomes the next one by changing a line.
The repository lists one project; its links are relative, so that it works below any address.
"""

from __future__ import annotations

import html
import json
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import Any

from packaging.version import Version

from scripts import catalog as catalogs
from scripts.catalog import Entry

PROJECT = "nvdiffrast"
# Change it with anything below that changes a page's bytes: pages of another format are not taken over.
FORMAT = 1

_API = "1.1"
# Of fewer lines than these per change a page is rendered anew.
_WORTH = 10
_FILES = "../../../files"
_HEAD = (
    '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    f'<meta name="generator" content="nvdiffrast-wheels, format {FORMAT}">\n'
)
_META = f'<meta name="pypi:repository-version" content="{_API}">\n'
_FOOT = "</body>\n</html>\n"


@dataclass(frozen=True)
class Listing:
    """A page of one line an entry; ``between`` separates two lines, ``rest`` is what follows the constant ``foot``."""

    head: str
    line: Callable[[Entry], str]
    between: str
    foot: str
    rest: str = ""

    def render(self, entries: Iterable[Entry]) -> bytes:
        """The page of these entries."""
        body = self.between.join(map(self.line, entries))
        return f"{self.head}{body}{self._end if body else self._end[1:]}".encode()

    def changed(self, page: bytes, before: Sequence[Entry], fresh: Sequence[Entry]) -> bytes | None:
        """The ``page`` of the entries ``before``, with the lines of ``fresh`` added or put in place of older ones.

        None if rendering it is no dearer, or if ``page`` does not have the lines that would be written now.
        """
        end = page.rfind(f"\n{self.foot}".encode())
        if len(fresh) * _WORTH > len(before) or not page.startswith(self.head.encode()):
            return None
        if end < 0 or not page.endswith(self.line(before[-1]).encode(), 0, end):
            return None
        parts, done = [], 0
        for entry in fresh:
            at = bisect_left(before, entry.name, key=attrgetter("name"))
            there = self.line(before[at]).encode() if at < len(before) else b""
            start = page.find(there, done, end) if there else end
            if start < 0:
                return None
            replaced = bool(there) and before[at].name == entry.name
            parts += [page[done:start], self._inserted(entry, first=bool(there), alone=replaced)]
            done = start + len(there) * replaced
        return b"".join([*parts, page[done:end], self._end.encode()])

    @property
    def _end(self) -> str:
        return f"\n{self.foot}{self.rest}"

    def _inserted(self, entry: Entry, *, first: bool, alone: bool) -> bytes:
        """A line to put in place of another (``alone``), ``first`` before another, or after all."""
        line, between = self.line(entry), "" if alone else self.between
        return f"{line}{between}".encode() if first else f"{between}{line}".encode()


def project_html(channel: str) -> Listing:
    """The project's page in a channel, for installers that read HTML, and for plain file hosting."""
    title = html.escape(f"{PROJECT} for {channel}")
    head = f"{_HEAD}{_META}<title>{title}</title>\n</head>\n<body>\n<h1>{title}</h1>\n"
    return Listing(head, html_line, "\n", _FOOT)


def project_json(names: Iterable[str]) -> Listing:
    """The project's page in a channel as JSON; its files' ``names`` tell the versions there are."""
    head = f'{{"meta": {{"api-version": "{_API}"}}, "name": "{PROJECT}", "files": [\n'
    return Listing(head, json_line, ",\n", '], "versions": ', f"{json.dumps(versions(names))}}}\n")


def catalog_json() -> Listing:
    """The catalog's own file, as :func:`scripts.catalog.dump` writes it."""
    return Listing(catalogs.HEAD, catalogs.line, ",\n", catalogs.FOOT)


def channel_html(channel: str) -> str:
    """The list of projects of a channel: the one."""
    title = html.escape(channel)
    link = f'<a href="{PROJECT}/">{PROJECT}</a><br>\n'
    return f"{_HEAD}{_META}<title>{title}</title>\n</head>\n<body>\n<h1>{title}</h1>\n{link}{_FOOT}"


def channel_json() -> str:
    """The list of projects of a channel as JSON."""
    return json.dumps({"meta": {"api-version": _API}, "projects": [{"name": PROJECT}]}) + "\n"


def channels_html(channels: Iterable[str]) -> str:
    """The list of channels, for people: it is no repository itself, and says so."""
    links = "".join(f'<li><a href="{html.escape(name)}/">{html.escape(name)}</a></li>\n' for name in channels)
    text = "<h1>Channels</h1>\n<p>Each is an index of its own. Give an installer the address of one.</p>\n"
    return f"{_HEAD}<title>Channels</title>\n</head>\n<body>\n{text}<ul>\n{links}</ul>\n{_FOOT}"


def html_line(entry: Entry) -> str:
    """One link. METADATA is announced under the names of PEP 714 and of PEP 658."""
    announced = f'metadata="sha256={entry.metadata_sha256}"'
    python = entry.requires_python
    requires = "" if python is None else f' data-requires-python="{html.escape(python)}"'
    yanked = "" if entry.yanked is None else f' data-yanked="{html.escape(entry.yanked)}"'
    href = f'href="{_url(entry)}#sha256={entry.sha256}"'
    names = f"data-core-{announced} data-dist-info-{announced}"
    return f"<a {href} {names}{requires}{yanked}>{html.escape(entry.name)}</a><br>"


def json_line(entry: Entry) -> str:
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


def versions(names: Iterable[str]) -> list[str]:
    """The versions that file names state, each once, in order."""
    return [str(version) for version in sorted(map(_version, {name.split("-", 2)[1] for name in names}))]


def channel_order(channel: str) -> tuple[int, ...]:
    """A key that sorts "cu130" before "cu130-torch2.9" before "cu130-torch2.10"."""
    return tuple(map(int, re.findall(r"\d+", channel)))


def _url(entry: Entry) -> str:
    return f"{_FILES}/{entry.sha256}/{entry.name.replace('+', '%2B')}"


@lru_cache(maxsize=4096)
def _version(text: str) -> Version:
    return Version(text)
