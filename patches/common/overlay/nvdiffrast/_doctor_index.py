"""Reads the catalog of an index of nvdiffrast wheels."""

from __future__ import annotations

import base64
import json
import re
import urllib.request
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

SCHEMA = 1
_TIMEOUT_SECONDS = 15
_MAX_BYTES = 64 << 20
_URL = re.compile(r"https?://[A-Za-z0-9._~:/%@\[\]-]+")
# These values become part of commands, so each must be one word for a shell.
_WORDS = {
    "release": r"\d+(\.\w+)*",
    "torch": r"\d+\.\d+",
    "cuda": r"cu\d{2,4}",
    "python": r"\d+\.\d+",
    "platform": r"\w+",
}


class IndexRefusedError(Exception):
    """The index cannot be read, or its catalog is invalid; the message gives the cause."""


class Wheel(NamedTuple):
    """A wheel of nvdiffrast.

    ``torch`` is a line ("2.14"), ``cuda`` a tag ("cu130"), and ``python`` a version ("3.12"). ``sass`` and ``ptx`` are
    the compute capabilities of its compiled kernels and of its PTX ("9.0").
    """

    release: str
    torch: str
    cuda: str
    python: str
    platform: str
    sass: tuple[str, ...]
    ptx: tuple[str, ...]


def read(url: str) -> tuple[Wheel, ...]:
    """Return the wheels of the index at ``url``, without yanked wheels and trial builds.

    Raises:
        IndexRefusedError: if ``url`` is malformed, cannot be read, or is not the URL of an index.
    """
    if not _URL.fullmatch(url):
        raise IndexRefusedError("the URL of an index begins with http:// or https:// and is percent-encoded")
    parts = urlsplit(url.rstrip("/") + "/catalog.json")
    request = urllib.request.Request(urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])))  # noqa: S310
    if parts.username:
        credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        # The credentials are not sent to another server after a redirect.
        request.add_unredirected_header("Authorization", "Basic " + base64.b64encode(credentials.encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:  # noqa: S310 - only http and https
            content = response.read(_MAX_BYTES + 1)
    except Exception as error:  # networks, proxies and certificates fail with errors of many types
        raise IndexRefusedError(f"it cannot be read: {error}") from error
    if len(content) > _MAX_BYTES:
        raise IndexRefusedError(f"its catalog.json has more than {_MAX_BYTES} bytes")
    return parse(content)


def parse(content: bytes) -> tuple[Wheel, ...]:
    """Return the wheels in the content of a catalog.json, without yanked wheels and trial builds.

    Raises:
        IndexRefusedError: if the content is not a catalog, or has another schema.
    """
    try:
        data = json.loads(content)
        schema, entries = data["schema"], data["entries"]
        if schema != SCHEMA:
            raise IndexRefusedError(
                f"its catalog.json has schema {schema}, and this doctor reads schema {SCHEMA}: upgrade nvdiffrast"
            )
        offered = [make_wheel(entry) for entry in entries if not entry.get("yanked") and not entry.get("partial")]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IndexRefusedError(f"its catalog.json is not the catalog of an index: {error!r}") from error
    return tuple(wheel for wheel in offered if wheel is not None)


def make_wheel(entry: dict[str, Any]) -> Wheel | None:
    """Return the wheel of a catalog entry, or None if a value of the entry must not be used in a command."""
    words = {name: str(entry.get(name)) for name in _WORDS}
    if not all(re.fullmatch(pattern, words[name], re.ASCII) for name, pattern in _WORDS.items()):
        return None
    sass, ptx = (tuple(map(str, entry.get(key) or ())) for key in ("sass", "ptx"))
    return Wheel(words["release"], words["torch"], words["cuda"], words["python"], words["platform"], sass, ptx)
