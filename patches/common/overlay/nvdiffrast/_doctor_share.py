"""Takes out of a report what says whose machine it is about: folders, the user, the host, an index's address."""

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

# PyTorch's pages and upstream's repository are the same for everybody.
_PUBLIC = r"(?:[\w-]+\.)?pytorch\.org(?:[/\s]|$)|github\.com/NVlabs/"
_ADDRESS = re.compile(rf"(?P<scheme>(?:https?|file)://)(?!{_PUBLIC})[^/\s\"']*")
_CREDENTIALS = re.compile(r"(?P<scheme>\w+://)[^/@\s\"']+@")
# Where an absolute path begins, or goes on behind a folder that is replaced; a slash before or after it is of https://.
_DRIVE = r"[A-Za-z]:[\\/]" if os.name == "nt" else r"[A-Za-z]:\\"
_START = re.compile(rf"<(?:home|path)>[\\/]|(?<![\w.<>/\\~-])(?:{_DRIVE}|\\\\|/(?!/))")
# A part of a path, up to its separator; and what ends a path in a text. A blank ends one only in the last part.
_PART = r"[^\s\\/'\",:;()]+"
_PARTS = re.compile(rf"(?:{_PART}[\\/])+")
_LAST = re.compile(r"[^\s\\/'\",:;()]*")
# Words after a blank that go on with the path: at most two without a separator before one that has it.
_MORE = re.compile(rf"(?:{_PART})?(?: {_PART}){{0,2}} {_PART}[\\/]")
_QUOTED = re.compile(r"[^'\"\n]*")
_FILE = re.compile(r"\.[A-Za-z]\w*$|\.so(?:\.\d+)*$")
# A user or a host of such a name is not told from the words of a report, and says nothing about its owner.
_COMMON = re.compile(
    "admin|build|cuda|debian|default|docker|driver|fedora|gpu|guest|home|host|index|linux|localhost|nvdiffrast|nvidia|"
    "pip|plugin|python|root|runner|server|system|tests?|torch|ubuntu|user|vagrant|wheel|windows",
    re.IGNORECASE,
)
_SHORTEST_NAME = 3
# Of a path, in characters.
_LONGEST = 4096


def without_credentials(text: str) -> str:
    """Return an address without the user and password that it may hold."""
    return _CREDENTIALS.sub(r"\g<scheme>", text)


class Redaction:
    """Replaces what is private in texts; it knows this process's Python, home, environment, user and host.

    The absolute paths that ``facts`` and the environment hold are known, too: blanks in them do not end them.
    """

    def __init__(self, facts: Any = None) -> None:
        packages = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), str(Path(__file__).parents[1])}
        known = {*_paths(facts), *_paths([value.split(os.pathsep) for value in os.environ.values()])}
        folders = {**dict.fromkeys(known), **dict.fromkeys(packages, "<site-packages>")}
        folders.update({sys.prefix: "<python>", sys.base_prefix: "<base-python>", str(Path.home()): "<home>"})
        # Whatever lies in a folder of packages keeps its place there.
        kept = (*packages, *(f"{folder}{os.sep}" for folder in packages))
        named = {
            old: new or f"<path>/{Path(old).name}" for old, new in folders.items() if new or not old.startswith(kept)
        }
        named.pop(Path(sys.prefix).anchor, None)
        self._folders = [
            (re.compile(rf"(?<![\w.<>]){re.escape(old.rstrip(os.sep))}(?![\w.-])"), new)
            for old, new in sorted(named.items(), key=lambda item: -len(item[0]))
        ]
        self._names = [*_hosts(_called(socket.gethostname)), *_users(_called(getpass.getuser))]

    def __call__(self, found: Any) -> Any:
        """Return ``found`` with every string in it redacted, as deep as lists, tuples and dicts go."""
        if isinstance(found, str):
            return self._text(found)
        if isinstance(found, dict):
            return {self(key): self(value) for key, value in found.items()}
        if isinstance(found, (list, tuple)):
            return [self(one) for one in found]
        return found

    def _text(self, text: str) -> str:
        text = _ADDRESS.sub(r"\g<scheme><index>", text)
        for folder, name in self._folders:
            text = folder.sub(lambda _, name=name: name, text)  # type: ignore[misc]
        text = "".join(_without_folders(text))
        for pattern, shown in self._names:
            text = pattern.sub(shown, text)
        return text


def _without_folders(text: str) -> Iterator[str]:
    """Yield the pieces of ``text`` with every absolute path shortened to its last part, which a finding is about."""
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
    """Return the end of the longest folder of this machine that begins at ``start``; 0 if there is no such folder."""
    root = start[0].replace("<home>", str(Path.home()))
    if root.startswith("<"):
        return 0
    line = text[start.end() :].partition("\n")[0][:_LONGEST]
    ends = [match.end() for match in re.finditer(r"[\\/]", line)]
    return next((start.end() + end for end in reversed(ends) if _is_folder(root + line[:end])), 0)


def _is_folder(path: str) -> bool:
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):
        return False


def _folders_end(text: str, start: int, *, quoted: bool) -> int:
    """Return where the last part of the path begins whose first part begins at ``start``."""
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
        # A blank behind a file's name ends the path.
        if more is None or last is None or _FILE.search(last[0]):
            return end
        end = more.end()


def _hosts(name: str) -> Iterator[tuple[re.Pattern[str], str]]:
    """Yield patterns for a host: its whole name, then its first label."""
    for one in dict.fromkeys((name, name.partition(".")[0])):
        yield from _patterns(one, "<host>", rf"(?<=@){re.escape(one)}(?![\w-])", re.IGNORECASE)


def _users(name: str) -> Iterator[tuple[re.Pattern[str], str]]:
    own = rf"(?<![\w.-]){re.escape(name)}(?=@)|(?<=<path>/){re.escape(name)}(?![\w.-])"
    yield from _patterns(name, "<user>", own)


def _patterns(name: str, shown: str, own: str, flags: int = 0) -> Iterator[tuple[re.Pattern[str], str]]:
    """Yield what finds ``name``: ``own`` is where only a name can be; a long and uncommon one is found anywhere."""
    if not name:
        return
    yield re.compile(own, flags), shown
    if len(name) >= _SHORTEST_NAME and not _COMMON.fullmatch(name):
        yield re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])", flags), shown


def _paths(found: Any) -> set[str]:
    """Return every absolute path in ``found`` that is a string of its own."""
    if isinstance(found, str):
        return {found} if Path(found).is_absolute() and len(Path(found).parts) > 2 else set()
    inner = found.values() if isinstance(found, dict) else found if isinstance(found, (list, tuple)) else ()
    return {path for one in inner for path in _paths(one)}


def _called(ask: Any) -> str:
    """Return what a system call says; empty where it fails (a container without users)."""
    try:
        return str(ask())
    except Exception:
        return ""
