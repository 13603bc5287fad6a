"""Small wheels that stand in for large ones when the choices of installers are tested, and the pages that list them."""

from __future__ import annotations

import base64
import hashlib
import html
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from packaging.utils import canonicalize_name

from scripts.support.files import file_sha256

_EPOCH = (1980, 1, 1, 0, 0, 0)


def wheel(
    folder: Path, name: str, version: str, *, requires: Sequence[str] = (), tag: str = "py3-none-any", body: str = ""
) -> Path:
    """Write a wheel with one package, whose ``__init__.py`` has its ``__version__`` and ``body``.

    The same arguments give the same bytes. ``folder`` is created if it does not exist.
    """
    folder.mkdir(parents=True, exist_ok=True)
    info, pure = f"{name}-{version}.dist-info", str(tag == "py3-none-any").lower()
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Python: >=3.9\n"
    members = {
        f"{name}/__init__.py": f"__version__ = {version!r}\n{body}",
        f"{info}/METADATA": metadata + "".join(f"Requires-Dist: {requirement}\n" for requirement in requires),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: stand-in\nRoot-Is-Purelib: {pure}\nTag: {tag}\n",
    }
    members[f"{info}/RECORD"] = _record(members) + f"{info}/RECORD,,\n"
    path = folder / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in members.items():
            archive.writestr(zipfile.ZipInfo(member, _EPOCH), text)
    return path


def _record(members: Mapping[str, str]) -> str:
    rows = []
    for name, text in members.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode("ascii")
        rows.append(f"{name},sha256={digest},{len(text.encode())}\n")
    return "".join(rows)


def list_wheels(folder: Path) -> None:
    """Write a simple repository (PEP 503) for the wheels in ``folder``: one directory with a page per project."""
    for project in {canonicalize_name(path.name.partition("-")[0]) for path in folder.glob("*.whl")}:
        links = [_link(path) for path in sorted(folder.glob("*.whl")) if _is_of(path, project)]
        page = folder / project / "index.html"
        page.parent.mkdir(exist_ok=True)
        page.write_text(f"<!DOCTYPE html>\n<title>{project}</title>\n" + "".join(links), encoding="utf-8")


def _is_of(path: Path, project: str) -> bool:
    return canonicalize_name(path.name.partition("-")[0]) == project


def _link(path: Path) -> str:
    return f'<a href="../{quote(path.name)}#sha256={file_sha256(path)}">{html.escape(path.name)}</a><br>\n'
