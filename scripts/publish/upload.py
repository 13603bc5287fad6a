"""Upload wheels with twine to any index that has its upload API, whatever is there already.

Credentials come from TWINE_USERNAME and TWINE_PASSWORD, the keyring or .pypirc, as twine has it: never from a command
line, and no message or log has them. Before and after every upload the target's simple index says what it has: the
same bytes are success, whoever sent them; other bytes under the name are an error. So an upload that broke off is
completed by the same command.
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
_TIMEOUT = 1800
_REFUSED = re.compile(r"HTTPError: (\d{3})")
_BROKEN = re.compile(r"ConnectionError|Timeout|ProtocolError|ChunkedEncodingError|RemoteDisconnected|SSLError")
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_T = TypeVar("_T")
_AGAIN = "run the same command again when it is back: what is there already is not sent again"


@dataclass(frozen=True)
class Target:
    """Where to upload: the URL of an upload API, or a repository that .pypirc names; ``index`` is its simple index.

    ``environment`` may hold TWINE_USERNAME and TWINE_PASSWORD, in place of this process's own; it is never shown.
    """

    repository: str
    index: str
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def shown(self) -> str:
        """The target in messages and in the ledger."""
        return self.repository

    @property
    def loopback(self) -> bool:
        """Whether it is on this machine."""
        return urllib.parse.urlsplit(self.repository).hostname in _LOOPBACK

    @property
    def options(self) -> list[str]:
        """How twine is told."""
        return ["--repository-url" if "://" in self.repository else "--repository", self.repository]

    def secret(self, name: str) -> str | None:
        """The value of TWINE_USERNAME or TWINE_PASSWORD."""
        return {**os.environ, **self.environment}.get(name) or None


@dataclass(frozen=True)
class Item:
    """A wheel to upload and its sha256."""

    path: Path
    sha256: str

    @property
    def project(self) -> str:
        """The project that its name says, as an index lists it."""
        return canonicalize_name(self.path.name.partition("-")[0])


@dataclass(frozen=True)
class Sent:
    """Names of wheels: sent now, and there already."""

    uploaded: tuple[str, ...]
    already: tuple[str, ...]


def target(where: str, index: str | None = None, environment: Mapping[str, str] | None = None) -> Target:
    """A target from what a command line says.

    Raises:
        UsageError: not a URL or a name, credentials in it, or a name without its simple index.
    """
    for url in (where, index or ""):
        _check_address(url)
    if "://" not in where:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", where):
            raise UsageError(f"not a URL, and not a repository's name: {where!r}")
        if index is None:
            raise UsageError(f"where is the simple index of {where}?", hint="say it: --index URL")
    return Target(where, (index or f"{where.rstrip('/')}/simple").rstrip("/") + "/", environment or {})


def _check_address(url: str) -> None:
    """Refuse an address that is none, or holds a secret; the message does not repeat it."""
    try:
        parts = urllib.parse.urlsplit(url)
        host = parts.hostname
    except ValueError as error:
        raise UsageError(f"not an address: {error}") from error
    if "@" in url:
        hint = "put them into TWINE_USERNAME and TWINE_PASSWORD, or the keyring"
        raise UsageError("an address with credentials in it: they would end up in logs", hint=hint)
    if "://" in url and (parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment):
        raise UsageError(f"not a plain http(s) address: {parts.scheme}://{host or ''}{parts.path}")


def send(
    items: Sequence[Item],
    to: Target,
    tell: Callable[[str, str], None] = lambda name, sha256: None,
    *,
    attempts: int = ATTEMPTS,
    pause: float = 1.0,
) -> Sent:
    """Upload what is not there yet; ``tell`` hears each name and sha256 that is there in the end.

    A server that does not answer, or answers 5xx, is tried ``attempts`` times, after ``pause`` seconds, twice that, ...

    Raises:
        PublishError: a name is taken by other bytes (nothing was sent then); credentials or a wheel refused; no answer
            any more.
    """
    retry = _Retry(to, attempts, pause)
    there = retry.listing({item.project for item in items})
    already = [item for item in items if _is_there(item, there, to)]
    missing = [item for item in items if item not in already]
    for item in already:
        tell(item.path.name, item.sha256)
    for number, item in enumerate(missing):
        try:
            retry.upload(item)
        except PublishError as error:
            done = f"{len(already) + number} of {len(items)} wheels are there"
            raise PublishError(f"{error} ({done})", hint=error.hint) from error
        tell(item.path.name, item.sha256)
    return Sent(tuple(item.path.name for item in missing), tuple(item.path.name for item in already))


def _is_there(item: Item, there: Mapping[str, str | None], to: Target) -> bool:
    """Whether the target has these bytes.

    Raises:
        PublishError: it has others under that name, or does not say which.
    """
    name = item.path.name
    if name not in there:
        return False
    if there[name] is None:
        raise PublishError(f"{to.shown} has a {name} and tells no sha256: it cannot be compared")
    if there[name] != item.sha256:
        raise PublishError(
            f"{to.shown} has other bytes under the name {name}: sha256 {there[name]}, ours is {item.sha256}",
            hint="a name never gets other bytes: publish under a new version",
        )
    return True


class _Broken(Exception):  # noqa: N818 - no failure yet
    """The server did not answer, or could not; it may yet."""


@dataclass(frozen=True)
class _Retry:
    """A target, and the patience for it."""

    to: Target
    attempts: int
    pause: float

    def listing(self, projects: Iterable[str]) -> dict[str, str | None]:
        """The sha256 of every file that the target has of these projects, by name; None where it does not tell."""
        found: dict[str, str | None] = {}
        for project in sorted(projects):
            found |= self._patiently(partial(self._listing, project))
        return found

    def upload(self, item: Item) -> None:
        """Upload one wheel and see that it is there."""

        def once() -> None:
            # An answer that got lost: it may be there although the last attempt failed.
            if _is_there(item, self._listing(item.project), self.to):
                return
            refused = self._twine(item)
            if _is_there(item, self._listing(item.project), self.to):
                return
            if refused is not None:
                raise refused
            raise _Broken(f"{item.path.name} was taken, but is not listed at {self.to.index}")

        self._patiently(once)

    def _patiently(self, once: Callable[[], _T]) -> _T:
        wait = self.pause
        for left in reversed(range(self.attempts)):
            try:
                return once()
            except _Broken as error:
                if not left:
                    raise PublishError(f"{error}; gave up after {self.attempts} attempts", hint=_AGAIN) from error
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
                raise _Broken(str(error)) from error
            raise PublishError(str(error), hint="say where the simple index is: --index URL") from error

    def _authorization(self) -> str | None:
        """Credentials for the index: the upload's own, and only for its own host."""
        user, password = (self.to.secret(f"TWINE_{name}") for name in ("USERNAME", "PASSWORD"))
        upload, index = (urllib.parse.urlsplit(url).netloc for url in (self.to.repository, self.to.index))
        if not user or not password or upload != index:
            return None
        return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    def _twine(self, item: Item) -> PublishError | None:
        """Run twine once; None for success, the error for a refusal that no repetition mends."""
        command = [sys.executable, "-m", "twine", "upload", "--non-interactive", "--disable-progress-bar"]
        try:
            call(
                [*command, *self.to.options, str(item.path)],
                env={"NO_COLOR": "1", "COLUMNS": "1000", **self.to.environment},
                quiet=True,
                timeout=_TIMEOUT,
            )
        except CommandError as error:
            return self._refusal(item, error)
        return None

    def _refusal(self, item: Item, error: CommandError) -> PublishError:
        last = self._without_secrets(error.output.strip().splitlines()[-1:] or [str(error)])
        found = _REFUSED.search(error.output)
        status = int(found[1]) if found else None
        if status in (401, 403):
            return _wrong_credentials(f"uploading to {self.to.shown}", status)
        transient = error.returncode == 124 or (status is None and _BROKEN.search(error.output))
        if transient or (status and (status >= 500 or status == 429)):
            raise _Broken(f"{self.to.shown}: {last}")
        return PublishError(
            f"{self.to.shown} did not take {item.path.name}: {last}", hint="fix that and run the same command again"
        )

    def _without_secrets(self, lines: Sequence[str]) -> str:
        text = " ".join(lines)
        password = self.to.secret("TWINE_PASSWORD")
        return text.replace(password, "***") if password else text


def _wrong_credentials(what: str, status: int) -> PublishError:
    hint = "set TWINE_USERNAME and TWINE_PASSWORD, or the keyring's entry, and run the same command again"
    return PublishError(f"{what}: credentials missing or wrong (status {status})", hint=hint)
