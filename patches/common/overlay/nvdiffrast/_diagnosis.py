"""Says why a compiled module that is there cannot be imported, and what to do; imported only when that happens."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path

_BUILD_INFO = Path(__file__).resolve().parent / "build_info.json"
# The error texts of glibc, musl and macOS; Windows names no library.
_MISSING_LIBRARY = re.compile(
    r"(?P<library>[^\s:']+): cannot open shared object file|Error loading shared library (?P<musl>\S+):"
)
_WINDOWS_MISSING = "DLL load failed"
_UNDEFINED_SYMBOL = re.compile(r"undefined symbol: (?P<symbol>\S+)|procedure could not be found", re.IGNORECASE)
_TOO_OLD = re.compile(r"version [`'](?P<version>(?:GLIBC|GLIBCXX|CXXABI)_[\d.]+)' not found")
_GRAPHICS = ("libGL.so", "libEGL.so", "libOpenGL.so", "libGLX.so", "libGLdispatch.so")
_DRIVER = ("libcuda.so", "nvcuda.dll")


def explain(file: Path, error: Exception) -> str:
    """The whole message: the file, what went wrong, what it was built for, what is here, and the next step."""
    built, missing_info = _built_for()
    found = _found()
    lines = [f"nvdiffrast: {file} is there but cannot be imported: {error}"]
    lines += [missing_info] if missing_info else _comparison(built, found)
    lines.append(f"next: {_next_step(file, str(error), built, found)}")
    return "\n".join(lines)


def _built_for() -> tuple[dict[str, str], str | None]:
    """What build_info.json says of Python, torch and CUDA, and a sentence if it says nothing."""
    try:
        info = json.loads(_BUILD_INFO.read_text(encoding="utf-8"))
        built = {key: str(info[key]) for key in ("python", "torch", "cuda")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        return {}, f"what it was built for is unknown: {_BUILD_INFO} cannot be read ({error!r})"
    return built, None


def _found() -> dict[str, str | None]:
    """This process's Python tag, torch version and torch's CUDA; None for what is not there."""
    found: dict[str, str | None] = {
        "python": f"cp{sys.version_info[0]}{sys.version_info[1]}",
        "torch": None,
        "cuda": None,
    }
    try:
        torch = importlib.import_module("torch")
    except Exception as error:  # a broken torch is a finding, not a reason to fail here
        found["torch"] = f"cannot be imported ({error})"
    else:
        found.update(torch=str(torch.__version__), cuda=getattr(torch.version, "cuda", None))
    return found


def _comparison(built: dict[str, str], found: dict[str, str | None]) -> list[str]:
    rows = [("", "built for", "found", "")]
    for key, title in (("python", "Python"), ("torch", "torch"), ("cuda", "CUDA of torch")):
        differs = "" if _same(key, built[key], found[key]) else "<- differs"
        rows.append((title, built[key], found[key] or "none", differs))
    first, second, third = (max(len(row[column]) for row in rows) for column in range(3))
    return [f"  {row[0]:{first}}  {row[1]:{second}}  {row[2]:{third}}  {row[3]}".rstrip() for row in rows]


def _same(key: str, built: str, found: str | None) -> bool:
    """torch must agree in its line (2.11), CUDA in its major version, Python in its tag."""
    if found is None:
        return False
    parts = {"python": 1, "torch": 2, "cuda": 1}[key]
    return _release(built)[:parts] == _release(found)[:parts]


def _release(version: str) -> list[str]:
    """The numbers of a version without its local part: 2.11.0+cu130 is 2, 11, 0."""
    return version.partition("+")[0].split(".")


def _next_step(file: Path, error: str, built: dict[str, str], found: dict[str, str | None]) -> str:
    """One instruction: the mismatch that explains most comes first, then what the error itself says."""
    return (
        _for_python(file, error, built, found)
        or _for_torch(built, found)
        or _for_error(error)
        or ("reinstall it: pip install --force-reinstall --no-deps nvdiffrast, from the index it came from")
    )


def _for_python(file: Path, error: str, built: dict[str, str], found: dict[str, str | None]) -> str | None:
    tagged = re.search(r"\.(?:cpython-|cp)(\d+)", file.name)
    meant = f"cp{tagged[1]}" if tagged else built.get("python")
    if meant and (meant != found["python"] or "another Python" in error):
        here = found["python"]
        return f"this file is for {meant}, this Python is {here}: install nvdiffrast's wheel for {here}"
    return None


def _for_torch(built: dict[str, str], found: dict[str, str | None]) -> str | None:
    if not built:
        return None
    line = ".".join(_release(built["torch"])[:2])
    if not _same("torch", built["torch"], found["torch"]):
        return f'pip install "torch=={line}.*" (built for CUDA {built["cuda"]}), or nvdiffrast\'s wheel for this torch'
    if not _same("cuda", built["cuda"], found["cuda"]):
        return (
            f"this torch is for {'CUDA ' + found['cuda'] if found['cuda'] else 'no CUDA'}: "
            f"install torch {line} built for CUDA {built['cuda']}, or nvdiffrast's wheel for this torch's CUDA"
        )
    return None


def _for_error(error: str) -> str | None:
    """What the system's loader says is missing."""
    missing = _MISSING_LIBRARY.search(error)
    if missing:
        return _for_library(missing["library"] or missing["musl"])
    too_old = _TOO_OLD.search(error)
    if too_old:
        return f"this system is too old for the wheel, it lacks {too_old['version']}: use a newer one, or a container"
    if _UNDEFINED_SYMBOL.search(error):
        return "a library is of another version than the one built against: reinstall torch and nvdiffrast together"
    if _WINDOWS_MISSING in error:
        return "a DLL that it needs is missing: reinstall torch and nvdiffrast, and install NVIDIA's driver"
    return None


def _for_library(library: str) -> str:
    if library.startswith(_GRAPHICS):
        return (
            f"{library} belongs to the graphics driver and is in no wheel: install it (Debian: apt install libgl1 "
            "libegl1; in a container also set NVIDIA_DRIVER_CAPABILITIES=all), or use RasterizeCudaContext"
        )
    if library.startswith(_DRIVER):
        return f"{library} belongs to NVIDIA's driver: install the driver, or start the container with GPU access"
    if library.startswith(("libtorch", "libc10")):
        return f"{library} belongs to torch: import torch before nvdiffrast, or reinstall torch"
    return f"{library} is missing: reinstall nvdiffrast's wheel; it brings what the driver and torch do not"
