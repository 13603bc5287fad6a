"""Builds the commands that repair an installation; used in the messages of the loader and the doctor."""

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

from . import _record, _versions

# The index of PyTorch's own builds of torch; it has one folder per CUDA version.
TORCH_CHANNELS = "https://download.pytorch.org/whl/"
# This page shows the installation command for every torch.
TORCH_PAGE = "https://pytorch.org/get-started/locally/"
INDEX_VARIABLE = "NVDIFFRAST_INDEX_URL"
# Text from files and variables is used in a command only if a shell reads it as one word.
_VERSION = re.compile(r"\d+(\.\d+)*(\+[a-z0-9.]+)?", re.ASCII)
_URL = re.compile(r"https?://[A-Za-z0-9._~:/%+-]+", re.ASCII)
_REINSTALL = "pip install --force-reinstall --no-deps"


class Hint(NamedTuple):
    """The next step for the user: ``command`` to run, ``note`` to read before it. Either may be empty."""

    command: str
    note: str = ""


def run_doctor() -> Hint:
    """Return the command that examines the whole installation."""
    return Hint(f"{quoted(sys.executable)} -m nvdiffrast.doctor")


def is_frozen() -> bool:
    """Return whether this process is a program that was made by PyInstaller or a similar tool."""
    return bool(getattr(sys, "frozen", False))


def rebuild_frozen() -> Hint:
    """Return the command that builds this frozen program again, with all files that nvdiffrast needs."""
    program = shlex.quote(f"{Path(sys.executable).stem}.py")
    if not hasattr(sys, "_MEIPASS"):
        return Hint("", "Add the folders nvdiffrast and nvdiffrast.libs of site-packages to the program as files.")
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
    """Return the command that installs the wheel of the same version for the running Python."""
    return _from_index(f"{quoted(sys.executable)} -m {_REINSTALL}", info)


def install_torch(info: Mapping[str, Any] | None, *, replace: bool = False) -> Hint:
    """Return the command that installs the torch that the wheel was built for; ``replace``: another torch is installed.

    torch comes from PyTorch's own index for the wheel's CUDA, because PyPI's torch for Windows does not use CUDA.
    """
    pip = "pip install --force-reinstall" if replace else "pip install"
    line, tag = _versions.torch_line((info or {}).get("torch")), _versions.cuda_tag((info or {}).get("cuda"))
    if line and tag:
        return Hint(f'{pip} --index-url {TORCH_CHANNELS}{tag} "torch=={line}.*"')
    return torch_page() if os.name == "nt" else Hint(f"{pip} torch")


def torch_page() -> Hint:
    """Return the page to read if the command that installs torch is unknown."""
    return Hint("", f"{TORCH_PAGE} shows the command that installs torch with CUDA.")


def quoted(path: str | Path) -> str:
    """Return a path as one word of a command line of this system."""
    text = str(path)
    if os.name != "nt":
        return shlex.quote(text)
    return text if re.fullmatch(r"[\w\\/:.~+-]+", text) else f'"{text}"'


def _from_index(command: str, info: Mapping[str, Any] | None) -> Hint:
    version = _version(info)
    requirement = f"nvdiffrast=={version}" if version else "nvdiffrast"
    index, tag = os.environ.get(INDEX_VARIABLE, ""), _versions.cuda_tag((info or {}).get("cuda"))
    if _URL.fullmatch(index) and tag:
        return Hint(f"{command} --index-url {index.rstrip('/')}/whl/{tag}/ {requirement}")
    note = "The index of the wheel is unknown: unless pip is configured to use it, add --index-url with its URL."
    return Hint(f"{command} {requirement}", note)


def _installed_from() -> str | None:
    """Return the wheel file or URL that was given to pip, as one word of a command, or None for an index."""
    for folder in _record.distributions()[:1]:
        try:
            url = str(json.loads((folder / "direct_url.json").read_text(encoding="utf-8"))["url"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if _URL.fullmatch(url) and url.endswith(".whl"):
            return url
        parts = urlsplit(url)
        file = Path(url2pathname(parts.path))
        if parts.scheme == "file" and file.suffix == ".whl" and file.is_file():
            return quoted(file)
    return None


def _version(info: Mapping[str, Any] | None) -> str | None:
    """Return the installed version, which contains CUDA and torch: "0.3.3.1+cu130.torch2.14". None if unknown."""
    found = _record.distributions()
    if len(found) == 1:
        version = found[0].name[len("nvdiffrast-") : -len(".dist-info")]
    elif info is not None:
        line, tag = _versions.torch_line(info.get("torch")), _versions.cuda_tag(info.get("cuda"))
        version = f"{info.get('release')}+{tag}.torch{line}"
    else:
        return None
    return version if _VERSION.fullmatch(version) else None
