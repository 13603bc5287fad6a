"""Read a package index: project pages (PEP 691 JSON or PEP 503 HTML) and the METADATA of single wheels.

METADATA is read from the file beside the wheel (PEP 658) and verified by its hash. If the index does not offer that
file, METADATA is read from the wheel itself with range requests, without downloading the whole wheel.
"""

from __future__ import annotations

import hashlib
import html.parser
import http.client
import io
import json
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_ACCEPT = "application/vnd.pypi.simple.v1+json, text/html;q=0.2"
_TIMEOUT = 30
_BLOCK = 1 << 16


class IndexUnreachable(Exception):  # noqa: N818 - the caller continues without the index
    """An index, or a file of an index, cannot be read.

    ``status`` is the HTTP status of the answer, or None if there was no answer.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class File:
    """One file of a project.

    ``sha256`` and ``metadata_sha256`` (of the METADATA file beside a wheel) are None if the index does not state them.
    """

    name: str
    url: str
    yanked: bool = False
    metadata_sha256: str | None = None
    sha256: str | None = None


def files(page: str, *, authorization: str | None = None) -> list[File]:
    """Return the files that the project page ``page`` lists.

    ``authorization`` is the value of the Authorization header, if the index requires one.

    Raises:
        IndexUnreachable: if the page cannot be read.
    """
    body, kind, url = _get(page, {"Accept": _ACCEPT}, authorization)
    if kind == "application/vnd.pypi.simple.v1+json":
        try:
            return [_from_json(entry, url) for entry in json.loads(body)["files"]]
        except (ValueError, KeyError, TypeError) as error:
            raise IndexUnreachable(f"{_shown(page)} is not a simple page: {error!r}") from error
    return linked_files(body.decode("utf-8", "replace"), url)


def linked_files(page: str, base: str = "") -> list[File]:
    """Return a file for every link of an HTML page; URLs are resolved against ``base``."""
    parser = _Links(base)
    parser.feed(page)
    return parser.files


def metadata(file: File) -> str:
    """Return a wheel's METADATA.

    Raises:
        IndexUnreachable: if METADATA cannot be read, or its hash differs from the one that the index states.
    """
    if file.metadata_sha256:
        body, _, _ = _get(file.url + ".metadata", {})
        if hashlib.sha256(body).hexdigest() != file.metadata_sha256:
            raise IndexUnreachable(f"{file.name}.metadata is not what its index announces (sha256 differs)")
        return body.decode()
    try:
        with zipfile.ZipFile(_Remote(file.url)) as wheel:
            name = next(
                name for name in wheel.namelist() if name.count("/") == 1 and name.endswith(".dist-info/METADATA")
            )
            return wheel.read(name).decode()
    except (zipfile.BadZipFile, StopIteration) as error:
        raise IndexUnreachable(f"{file.name} has no readable METADATA: {error}") from error


def _get(url: str, headers: Mapping[str, str], authorization: str | None = None) -> tuple[bytes, str, str]:
    """Return the body, the content type, and the final URL after redirections."""
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise IndexUnreachable(f"not a http(s) URL: {_shown(url)}")
    if "@" in urllib.parse.urlsplit(url).netloc:
        raise IndexUnreachable(f"{_shown(url)}: credentials in the URL are not supported; use a public index")
    request = urllib.request.Request(url, headers=dict(headers))  # noqa: S310
    if authorization:
        # Do not send the header to another server after a redirection.
        request.add_unredirected_header("Authorization", authorization)
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:  # noqa: S310
            if "Range" in headers and answer.status != 206:
                raise IndexUnreachable(f"{_shown(url)} does not answer range requests")
            return answer.read(), answer.headers.get_content_type(), answer.url
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            raise IndexUnreachable(f"{_shown(url)}: {error}", error.code) from error
        raise IndexUnreachable(f"{_shown(url)}: {getattr(error, 'reason', error)}") from error


def _shown(url: str) -> str:
    """Return a URL without credentials and query, for messages."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _from_json(entry: Mapping[str, Any], base: str) -> File:
    announced = entry.get("core-metadata", entry.get("dist-info-metadata"))
    digest = announced.get("sha256") if isinstance(announced, dict) else None
    url, sha256 = urllib.parse.urljoin(base, entry["url"]), entry.get("hashes", {}).get("sha256")
    return File(entry["filename"], url, bool(entry.get("yanked")), digest, sha256)


class _Links(html.parser.HTMLParser):
    """Parser of the links of a PEP 503 page."""

    def __init__(self, base: str) -> None:
        super().__init__()
        self._base = base
        self.files: list[File] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag != "a" or not found.get("href"):
            return
        url, fragment = urllib.parse.urldefrag(urllib.parse.urljoin(self._base, found["href"] or ""))
        hashed = urllib.parse.parse_qs(fragment).get("sha256", [None])[0]
        name = urllib.parse.unquote(urllib.parse.urlsplit(url).path.rpartition("/")[2])
        announced = found.get("data-core-metadata") or found.get("data-dist-info-metadata") or ""
        metadata = announced.removeprefix("sha256=") or None
        self.files.append(File(name, url, "data-yanked" in found, metadata, hashed))


class _Remote(io.RawIOBase):
    """A remote file read with range requests, with the methods that zipfile needs."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._position = 0
        self._blocks: dict[int, bytes] = {}
        request = urllib.request.Request(url, method="HEAD")  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:  # noqa: S310
                self._size = int(answer.headers["Content-Length"])
        except (OSError, TypeError) as error:
            raise IndexUnreachable(f"{_shown(url)}: {error}") from error

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        return self._position

    def read(self, size: int = -1, /) -> bytes:
        end = self._size if size < 0 else min(self._size, self._position + size)
        first, last = self._position // _BLOCK, max(end - 1, 0) // _BLOCK
        body = b"".join(self._block(number) for number in range(first, last + 1))
        start = self._position - first * _BLOCK
        found = body[start : start + end - self._position]
        self._position += len(found)
        return found

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            last = min(self._size, (number + 1) * _BLOCK) - 1
            self._blocks[number] = _get(self._url, {"Range": f"bytes={number * _BLOCK}-{last}"})[0]
        return self._blocks[number]
