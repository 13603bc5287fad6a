"""Takes out of a report what says whose machine it is about: folders, the user, the host, an index's address."""

from __future__ import annotations

import getpass
import re
import socket
import sys
import sysconfig
from pathlib import Path
from typing import Any

_ADDRESS = re.compile(r"(?P<scheme>(?:https?|file)://)[^/\s\"']*")
_CREDENTIALS = re.compile(r"(?P<scheme>\w+://)[^/@\s\"']+@")
# The last part of a path is what a finding is about; what is before it is the machine's own.
_PATH = re.compile(r"(?<![\w.<>/\\~:-])(?:[A-Za-z]:[\\/]|\\\\|/)(?:[^\s\\/'\",:;()]+[\\/])+(?P<name>[^\s\\/'\",:;()]*)")
# Shorter ones would be cut out of other words.
_SHORTEST_NAME = 3


def without_credentials(text: str) -> str:
    """An address without the user and password that it may hold."""
    return _CREDENTIALS.sub(r"\g<scheme>", text)


class Redaction:
    """What is replaced by what; it knows this process's Python, home, user and host."""

    def __init__(self) -> None:
        folders = {sysconfig.get_path("purelib"): "<site-packages>", sysconfig.get_path("platlib"): "<site-packages>"}
        folders.update({sys.prefix: "<python>", sys.base_prefix: "<base-python>", str(Path.home()): "<home>"})
        folders.pop("/", None)
        self._folders = sorted(folders.items(), key=lambda item: -len(item[0] or ""))
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
            text = re.sub(rf"{re.escape(folder)}(?![\w.-])", name, text)
        text = _PATH.sub(r"<path>/\g<name>", text)
        for name, shown in self._names.items():
            if len(name) >= _SHORTEST_NAME:
                text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", shown, text)
        return text


def _called(ask: Any) -> str:
    """What a system call says; nothing where it cannot (a container without users)."""
    try:
        return str(ask())
    except Exception:
        return ""
