"""Fetch a file whose content is known beforehand: resumed when interrupted, used only when its sha256 is right."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from pathlib import Path

from scripts import console
from scripts.errors import ToolchainError
from scripts.support.files import exclusive, file_sha256

_CHUNK = 1 << 20
_ATTEMPTS = 4
_TIMEOUT_SECONDS = 60.0
_PASSING = {408, 425, 429, 500, 502, 503, 504}


class _TryAgainError(Exception):
    """A failure that may pass: the server is busy, the connection broke."""


def fetch(url: str, *, sha256: str, size: int | None, folder: Path, pause: float = 1.0) -> Path:
    """The file at ``url``, verified, as ``folder/SHA256/NAME``; what lies there already is not fetched again.

    ``size`` in bytes is checked when given, and bounds what is read. ``pause`` in seconds doubles from try to try.

    Raises:
        ToolchainError: the server cannot be reached or refuses, or what it sends is not the file that is pinned.
    """
    if not url.startswith(("https://", "http://")):
        raise ToolchainError(f"{url} is not a web address", hint="correct the lock file")
    final = folder / sha256 / url.rpartition("/")[2]
    with exclusive(folder / f"{sha256}.lock"):
        if not final.exists():
            console.log(f"   fetching {url}" + (f" ({console.size(size)})" if size else ""))
            part = folder / f"{sha256}.part"
            _fill(part, url, sha256, size, pause)
            final.parent.mkdir(parents=True, exist_ok=True)
            part.replace(final)
    return final


def _fill(part: Path, url: str, sha256: str, size: int | None, pause: float) -> None:
    """Bring ``part`` to the pinned content, in several tries; a wrong file is deleted."""
    cause = "the lock holds another size"
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(pause * 2 ** (attempt - 1))
        resumed = part.exists() and part.stat().st_size > 0
        try:
            _receive(part, url, size)
        except _TryAgainError as error:
            cause = str(error)
            console.log(f"   {url}: {cause}")
            continue
        found = file_sha256(part)
        if found == sha256:
            return
        part.unlink()
        # What an earlier run left may be of another file; what came in one piece is what the server has.
        if not resumed:
            raise ToolchainError(
                f"{url} has sha256 {found}, but {sha256} is pinned",
                hint="do not use it; find out why it changed, then run `nox -s lock`",
            )
    raise ToolchainError(
        f"{url} cannot be had, tried {_ATTEMPTS} times: {cause}",
        hint="run the same command again: it goes on where it stopped",
    )


def _receive(part: Path, url: str, size: int | None) -> None:
    """One request: append to ``part`` what is missing."""
    have = part.stat().st_size if part.exists() else 0
    if size is not None and have == size:
        return
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310
            goes_on = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
            _store(answer, part, have if goes_on else 0, size)
    except urllib.error.HTTPError as error:
        if error.code == 416:
            part.unlink(missing_ok=True)
        elif error.code not in _PASSING:
            raise ToolchainError(
                f"{url}: the server answers {error.code} {error.reason}", hint="check the address in the lock file"
            ) from error
        raise _TryAgainError(f"the server answers {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise _TryAgainError(f"{type(error).__name__}: {error}") from error


def _store(answer: http.client.HTTPResponse, part: Path, start: int, size: int | None) -> None:
    """Write the body from ``start`` on; stop at once when it grows past ``size``."""
    part.parent.mkdir(parents=True, exist_ok=True)
    stored = start
    total = size if size is not None or answer.length is None else start + answer.length
    name = answer.url.rpartition("/")[2]
    with part.open("r+b" if start else "wb") as file, console.transfer(name, total, start) as arrived:
        file.seek(start)
        while chunk := answer.read(_CHUNK):
            stored += len(chunk)
            if size is not None and stored > size:
                break
            file.write(chunk)
            arrived(len(chunk))
    if size is not None and stored > size:
        part.unlink()
        raise ToolchainError(
            f"{answer.url} is larger than the {size} bytes that are pinned", hint="do not use it; run `nox -s lock`"
        )
    if size is not None and stored < size:
        raise _TryAgainError(f"ended after {stored} of {size} bytes")
    if answer.length:
        raise _TryAgainError(f"ended {answer.length} bytes early")
