"""Render the pages of a simple repository: HTML (PEP 503, 592, 629, 658, 714) and JSON (PEP 691, 700).

The links are relative, so that a repository works at any address.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from packaging.version import Version

from scripts.index.catalog import File

PROJECT = "nvdiffrast"

_API = "1.1"
_FILES = "../../../files"
# Increase the number of the format with every change of a page's bytes.
_HEAD = (
    '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="generator" content="nvdiffrast-wheels, format 1">\n'
)
_META = f'<meta name="pypi:repository-version" content="{_API}">\n'
_FOOT = "</body>\n</html>\n"


def project_html(channel: str, project: str, files: Iterable[File]) -> str:
    """Return a project's page in a channel, for installers that read HTML and for plain file servers."""
    title = html.escape(f"{project} for {channel}")
    links = "".join(f"{_link(file)}\n" for file in files)
    return f"{_HEAD}{_META}<title>{title}</title>\n</head>\n<body>\n<h1>{title}</h1>\n{links}{_FOOT}"


def project_json(project: str, files: Sequence[File]) -> str:
    """Return a project's page as JSON, with one line per file."""
    lines = ",\n".join(map(_json_line, files)) + ("\n" if files else "")
    versions = json.dumps([str(version) for version in sorted({_version(file) for file in files})])
    meta = f'"meta": {{"api-version": "{_API}"}}, "name": "{project}"'
    return f'{{{meta}, "files": [\n{lines}], "versions": {versions}}}\n'


def channel_html(channel: str, projects: Iterable[str]) -> str:
    """Return a channel's list of projects."""
    title = html.escape(channel)
    links = "".join(f'<a href="{html.escape(name)}/">{html.escape(name)}</a><br>\n' for name in projects)
    return f"{_HEAD}{_META}<title>{title}</title>\n</head>\n<body>\n<h1>{title}</h1>\n{links}{_FOOT}"


def channel_json(projects: Iterable[str]) -> str:
    """Return a channel's list of projects as JSON."""
    return json.dumps({"meta": {"api-version": _API}, "projects": [{"name": name} for name in projects]}) + "\n"


def channels_html(channels: Iterable[str]) -> str:
    """Return the list of channels for people; it is not a simple repository."""
    links = "".join(f'<li><a href="{html.escape(name)}/">{html.escape(name)}</a></li>\n' for name in channels)
    text = "<h1>Channels</h1>\n<p>Each is an index of its own. Give an installer the address of one.</p>\n"
    return f"{_HEAD}<title>Channels</title>\n</head>\n<body>\n{text}<ul>\n{links}</ul>\n{_FOOT}"


def channel_order(channel: str) -> tuple[int, ...]:
    """Return the sort key that puts "cpu" before "cu130" before "cu130-torch2.9" before "cu130-torch2.10"."""
    return tuple(map(int, re.findall(r"\d+", channel)))


def _link(file: File) -> str:
    """Return a file's link, which announces METADATA under the attribute names of PEP 714 and of PEP 658."""
    announced = f'metadata="sha256={file.metadata_sha256}"'
    python = file.requires_python
    requires = "" if python is None else f' data-requires-python="{html.escape(python)}"'
    yanked = "" if file.yanked is None else f' data-yanked="{html.escape(file.yanked)}"'
    href = f'href="{_url(file)}#sha256={file.sha256}"'
    names = f"data-core-{announced} data-dist-info-{announced}"
    return f"<a {href} {names}{requires}{yanked}>{html.escape(file.name)}</a><br>"


def _json_line(file: File) -> str:
    """Return a file's object in JSON, with METADATA only under the name of PEP 714: old readers misread the other."""
    described: dict[str, Any] = {
        "filename": file.name,
        "url": _url(file),
        "hashes": {"sha256": file.sha256},
        "core-metadata": {"sha256": file.metadata_sha256},
        "size": file.size,
        "upload-time": file.uploaded,
        # PEP 691: true if no reason is given; an empty text would mean "not yanked".
        "yanked": False if file.yanked is None else file.yanked or True,
    }
    if file.requires_python is not None:
        described["requires-python"] = file.requires_python
    return json.dumps(described)


def _url(file: File) -> str:
    return f"{_FILES}/{file.sha256}/{file.name.replace('+', '%2B')}"


def _version(file: File) -> Version:
    return _parse_version(file.name.split("-", 2)[1])


@lru_cache(maxsize=4096)
def _parse_version(version: str) -> Version:
    return Version(version)
