"""Download files with a pinned sha256; interrupted downloads are resumed."""

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
_TEMPORARY_STATUS = {408, 425, 429, 500, 502, 503, 504}


class _TryAgainError(Exception):
    """A temporary failure, such as a busy server or a broken connection."""


def fetch(url: str, *, sha256: str, size: int | None, folder: Path, pause: float = 1.0) -> Path:
    """Download ``url`` to ``folder/SHA256/NAME`` unless it is there already, and return that path.

    ``size`` in bytes limits the download and is verified, if given. ``pause`` is the time between attempts in seconds;
    it doubles with every attempt.

    Raises:
        ToolchainError: if the server cannot be reached or refuses, or the file differs from its pin.
    """
    if not url.startswith(("https://", "http://")):
        raise ToolchainError(f"{url} is not an http or https URL", hint="correct the lock file")
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
    """Complete the file ``part`` in several attempts; delete it if its sha256 is wrong."""
    cause = "the size in the lock is wrong"
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
        # A part from an earlier run may belong to another file. Without such a part, the server's file is wrong.
        if not resumed:
            raise ToolchainError(
                f"{url} has sha256 {found}, but {sha256} is pinned",
                hint="do not use it; find out why it changed, then run `nox -s lock`",
            )
    raise ToolchainError(
        f"{url} could not be downloaded, tried {_ATTEMPTS} times: {cause}",
        hint="run the same command again: the download continues where it stopped",
    )


def _receive(part: Path, url: str, size: int | None) -> None:
    """Request the missing bytes once and append them to ``part``."""
    have = part.stat().st_size if part.exists() else 0
    if size is not None and have == size:
        return
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310
            resumes = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
            _store(answer, part, have if resumes else 0, size)
    except urllib.error.HTTPError as error:
        if error.code == 416:
            part.unlink(missing_ok=True)
        elif error.code not in _TEMPORARY_STATUS:
            raise ToolchainError(
                f"{url}: the server answers {error.code} {error.reason}", hint="check the URL in the lock file"
            ) from error
        raise _TryAgainError(f"the server answers {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise _TryAgainError(f"{type(error).__name__}: {error}") from error


def _store(answer: http.client.HTTPResponse, part: Path, start: int, size: int | None) -> None:
    """Write the response to ``part`` from offset ``start``; stop if it exceeds ``size``."""
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
