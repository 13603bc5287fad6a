"""Removes private data from a report: folders, the user, the host and the URL of the index."""

from __future__ import annotations

import getpass
import os
import re
import socket
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# The URLs of PyTorch and of upstream's repository are not private.
_PUBLIC = r"(?:[\w-]+\.)?pytorch\.org(?:[/\s]|$)|github\.com/NVlabs/"
_URL = re.compile(rf"(?P<scheme>(?:https?|file)://)(?!{_PUBLIC})[^/\s\"']*")
_CREDENTIALS = re.compile(r"(?P<scheme>\w+://)[^/@\s\"']+@")
# The start of an absolute path, or of the rest of a path after a replaced folder. The slashes of https:// do not match.
_DRIVE = r"[A-Za-z]:[\\/]" if os.name == "nt" else r"[A-Za-z]:\\"
_START = re.compile(rf"<(?:home|path)>[\\/]|(?<![\w.<>/\\~-])(?:{_DRIVE}|\\\\|/(?!/))")
# A part of a path, without separators and characters that end a path. A blank ends a path only in its last part.
_PART = r"[^\s\\/'\",:;()]+"
_PARTS = re.compile(rf"(?:{_PART}[\\/])+")
_LAST = re.compile(r"[^\s\\/'\",:;()]*")
# Words after a blank that continue the path: at most two words without a separator, then one with a separator.
_MORE = re.compile(rf"(?:{_PART})?(?: {_PART}){{0,2}} {_PART}[\\/]")
_QUOTED = re.compile(r"[^'\"\n]*")
_FILE = re.compile(r"\.[A-Za-z]\w*$|\.so(?:\.\d+)*$")
# Names of users and hosts that are also words of a report. They do not identify anybody.
_COMMON = re.compile(
    "admin|build|cuda|debian|default|docker|driver|fedora|gpu|guest|home|host|index|linux|localhost|nvdiffrast|nvidia|"
    "pip|plugin|python|root|runner|server|system|tests?|torch|ubuntu|user|vagrant|wheel|windows",
    re.IGNORECASE,
)
_SHORTEST_NAME = 3
# The longest path, in characters.
_LONGEST = 4096


def without_credentials(text: str) -> str:
    """Return a URL without its user name and password."""
    return _CREDENTIALS.sub(r"\g<scheme>", text)


class Redaction:
    """A replacement of private data in texts by placeholders such as <home>, <user> and <host>.

    It replaces the folders of this Python, the home folder, the user, the host, and the absolute paths in ``facts`` and
    in the environment variables; these paths may contain blanks.
    """

    def __init__(self, facts: Any = None) -> None:
        packages = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), str(Path(__file__).parents[1])}
        known = {*_absolute_paths(facts), *_absolute_paths([value.split(os.pathsep) for value in os.environ.values()])}
        folders = {**dict.fromkeys(known), **dict.fromkeys(packages, "<site-packages>")}
        folders.update({sys.prefix: "<python>", sys.base_prefix: "<base-python>", str(Path.home()): "<home>"})
        # Paths in a folder of packages are shown relative to that folder.
        kept = (*packages, *(f"{folder}{os.sep}" for folder in packages))
        named = {
            old: new or f"<path>/{Path(old).name}" for old, new in folders.items() if new or not old.startswith(kept)
        }
        named.pop(Path(sys.prefix).anchor, None)
        self._folders = [
            (re.compile(rf"(?<![\w.<>]){re.escape(old.rstrip(os.sep))}(?![\w.-])"), new)
            for old, new in sorted(named.items(), key=lambda item: -len(item[0]))
        ]
        self._names = [*_host_patterns(_call(socket.gethostname)), *_user_patterns(_call(getpass.getuser))]

    def __call__(self, data: Any) -> Any:
        """Return ``data`` with every string in it redacted, including strings in nested lists, tuples and dicts."""
        if isinstance(data, str):
            return self._redact(data)
        if isinstance(data, dict):
            return {self(key): self(value) for key, value in data.items()}
        if isinstance(data, (list, tuple)):
            return [self(item) for item in data]
        return data

    def _redact(self, text: str) -> str:
        text = _URL.sub(r"\g<scheme><index>", text)
        for folder, name in self._folders:
            text = folder.sub(lambda _, name=name: name, text)  # type: ignore[misc]
        text = "".join(_without_folders(text))
        for pattern, shown in self._names:
            text = pattern.sub(shown, text)
        return text


def _without_folders(text: str) -> Iterator[str]:
    """Yield the pieces of ``text``, with every absolute path shortened to its last part."""
    done = 0
    for start in _START.finditer(text):
        if start.start() < done:
            continue
        quoted = text[: start.start()].endswith(("'", '"'))
        end = _folders_end(text, max(start.end(), _existing_end(text, start)), quoted=quoted)
        if end > start.end() or start[0].startswith(("<", "\\\\")):
            yield f"{text[done : start.start()]}<path>/"
            done = end
    yield text[done:]


def _existing_end(text: str, start: re.Match[str]) -> int:
    """Return the end of the longest path at ``start`` that is a folder of this machine, or 0."""
    root = start[0].replace("<home>", str(Path.home()))
    if root.startswith("<"):
        return 0
    line = text[start.end() :].partition("\n")[0][:_LONGEST]
    ends = [match.end() for match in re.finditer(r"[\\/]", line)]
    return next((start.end() + end for end in reversed(ends) if _is_folder(root + line[:end])), 0)


def _is_folder(path: str) -> bool:
    """Return whether ``path`` is a folder; False for a text that cannot be a path."""
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):
        return False


def _folders_end(text: str, start: int, *, quoted: bool) -> int:
    """Return the start of the last part of the path whose first part begins at ``start``."""
    if quoted:
        whole = _QUOTED.match(text, start)
        assert whole is not None
        return start + max(whole[0].rfind("/"), whole[0].rfind("\\")) + 1
    end = start
    while True:
        parts = _PARTS.match(text, end)
        if parts is not None:
            end = parts.end()
        last = _LAST.match(text, end)
        more = _MORE.match(text, end)
        # A blank after a file name ends the path.
        if more is None or last is None or _FILE.search(last[0]):
            return end
        end = more.end()


def _host_patterns(name: str) -> Iterator[tuple[re.Pattern[str], str]]:
    """Yield patterns that find a host by its whole name and by its first label."""
    for label in dict.fromkeys((name, name.partition(".")[0])):
        yield from _patterns(label, "<host>", rf"(?<=@){re.escape(label)}(?![\w-])", re.IGNORECASE)


def _user_patterns(name: str) -> Iterator[tuple[re.Pattern[str], str]]:
    """Yield patterns that find a user by name."""
    certain = rf"(?<![\w.-]){re.escape(name)}(?=@)|(?<=<path>/){re.escape(name)}(?![\w.-])"
    yield from _patterns(name, "<user>", certain)


def _patterns(name: str, shown: str, certain: str, flags: int = 0) -> Iterator[tuple[re.Pattern[str], str]]:
    """Yield the patterns for ``name``, each with its placeholder ``shown``.

    The pattern ``certain`` finds only names. A long and uncommon name is also found anywhere else.
    """
    if not name:
        return
    yield re.compile(certain, flags), shown
    if len(name) >= _SHORTEST_NAME and not _COMMON.fullmatch(name):
        yield re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])", flags), shown


def _absolute_paths(data: Any) -> set[str]:
    """Return the strings in ``data`` that are absolute paths, including those in nested lists, tuples and dicts."""
    if isinstance(data, str):
        return {data} if Path(data).is_absolute() and len(Path(data).parts) > 2 else set()
    items = data.values() if isinstance(data, dict) else data if isinstance(data, (list, tuple)) else ()
    return {path for item in items for path in _absolute_paths(item)}


def _call(function: Any) -> str:
    """Return the result of a system call; empty if it fails, for example in a container without users."""
    try:
        return str(function())
    except Exception:
        return ""
