"""Upload wheels with twine to an index that has PyPI's upload API.

Credentials come from TWINE_USERNAME and TWINE_PASSWORD, the keyring or .pypirc, as with twine: never from the command
line, and no message or log contains them. The target's simple index is read before and after every upload. If it lists
the same bytes, the wheel counts as uploaded; other bytes under the same name are an error. So the same command
completes an interrupted upload.
"""

from __future__ import annotations

import base64
import os
import re
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from packaging.utils import canonicalize_name

from scripts import console
from scripts.errors import CommandError, PublishError, UsageError
from scripts.support import simple_api
from scripts.support.process import call
from scripts.support.simple_api import IndexUnreachable

ATTEMPTS = 5
_TIMEOUT_SECONDS = 1800
_HTTP_STATUS = re.compile(r"HTTPError: (\d{3})")
_NETWORK_ERROR = re.compile(r"ConnectionError|Timeout|ProtocolError|ChunkedEncodingError|RemoteDisconnected|SSLError")
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_T = TypeVar("_T")
_RETRY_HINT = "run the same command again when the server responds: uploaded wheels are not sent again"


@dataclass(frozen=True)
class Target:
    """An upload target: the URL of an upload API or a repository of .pypirc, and its simple index.

    ``environment`` may override TWINE_USERNAME and TWINE_PASSWORD of this process; it is never shown.
    """

    repository: str
    index: str
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def shown(self) -> str:
        """Return the target's name in messages and in the ledger."""
        return self.repository

    @property
    def loopback(self) -> bool:
        """Return whether the target is on this machine."""
        return urllib.parse.urlsplit(self.repository).hostname in _LOOPBACK

    @property
    def options(self) -> list[str]:
        """Return twine's options for this target."""
        return ["--repository-url" if "://" in self.repository else "--repository", self.repository]

    def secret(self, name: str) -> str | None:
        """Return the value of TWINE_USERNAME or TWINE_PASSWORD, or None if it is not set."""
        return {**os.environ, **self.environment}.get(name) or None


@dataclass(frozen=True)
class Item:
    """A wheel to upload and its sha256."""

    path: Path
    sha256: str

    @property
    def project(self) -> str:
        """Return the normalized project name of the wheel."""
        return canonicalize_name(self.path.name.partition("-")[0])


@dataclass(frozen=True)
class Sent:
    """The file names of the wheels that were uploaded now, and of those that the target had already."""

    uploaded: tuple[str, ...]
    already: tuple[str, ...]


def target(where: str, index: str | None = None, environment: Mapping[str, str] | None = None) -> Target:
    """Return the target that a command line names.

    Raises:
        UsageError: if ``where`` is neither a URL nor a repository name, contains credentials, or is a repository name
            without its simple index.
    """
    for url in (where, index or ""):
        _check_address(url)
    if "://" not in where:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", where):
            raise UsageError(f"not a URL, and not a repository's name: {where!r}")
        if index is None:
            raise UsageError(f"the simple index of {where} is not known", hint="name it: --index URL")
    return Target(where, (index or f"{where.rstrip('/')}/simple").rstrip("/") + "/", environment or {})


def _check_address(url: str) -> None:
    """Refuse a malformed URL, or one that contains credentials; the message does not repeat them."""
    try:
        parts = urllib.parse.urlsplit(url)
        host = parts.hostname
    except ValueError as error:
        raise UsageError(f"not a URL: {error}") from error
    if "@" in url:
        hint = "use TWINE_USERNAME and TWINE_PASSWORD, or the keyring"
        raise UsageError("the URL contains credentials, which would appear in logs", hint=hint)
    if "://" in url and (parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment):
        raise UsageError(f"not a plain http(s) URL: {parts.scheme}://{host or ''}{parts.path}")


def send(
    items: Sequence[Item],
    to: Target,
    on_present: Callable[[str, str], None] = lambda name, sha256: None,
    *,
    attempts: int = ATTEMPTS,
    pause: float = 1.0,
) -> Sent:
    """Upload the wheels that the target lacks. Call ``on_present`` with the name and sha256 of each wheel it then has.

    If the server does not respond, or with status 5xx, the request is repeated up to ``attempts`` times; the first
    pause is ``pause`` seconds, and each following one is twice as long.

    Raises:
        PublishError: if the target has other bytes under a wheel's name (then nothing is sent), refuses the credentials
            or a wheel, or stops responding.
    """
    client = _Client(to, attempts, pause)
    listed = client.listing({item.project for item in items})
    already = [item for item in items if _is_present(item, listed, to)]
    missing = [item for item in items if item not in already]
    for item in already:
        on_present(item.path.name, item.sha256)
    for number, item in enumerate(missing):
        try:
            client.upload(item)
        except PublishError as error:
            done = f"{len(already) + number} of {len(items)} wheels are uploaded"
            raise PublishError(f"{error} ({done})", hint=error.hint) from error
        on_present(item.path.name, item.sha256)
    return Sent(tuple(item.path.name for item in missing), tuple(item.path.name for item in already))


def _is_present(item: Item, listed: Mapping[str, str | None], to: Target) -> bool:
    """Return whether the target lists the wheel with its sha256.

    Raises:
        PublishError: if the target has other bytes under that name, or lists it without a sha256.
    """
    name = item.path.name
    if name not in listed:
        return False
    if listed[name] is None:
        raise PublishError(f"{to.shown} lists {name} without a sha256, so the bytes cannot be compared")
    if listed[name] != item.sha256:
        raise PublishError(
            f"{to.shown} has other bytes under the name {name}: sha256 {listed[name]}, the wheel's is {item.sha256}",
            hint="a name never gets other bytes: publish under a new version",
        )
    return True


class _TemporaryError(Exception):
    """The server did not respond, or with an error that a repetition may solve."""


@dataclass(frozen=True)
class _Client:
    """Requests to a target, which are repeated after temporary errors."""

    to: Target
    attempts: int
    pause: float

    def listing(self, projects: Iterable[str]) -> dict[str, str | None]:
        """Return the sha256 of every file of these projects by name; None if the target lists no sha256."""
        found: dict[str, str | None] = {}
        for project in sorted(projects):
            found |= self._retry(partial(self._listing, project))
        return found

    def upload(self, item: Item) -> None:
        """Upload one wheel, and check that the target lists it."""

        def once() -> None:
            # If only the response of the last attempt was lost, the wheel is already there.
            if _is_present(item, self._listing(item.project), self.to):
                return
            refused = self._twine(item)
            if _is_present(item, self._listing(item.project), self.to):
                return
            if refused is not None:
                raise refused
            raise _TemporaryError(f"{item.path.name} was accepted, but is not listed at {self.to.index}")

        self._retry(once)

    def _retry(self, once: Callable[[], _T]) -> _T:
        wait = self.pause
        for left in reversed(range(self.attempts)):
            try:
                return once()
            except _TemporaryError as error:
                if not left:
                    raise PublishError(f"{error}; gave up after {self.attempts} attempts", hint=_RETRY_HINT) from error
                console.log(f"{error}; trying again in {wait:g} s")
            time.sleep(wait)
            wait *= 2
        raise AssertionError("at least one attempt")

    def _listing(self, project: str) -> dict[str, str | None]:
        page = f"{self.to.index}{project}/"
        try:
            return {file.name: file.sha256 for file in simple_api.files(page, authorization=self._authorization())}
        except IndexUnreachable as error:
            if error.status == 404:
                return {}
            if error.status in (401, 403):
                raise _wrong_credentials(f"reading {self.to.index}", error.status) from error
            if error.status is None or error.status >= 500 or error.status == 429:
                raise _TemporaryError(str(error)) from error
            raise PublishError(str(error), hint="name the simple index: --index URL") from error

    def _authorization(self) -> str | None:
        """Return the credentials for the index: those of the upload, and only if both have the same host; else None."""
        user, password = (self.to.secret(f"TWINE_{name}") for name in ("USERNAME", "PASSWORD"))
        upload, index = (urllib.parse.urlsplit(url).netloc for url in (self.to.repository, self.to.index))
        if not user or not password or upload != index:
            return None
        return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    def _twine(self, item: Item) -> PublishError | None:
        """Run twine once. Return None for success, or the error of a refusal that a repetition does not solve."""
        command = [sys.executable, "-m", "twine", "upload", "--non-interactive", "--disable-progress-bar"]
        try:
            call(
                [*command, *self.to.options, str(item.path)],
                env={"NO_COLOR": "1", "COLUMNS": "1000", **self.to.environment},
                quiet=True,
                timeout=_TIMEOUT_SECONDS,
            )
        except CommandError as error:
            return self._refusal(item, error)
        return None

    def _refusal(self, item: Item, error: CommandError) -> PublishError:
        last = self._without_secrets(error.output.strip().splitlines()[-1:] or [str(error)])
        found = _HTTP_STATUS.search(error.output)
        status = int(found[1]) if found else None
        if status in (401, 403):
            return _wrong_credentials(f"uploading to {self.to.shown}", status)
        transient = error.returncode == 124 or (status is None and _NETWORK_ERROR.search(error.output))
        if transient or (status and (status >= 500 or status == 429)):
            raise _TemporaryError(f"{self.to.shown}: {last}")
        return PublishError(
            f"{self.to.shown} did not accept {item.path.name}: {last}", hint="fix that and run the same command again"
        )

    def _without_secrets(self, lines: Sequence[str]) -> str:
        text = " ".join(lines)
        password = self.to.secret("TWINE_PASSWORD")
        return text.replace(password, "***") if password else text


def _wrong_credentials(what: str, status: int) -> PublishError:
    hint = "set TWINE_USERNAME and TWINE_PASSWORD, or the keyring's entry, and run the same command again"
    return PublishError(f"{what}: credentials missing or wrong (status {status})", hint=hint)
