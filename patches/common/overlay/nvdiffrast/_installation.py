"""Facts of this installation: Python, torch, what the wheel was built for, driver, GPUs, copies; read when asked."""

from __future__ import annotations

import ctypes
import importlib
import importlib.machinery
import importlib.util
import json
import os
import platform
import re
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import _loader, _record

_PACKAGE = _loader.PACKAGE
BUILD_INFO = _PACKAGE / "build_info.json"
_STEMS = ("nvdiffrast_plugin", "nvdiffrast_plugin_gl", "_nvdiffrast_c")
_SUFFIXES = (".so", ".pyd")
# Of CUDA's driver interface.
_MAJOR, _MINOR = 75, 76


def describe(*, torch: bool = False) -> dict[str, Any]:
    """Everything, as JSON can hold it; ``torch``: import it if it is not yet."""
    info, error = build_info()
    return {
        "python": python_tag(),
        "platform": f"{platform.system()}_{platform.machine()}".lower(),
        "torch": torch_facts(imported=torch),
        "build_info": info,
        "build_info_error": error,
        "driver": driver(),
        "devices": devices(),
        "plugins": [str(file) for file in plugins()],
        "copies": [str(folder) for folder in copies()],
        "dll_folders": [str(folder) for folder in _loader.dll_folders()],
    }


def python_tag() -> str:
    """Return this Python's tag in the names of wheels: cp312, cp313t without the GIL, pp311 for PyPy."""
    kind = {"cpython": "cp", "pypy": "pp"}.get(sys.implementation.name, sys.implementation.name)
    free = "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
    return f"{kind}{sys.version_info[0]}{sys.version_info[1]}{free}"


def machine() -> str:
    """As in the names of wheels for Linux: x86_64, aarch64."""
    name = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(name, name)


def build_info() -> tuple[dict[str, Any] | None, str | None]:
    """What build_info.json says, or None and why it says nothing."""
    try:
        info = json.loads(BUILD_INFO.read_text(encoding="utf-8"))
    except OSError as error:
        return None, f"{BUILD_INFO} cannot be read: {error.strerror or error}"
    except ValueError as error:
        return None, f"{BUILD_INFO} is not JSON: {error}"
    if not isinstance(info, dict):
        return None, f"{BUILD_INFO} holds a {type(info).__name__} in place of an object"
    absent = [key for key in ("python", "torch", "cuda") if not isinstance(info.get(key), str)]
    return (None, f"{BUILD_INFO} does not say {', '.join(absent)}") if absent else (info, None)


def torch_facts(*, imported: bool) -> dict[str, Any] | None:
    """torch's version, CUDA, ROCm and path; None if it is absent. ``error`` is there if it cannot be imported."""
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
        except Exception as error:  # a broken torch is a finding, not a reason to fail here
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
    """Return the compiled modules of this installation that are there, for whatever Python.

    Where RECORD lists compiled modules, other files of their names, such as copies, are left out.
    """
    folders = (_PACKAGE / "torch", _PACKAGE.parent)
    found = [file for folder in folders for stem in _STEMS for file in sorted(folder.glob(f"{stem}.*"))]
    there = [file for file in found if file.suffix in _SUFFIXES]
    own = {file for stem in _STEMS for file in _record.modules(stem)}
    return [file for file in there if file in own] if own else there


def plugin_modules() -> list[str]:
    """Return the names by which the compiled modules are imported that this Python imports."""
    own = [file for file in plugins() if _loader.takes(file)]
    return [".".join((*file.relative_to(_PACKAGE.parent).parent.parts, file.name.partition(".")[0])) for file in own]


def copies() -> list[Path]:
    """Every nvdiffrast on the path, this one first."""
    found = [_PACKAGE]
    for entry in sys.path:
        folder = Path(entry or ".", "nvdiffrast")
        if _is_file(folder / "__init__.py") and not any(_same(folder, other) for other in found):
            found.append(folder.absolute())
    return found


def loaded_libraries() -> list[Path]:
    """Shared libraries that this process has already, as far as the system tells."""
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
    """The driver's version and the CUDA that it runs; None without a driver."""
    cuda = _cuda_library()
    if cuda is None:
        return None
    value = ctypes.c_int(0)
    known = cuda.cuDriverGetVersion(ctypes.byref(value)) == 0 and value.value
    return {
        "version": _driver_version(),
        "cuda": f"{value.value // 1000}.{value.value % 1000 // 10}" if known else None,
    }


def devices() -> list[dict[str, Any]]:
    """Name, capability and memory in bytes of every GPU that CUDA sees."""
    cuda = _cuda_library()
    count = ctypes.c_int(0)
    if cuda is None or cuda.cuInit(0) != 0 or cuda.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return []
    return [_device(cuda, number) for number in range(count.value)]


def _device(cuda: Any, number: int) -> dict[str, Any]:
    name, memory = ctypes.create_string_buffer(256), ctypes.c_size_t(0)
    major, minor, device = ctypes.c_int(0), ctypes.c_int(0), ctypes.c_int(0)
    cuda.cuDeviceGet(ctypes.byref(device), number)
    cuda.cuDeviceGetName(name, len(name), device)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    cuda.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
    cuda.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
    capability = f"{major.value}.{minor.value}"
    return {"name": name.value.decode("utf-8", "replace"), "capability": capability, "memory": memory.value}


def _cuda_library() -> Any:
    try:
        return ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return None


def _driver_version() -> str | None:
    """As nvidia-smi shows it, by NVML."""
    try:
        nvml = ctypes.CDLL("nvml.dll" if os.name == "nt" else "libnvidia-ml.so.1")
        text = ctypes.create_string_buffer(80)
        if nvml.nvmlInit_v2() == 0 and nvml.nvmlSystemGetDriverVersion(text, len(text)) == 0:
            return text.value.decode("ascii", "replace")
    except (OSError, AttributeError):
        pass
    try:
        said = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r"\s(\d+\.\d+(?:\.\d+)?)\s", said)
    return found[1] if found else None


def _modules_of_windows() -> Iterator[Path]:
    """By EnumProcessModules."""
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


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return one.absolute() == other.absolute()
