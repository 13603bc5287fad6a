"""Checks of build_matrix.yaml beyond its schema. Each reports problems to the document and raises nothing."""

from __future__ import annotations

from collections.abc import Sequence

from packaging.version import Version

from scripts.matrix.schema import RawBounds, RawMatrix, RawRelease, RawToolkit
from scripts.matrix.yaml_document import Document, Trail
from scripts.model import ROOT, version_line

# Compute capability -> the first and the last CUDA whose nvcc generates SASS for it (None: no last one). From the
# release notes of 11.8 (8.9, 9.0), 12.8 (Blackwell), 12.9 (10.3, 12.1), 13.0 (no Maxwell to Volta; 10.1 became 11.0).
_ARCHITECTURES: dict[str, tuple[str, str | None]] = {
    "5.0": ("6.5", "12.9"),
    "5.2": ("7.0", "12.9"),
    "6.0": ("8.0", "12.9"),
    "6.1": ("8.0", "12.9"),
    "7.0": ("9.0", "12.9"),
    "7.5": ("10.0", None),
    "8.0": ("11.0", None),
    "8.6": ("11.1", None),
    "8.7": ("11.4", None),
    "8.9": ("11.8", None),
    "9.0": ("11.8", None),
    "10.0": ("12.8", None),
    "10.1": ("12.8", "12.9"),
    "10.3": ("12.9", None),
    "11.0": ("13.0", None),
    "12.0": ("12.8", None),
    "12.1": ("12.9", None),
}
_PYPI_NVCC = "13.0"


def check(document: Document, raw: RawMatrix, *, complete: bool) -> None:
    """Check all rules that need no cells; ``complete`` is False if ``raw`` lacks malformed entries."""
    if complete:
        _unique(document, ("python",), raw.python)
    for version, release in raw.releases.items():
        _release(document, ("releases", version), release)
    for cuda, toolkit in raw.toolkits.items():
        _toolkit(document, ("toolkits", cuda), cuda, toolkit)
        _torch_lines(document, ("toolkits", cuda, "torch"), raw, toolkit, complete)
    if raw.default_toolkit not in raw.toolkits and complete:
        known = ", ".join(raw.toolkits)
        document.report(("default_toolkit",), f"no toolkit {raw.default_toolkit}; write one of {known}")


def _unique(document: Document, trail: Trail, values: Sequence[str]) -> None:
    for index, value in enumerate(values):
        if value in values[:index]:
            document.report((*trail, index), f"{value} is listed twice; remove one")


def _release(document: Document, trail: Trail, release: RawRelease) -> None:
    if release.registry is None and release.git is None:
        hint = "add `registry:` (package, version, filename, sha256) or `git:` (url, tag, commit, tree)"
        document.report(trail, f"a release without a content pin; {hint}", key=True)
    if release.registry and release.git:
        document.report((*trail, "git"), "a second pin beside `registry`; keep the one it is built from", key=True)
    known = sorted(folder.name for folder in (ROOT / "patches").iterdir() if folder.is_dir())
    if release.series not in known:
        text = f"no folder patches/{release.series}; write one of {', '.join(known)}, or add the series"
        document.report((*trail, "series"), text)


def _toolkit(document: Document, trail: Trail, cuda: str, toolkit: RawToolkit) -> None:
    _unique(document, (*trail, "providers"), toolkit.providers)
    if "pypi" in toolkit.providers and Version(cuda) < Version(_PYPI_NVCC):
        text = f"PyPI has nvcc from CUDA {_PYPI_NVCC} on, not {cuda}; write redist or system"
        document.report((*trail, "providers", toolkit.providers.index("pypi")), text)
    _unique(document, (*trail, "architectures"), toolkit.architectures)
    good = [
        architecture
        for index, architecture in enumerate(toolkit.architectures)
        if _architecture(document, (*trail, "architectures", index), cuda, architecture)
    ]
    newest = max(good, key=Version, default=toolkit.ptx)
    if toolkit.ptx != newest:
        text = (
            f"PTX is for cards newer than any listed: write the newest of `architectures`, {newest}, not {toolkit.ptx}"
        )
        document.report((*trail, "ptx"), text)
    for name, bounds in (("gcc", toolkit.gcc), ("msvc", toolkit.msvc)):
        _bounds(document, (*trail, name), bounds)


def _architecture(document: Document, trail: Trail, cuda: str, architecture: str) -> bool:
    if architecture not in _ARCHITECTURES:
        document.report(trail, f"no such architecture {architecture}; write one of {', '.join(_ARCHITECTURES)}")
        return False
    first, last = _ARCHITECTURES[architecture]
    if Version(cuda) < Version(first):
        document.report(trail, f"{architecture} needs CUDA {first} or newer, not {cuda}; remove it here")
        return False
    if last and Version(cuda) > Version(last):
        document.report(trail, f"CUDA {cuda} no longer has {architecture}, {last} was the last; remove it here")
        return False
    return True


def _bounds(document: Document, trail: Trail, bounds: RawBounds) -> None:
    if bounds.minimum and bounds.maximum and Version(bounds.minimum) > Version(bounds.maximum):
        document.report(trail, f"minimum {bounds.minimum} is above maximum {bounds.maximum}; exchange them")


def _torch_lines(document: Document, trail: Trail, raw: RawMatrix, toolkit: RawToolkit, complete: bool) -> None:
    lines: dict[str, str] = {}
    for version, torch in toolkit.torch.items():
        line = version_line(version)
        if line in lines:
            text = f"a second torch {line} beside {lines[line]}; cell ids contain only the line: keep one"
            document.report((*trail, version), text, key=True)
        lines[line] = version
        for name, wanted, axis in (
            ("python", torch.python or [], raw.python),
            ("platforms", torch.platforms or [], list(raw.platforms)),
        ):
            _unique(document, (*trail, version, name), wanted)
            for index, value in enumerate(wanted):
                # If the axis lacks malformed values, a value that is not on it may be correct.
                if value not in axis and complete:
                    text = f"{value} is not on the axis `{name}` ({', '.join(axis)}); add it there or remove it here"
                    document.report((*trail, version, name, index), text)
