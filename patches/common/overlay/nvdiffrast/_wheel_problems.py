"""Finds problems of the installed wheel itself: for another Python, incomplete, changed, or installed twice."""

from __future__ import annotations

import base64
import hashlib
import importlib.machinery
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from . import _hints, _installation, _library_problems, _paths, _record
from ._hints import Hint
from ._problem import Facts, Problem, with_hint

# Files of the wheel outside of its .dist-info folder begin with these names.
_WHEEL_FILES = ("nvdiffrast/", "nvdiffrast.libs/", "nvdiffrast_plugin", "_nvdiffrast_c")


def plugin_deleted(name: str, reasons: Iterable[str], hint: Hint) -> Problem:
    """Return the problem that the wheel contained the compiled module ``name`` and that its file is missing.

    ``reasons`` are lines with the evidence; ``hint`` installs the wheel again.
    """
    summary = f"the wheel installed {name}, and its file was deleted later"
    advice = "Antivirus programs delete such files: if it happens again, allow the folder in the program first."
    return with_hint("plugin-deleted", summary, (*reasons, advice), hint)


def build_info_unreadable(reason: str, hint: Hint) -> Problem:
    """Return the problem that build_info.json cannot be read; ``hint`` installs the wheel again."""
    return with_hint("build-info", f"the wheel's build information cannot be read: {reason}", (), hint)


def find_absence(name: str, facts: Facts) -> Problem:
    """Return the reason why the compiled module ``name`` is absent."""
    if _hints.is_frozen():
        summary = f"this program was frozen without nvdiffrast's compiled {name}"
        return with_hint("frozen-incomplete", summary, (), _hints.rebuild_frozen())
    if not _paths.PACKAGE.is_dir():
        summary = f"{_paths.PACKAGE} is in a zip file, and systems do not load compiled code from zip files"
        return with_hint("path-refused", summary, (), _hints.install_for_this_python(facts.info))
    other = next(find_wheel_of_other_python(facts), None)
    if other is not None:
        return other
    if _record.lists_module(name):
        return _deleted(name, facts)
    summary = "this installation was not compiled, and just-in-time compilation is not possible or not allowed"
    return with_hint("not-compiled", summary, (), _hints.install_for_this_python(facts.info))


def find_wheel_of_other_python(facts: Facts) -> Iterator[Problem]:
    """Find that the wheel is for another Python; the other packages in its folder often are too."""
    if facts.info is not None and facts.info["python"] != facts.python:
        yield _other_python(f"this wheel is for {facts.info['python']}", facts)


def find_module_of_other_python(facts: Facts) -> Iterator[Problem]:
    """Find that this Python does not import a module because of the name of its file."""
    if _paths.is_importable(facts.file):
        return
    name = facts.file.name.partition(".")[0]
    if any(_paths.is_importable(file) for file in _record.module_files(name)):
        # The file is left over from another installation. The file of this installation is missing.
        yield _deleted(name, facts)
    elif not _library_problems.is_musl():
        tag = re.search(r"\.(?:cpython-|cp)(\d+t?)", facts.file.name)
        target = f"cp{tag[1]}" if tag else str(facts.info["python"]) if facts.info else "another Python"
        yield _other_python(f"{facts.file.name} is for {target}", facts)


def find_unreadable_build_info(facts: Facts) -> Iterator[Problem]:
    """Find that build_info.json is missing or damaged."""
    if facts.info_error:
        yield build_info_unreadable(facts.info_error, facts.reinstall())


def find_damaged_build_info(facts: Facts) -> Iterator[Problem]:
    """Find that build_info.json is damaged; it may be missing, because source wheels do not contain it."""
    if _paths.BUILD_INFO.exists():
        yield from find_unreadable_build_info(facts)


def find_mixed_wheels(facts: Facts) -> Iterator[Problem]:
    """Find that the installed files come from several wheels or were changed, by the hashes in RECORD."""
    found = _record.distributions()
    if len(found) > 1:
        names = ", ".join(folder.name for folder in found)
        summary = f"several wheels are installed in the same folder: {names}"
        advice = "Repeat the command until pip finds no nvdiffrast, then install one wheel."
        yield Problem("mixed-wheels", summary, (advice,), "pip uninstall nvdiffrast")
        return
    for folder in found:
        for name, digest in _record.files(folder).items():
            file = _paths.SITE_PACKAGES / name
            if name.startswith(_WHEEL_FILES) and digest and _differs(file, digest):
                summary = f"{file} differs from the file of {folder.name}"
                details = ("The file was changed, or it belongs to another wheel.",)
                yield with_hint("mixed-wheels", summary, details, facts.reinstall())
                return


def find_copies(facts: Facts) -> Iterator[Problem]:
    """Find other installations of nvdiffrast on sys.path."""
    found = _installation.copies()
    if len(found) > 1:
        others = ", ".join(str(folder) for folder in found[1:])
        summary = f"another nvdiffrast is on sys.path: {others}; {found[0]} is used"
        advice = f"Keep one of them: pip removes the first that it finds; otherwise delete {found[1]}."
        yield Problem("two-copies", summary, (advice,), "pip uninstall nvdiffrast")


def _deleted(name: str, facts: Facts) -> Problem:
    return plugin_deleted(name, [f"{file} is missing" for file in _record.module_files(name)], facts.reinstall())


def _other_python(subject: str, facts: Facts) -> Problem:
    suffixes = " or ".join(importlib.machinery.EXTENSION_SUFFIXES)
    summary = f"{subject}, and this Python is {facts.python}: {sys.executable}"
    details = (f"This Python imports compiled modules with names that end in {suffixes}.",)
    return with_hint("wrong-python", summary, details, _hints.install_for_this_python(facts.info))


def _differs(file: Path, digest: str) -> bool:
    """Return whether a file exists and has another SHA-256; other checks find missing files."""
    try:
        found = hashlib.sha256(file.read_bytes()).digest()
    except OSError:
        return False
    return base64.urlsafe_b64encode(found).rstrip(b"=").decode() != digest
