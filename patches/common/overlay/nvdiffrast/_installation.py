"""Collects facts about this installation: Python, torch, the wheel, the driver, the GPUs and other copies."""

from __future__ import annotations

import ctypes
import importlib
import importlib.machinery
import importlib.util
import json
import os
import platform
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import _dll_folders, _hints, _paths, _record

_MODULES = ("nvdiffrast_plugin", "nvdiffrast_plugin_gl", "_nvdiffrast_c")
_SUFFIXES = (".so", ".pyd")


def describe(*, torch: bool = False) -> dict[str, Any]:
    """Return all facts in a form that JSON supports; ``torch``: import torch if it is not imported yet."""
    info, error = build_info()
    return {
        "python": python_tag(),
        "platform": f"{platform.system()}_{platform.machine()}".lower(),
        "torch": torch_facts(imported=torch),
        "build_info": info,
        "build_info_error": error,
        "driver": driver(),
        "driver_error": driver_error(),
        "devices": devices(),
        "plugins": [str(file) for file in plugins()],
        "missing_plugins": [str(file) for file in missing_plugins()],
        "reinstall": _hints.reinstall(info)._asdict(),
        "copies": [str(folder) for folder in copies()],
        "dll_folders": [str(folder) for folder in _dll_folders.find()],
    }


def python_tag() -> str:
    """Return this Python's tag in file names of wheels: cp312; cp313t without the GIL; pp311 for PyPy."""
    kind = {"cpython": "cp", "pypy": "pp"}.get(sys.implementation.name, sys.implementation.name)
    free = "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
    return f"{kind}{sys.version_info[0]}{sys.version_info[1]}{free}"


def machine() -> str:
    """Return the machine's name as in file names of Linux wheels: x86_64, aarch64."""
    name = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(name, name)


def build_info() -> tuple[dict[str, Any] | None, str | None]:
    """Return the content of build_info.json and None, or None and the reason why it cannot be read."""
    try:
        info = json.loads(_paths.BUILD_INFO.read_text(encoding="utf-8"))
    except OSError as error:
        return None, f"{_paths.BUILD_INFO} cannot be read: {error.strerror or error}"
    except ValueError as error:
        return None, f"{_paths.BUILD_INFO} is not JSON: {error}"
    if not isinstance(info, dict):
        return None, f"{_paths.BUILD_INFO} contains a {type(info).__name__} instead of an object"
    absent = [key for key in ("python", "torch", "cuda") if not isinstance(info.get(key), str)]
    return (None, f"{_paths.BUILD_INFO} has no {', '.join(absent)}") if absent else (info, None)


def torch_facts(*, imported: bool) -> dict[str, Any] | None:
    """Return torch's "version", "cuda", "hip" (ROCm) and "path"; None if torch is not installed.

    If torch cannot be imported, "error" has the reason. ``imported``: import torch if it is not imported yet.
    """
    module = sys.modules.get("torch")
    if module is None:
        spec = _spec("torch")
        if spec is None:
            return None
        path = str(Path(spec.origin).parent) if spec.origin else None
        if not imported:
            return {"version": None, "cuda": None, "hip": None, "path": path}
        try:
            module = importlib.import_module("torch")
        except Exception as error:  # a broken torch is reported as a fact
            return {"version": None, "cuda": None, "hip": None, "path": path, "error": f"{error}"}
    version = getattr(module, "version", None)
    file = getattr(module, "__file__", None)
    return {
        "version": str(getattr(module, "__version__", None)),
        "cuda": getattr(version, "cuda", None),
        "hip": getattr(version, "hip", None),
        "path": str(Path(file).parent) if file else None,
    }


def plugins() -> list[Path]:
    """Return the existing files of this installation's compiled modules, for any Python.

    If RECORD lists compiled modules, other files with their names, such as copies, are left out.
    """
    folders = (_paths.PACKAGE / "torch", _paths.SITE_PACKAGES)
    found = [file for folder in folders for name in _MODULES for file in sorted(folder.glob(f"{name}.*"))]
    existing = [file for file in found if file.suffix in _SUFFIXES]
    listed = {file for name in _MODULES for file in _record.module_files(name)}
    return [file for file in existing if file in listed] if listed else existing


def plugin_modules() -> list[str]:
    """Return the import names of the compiled modules that this Python can import."""
    files = [file for file in plugins() if _paths.is_importable(file)]
    return [
        ".".join((*file.relative_to(_paths.SITE_PACKAGES).parent.parts, file.name.partition(".")[0])) for file in files
    ]


def missing_plugins() -> list[Path]:
    """Return the files of compiled modules that RECORD lists and that do not exist."""
    return [file for name in _MODULES for file in _record.module_files(name) if not _paths.is_file(file)]


def copies() -> list[Path]:
    """Return the folder of every nvdiffrast on sys.path, this one first."""
    found = [_paths.PACKAGE]
    for entry in sys.path:
        folder = Path(entry or ".", "nvdiffrast")
        if _paths.is_file(folder / "__init__.py") and not any(_same(folder, other) for other in found):
            found.append(folder.absolute())
    return found


def loaded_libraries() -> list[Path]:
    """Return the shared libraries that this process has loaded, as far as the system lists them."""
    if sys.platform == "linux":
        try:
            lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return []
        names = {line.split(maxsplit=5)[5] for line in lines if line.count(" /") == 1 or " /" in line}
        return [Path(name) for name in sorted(names) if ".so" in name]
    if os.name == "nt":
        return list(_modules_of_windows())
    return []


def driver() -> dict[str, str | None] | None:
    """Return the driver's "version" and the newest "cuda" that it supports; None if no driver answers."""
    return _query_driver().driver


def devices() -> list[dict[str, Any]]:
    """Return the "name", compute "capability" and "memory" (bytes) of every GPU that CUDA finds."""
    return _query_driver().devices


def driver_error() -> dict[str, Any] | None:
    """Return the driver's problem ("code", "summary", "details", "hint"); None if it works or is not installed."""
    return _query_driver().error


def _query_driver() -> Any:
    from . import _doctor_driver  # noqa: PLC0415 - imported only to query the driver

    return _doctor_driver.query()


def _modules_of_windows() -> Iterator[Path]:
    """Yield the modules of this process that EnumProcessModules lists."""
    kernel = ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined, unused-ignore]
    psapi = ctypes.WinDLL("psapi", use_last_error=True)  # type: ignore[attr-defined, unused-ignore]
    kernel.GetCurrentProcess.restype = ctypes.c_void_p
    process = ctypes.c_void_p(kernel.GetCurrentProcess())
    handles, needed = (ctypes.c_void_p * 2048)(), ctypes.c_ulong(0)
    if not psapi.EnumProcessModules(process, handles, ctypes.sizeof(handles), ctypes.byref(needed)):
        return
    name = ctypes.create_unicode_buffer(32768)
    for handle in handles[: min(len(handles), needed.value // ctypes.sizeof(ctypes.c_void_p))]:
        if kernel.GetModuleFileNameW(ctypes.c_void_p(handle), name, len(name)):
            yield Path(name.value)


def _spec(name: str) -> importlib.machinery.ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return one.absolute() == other.absolute()
