"""Takes out of a report what says whose machine it is about: folders, the user, the host, an index's address."""

from __future__ import annotations

import getpass
import os
import re
import socket
import sys
import sysconfig
from pathlib import Path
from typing import Any

_ADDRESS = re.compile(r"(?P<scheme>(?:https?|file)://)[^/\s\"']*")
_CREDENTIALS = re.compile(r"(?P<scheme>\w+://)[^/@\s\"']+@")
# The last part of a path is what a finding is about; what is before it is the machine's own.
_START = r"(?:<home>[\\/]|(?<![\w.<>/\\~:-])(?:[A-Za-z]:[\\/]|\\\\|/))"
_PATH = re.compile(_START + r"(?:[^\s\\/'\",:;()]+[\\/])+(?P<name>[^\s\\/'\",:;()]*)")
# Shorter ones would be cut out of other words.
_SHORTEST_NAME = 3


def without_credentials(text: str) -> str:
    """An address without the user and password that it may hold."""
    return _CREDENTIALS.sub(r"\g<scheme>", text)


class Redaction:
    """What is replaced by what; it knows this process's Python, home, user and host.

    Every absolute path that ``facts`` hold is known, too: blanks in it do not end it.
    """

    def __init__(self, facts: Any = None) -> None:
        packages = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), str(Path(__file__).parents[1])}
        folders = {**dict.fromkeys(_paths(facts)), **dict.fromkeys(packages, "<site-packages>")}
        folders.update({sys.prefix: "<python>", sys.base_prefix: "<base-python>", str(Path.home()): "<home>"})
        # Whatever lies in a folder of packages keeps its place there.
        kept = (*packages, *(f"{folder}{os.sep}" for folder in packages))
        named = {
            old: new or f"<path>/{Path(old).name}" for old, new in folders.items() if new or not old.startswith(kept)
        }
        named.pop(Path(sys.prefix).anchor, None)
        self._folders = sorted(named.items(), key=lambda item: -len(item[0]))
        self._names = {_called(socket.gethostname): "<host>", _called(getpass.getuser): "<user>"}

    def __call__(self, found: Any) -> Any:
        """``found`` with every string in it redacted, as deep as lists, tuples and dicts go."""
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
            # A path may hold blanks and other signs that end a path elsewhere: known ones go first, and literally.
            text = re.sub(rf"{re.escape(folder)}(?![\w.-])", lambda _, name=name: name, text)  # type: ignore[misc]
        text = _PATH.sub(r"<path>/\g<name>", text)
        for name, shown in self._names.items():
            if len(name) >= _SHORTEST_NAME:
                text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", shown, text)
        return text


def _paths(found: Any) -> set[str]:
    """Every absolute path in it that is a string of its own."""
    if isinstance(found, str):
        return {found} if Path(found).is_absolute() else set()
    inner = found.values() if isinstance(found, dict) else found if isinstance(found, (list, tuple)) else ()
    return {path for one in inner for path in _paths(one)}


def _called(ask: Any) -> str:
    """What a system call says; nothing where it cannot (a container without users)."""
    try:
        return str(ask())
    except Exception:
        return ""
