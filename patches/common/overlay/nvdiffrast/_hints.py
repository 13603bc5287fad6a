"""Commands that fix an installation, as the messages of the loader give them; imported only after a failure."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import url2pathname

from . import _record

# The index of torch's own builds; one folder for each CUDA version.
TORCH_CHANNELS = "https://download.pytorch.org/whl/"
INDEX_VARIABLE = "NVDIFFRAST_INDEX_URL"
# Text from files and variables becomes part of a command only if a shell reads it as one word.
_VERSION = re.compile(r"\d+(\.\d+)*(\+[a-z0-9.]+)?", re.ASCII)
_ADDRESS = re.compile(r"https?://[A-Za-z0-9._~:/%+-]+", re.ASCII)
_REINSTALL = "pip install --force-reinstall --no-deps"


class Hint(NamedTuple):
    """``command`` is what the reader runs next, ``note`` a sentence to read before it; either may be empty."""

    command: str
    note: str = ""


def doctor() -> Hint:
    """Return the command that examines the whole installation, for a failure that no single command fixes."""
    return Hint(f"{quoted(sys.executable)} -m nvdiffrast.doctor")


def is_frozen() -> bool:
    """Return whether this process is a program that PyInstaller or a similar tool made."""
    return bool(getattr(sys, "frozen", False))


def rebuild_frozen() -> Hint:
    """Return the command that freezes this program again, with everything that nvdiffrast needs."""
    program = shlex.quote(f"{Path(sys.executable).stem}.py")
    if not hasattr(sys, "_MEIPASS"):
        return Hint("", "Put the folders nvdiffrast and nvdiffrast.libs of site-packages into the program as files.")
    return Hint(
        f"pyinstaller --clean --collect-all nvdiffrast --collect-all torch {program}",
        "Run the command where the program is built, with the name of its script and its own options.",
    )


def reinstall(info: Mapping[str, Any] | None) -> Hint:
    """Return the command that installs the same wheel again, from the file or the index that it came from.

    ``info`` is the content of build_info.json.
    """
    source = _installed_from()
    if source is not None:
        return Hint(f"{_REINSTALL} {source}")
    return _from_index(_REINSTALL, info)


def install_for_this_python(info: Mapping[str, Any] | None) -> Hint:
    """Return the command by which this Python's pip installs its own wheel of the same version."""
    return _from_index(f"{quoted(sys.executable)} -m {_REINSTALL}", info)


def install_torch(info: Mapping[str, Any] | None, *, again: bool = False) -> Hint:
    """Return the command that installs the torch that the wheel is for; ``again``: in place of an installed one.

    PyPI's torch for Windows has no CUDA, so torch comes from PyTorch's own index for the wheel's CUDA.
    """
    pip = "pip install --force-reinstall" if again else "pip install"
    line, tag = _torch_line(info), _cuda_tag(info)
    if line and tag:
        return Hint(f'{pip} --index-url {TORCH_CHANNELS}{tag} "torch=={line}.*"')
    if os.name == "nt":
        return Hint("", "https://pytorch.org/get-started/locally/ shows the command for a torch with CUDA.")
    return Hint(f"{pip} torch")


def quoted(path: str | Path) -> str:
    """Return a path as one word of a command line of this system."""
    text = str(path)
    if os.name != "nt":
        return shlex.quote(text)
    return text if re.fullmatch(r"[\w\\/:.~+-]+", text) else f'"{text}"'


def _from_index(command: str, info: Mapping[str, Any] | None) -> Hint:
    version = _version(info)
    requirement = f"nvdiffrast=={version}" if version else "nvdiffrast"
    index, tag = os.environ.get(INDEX_VARIABLE, ""), _cuda_tag(info)
    if _ADDRESS.fullmatch(index) and tag:
        return Hint(f"{command} --index-url {index.rstrip('/')}/whl/{tag}/ {requirement}")
    note = (
        "The index that the wheel came from is not known here: unless pip is set to it, add --index-url with its URL."
    )
    return Hint(f"{command} {requirement}", note)


def _installed_from() -> str | None:
    """Return the wheel that pip was given by its file or URL, as a word of a command; None if it came from an index."""
    for folder in _record.distributions()[:1]:
        try:
            address = str(json.loads((folder / "direct_url.json").read_text(encoding="utf-8"))["url"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if _ADDRESS.fullmatch(address) and address.endswith(".whl"):
            return address
        parts = urlsplit(address)
        file = Path(url2pathname(parts.path))
        if parts.scheme == "file" and file.suffix == ".whl" and file.is_file():
            return quoted(file)
    return None


def _version(info: Mapping[str, Any] | None) -> str | None:
    """Return the installed version, which names CUDA and torch: 0.3.3.1+cu130.torch2.14."""
    found = _record.distributions()
    if len(found) == 1:
        version = found[0].name[len("nvdiffrast-") : -len(".dist-info")]
    elif info is not None:
        version = f"{info.get('release')}+{_cuda_tag(info)}.torch{_torch_line(info)}"
    else:
        return None
    return version if _VERSION.fullmatch(version) else None


def _torch_line(info: Mapping[str, Any] | None) -> str | None:
    """Return 2.14 for a wheel that was built with torch 2.14.1."""
    found = re.match(r"\d+\.\d+", str((info or {}).get("torch")), re.ASCII)
    return found[0] if found else None


def _cuda_tag(info: Mapping[str, Any] | None) -> str | None:
    """Return cu130 for a wheel that was built for CUDA 13.0."""
    version = str((info or {}).get("cuda"))
    return "cu" + version.replace(".", "") if re.fullmatch(r"\d+\.\d+", version, re.ASCII) else None
