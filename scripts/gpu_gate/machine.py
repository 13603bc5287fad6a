"""Queries the GPU, the driver and the versions, and builds the environment variables of a worker process."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from pathlib import Path
from typing import Any

# Prefixes of variables that lead to a compiler, a toolkit or other packages, or change how nvdiffrast or torch behaves.
_REMOVED_PREFIXES = ("CUDA_HOME", "CUDA_PATH", "LD_PRELOAD", "NVDIFFRAST_", "PYTHON", "TORCH", "VIRTUAL_ENV")
_REMOVED = ("CC", "CXX", "NVCC")
# Some containers provide the driver through a directory in LD_LIBRARY_PATH that contains one of these.
_DRIVER_LIBRARIES = ("libcuda.so*", "libnvidia-*.so*", "libEGL*.so*")


def worker_environment(scratch: Path) -> dict[str, str]:
    """Return environment variables that hide every compiler, toolkit and earlier build from a worker process.

    Directories that the worker needs are created below ``scratch``.
    """
    kept = {name: value for name, value in os.environ.items() if not _is_removed(name)}
    libraries = [folder for folder in kept.pop("LD_LIBRARY_PATH", "").split(os.pathsep) if _has_driver(folder)]
    home, empty = scratch / "home", scratch / "empty"
    for folder in (home, empty):
        folder.mkdir(parents=True, exist_ok=True)
    kept.update(PATH=str(empty), HOME=str(home), TORCH_EXTENSIONS_DIR=str(home / "extensions"), OMP_NUM_THREADS="1")
    if libraries:
        kept["LD_LIBRARY_PATH"] = os.pathsep.join(libraries)
    return kept


def _is_removed(name: str) -> bool:
    return name.startswith(_REMOVED_PREFIXES) or name in _REMOVED


def _has_driver(folder: str) -> bool:
    return bool(folder) and any(any(Path(folder).glob(pattern)) for pattern in _DRIVER_LIBRARIES)


def gpu(torch: Any) -> dict[str, str]:
    """Return "device", "capability" and "driver" of the first GPU, or only "missing", why there is no GPU."""
    if torch.version.cuda is None:
        return {"missing": f"no GPU: torch {torch.__version__} is built without CUDA"}
    try:
        torch.cuda.init()
        properties = torch.cuda.get_device_properties(0)
    except Exception as error:  # the type of torch's exception depends on the cause
        message = str(error).strip().splitlines() or [type(error).__name__]
        return {"missing": f"no GPU: {message[0].partition('. ')[0]}"}
    memory = properties.total_memory / 2**30
    device = f"{properties.name}, {memory:.1f} GiB, compute capability {capability(torch)}"
    return {"device": device, "capability": capability(torch), "driver": driver()}


def capability(torch: Any) -> str:
    """Return the compute capability of the first GPU ("9.0")."""
    major, minor = torch.cuda.get_device_capability(0)
    return f"{major}.{minor}"


def driver() -> str:
    """Return the version of the NVIDIA driver ("580.65.06"), or "unknown" if it cannot be queried."""
    try:
        library = ctypes.CDLL("nvml.dll" if os.name == "nt" else "libnvidia-ml.so.1")
        version = ctypes.create_string_buffer(96)
        if library.nvmlInit_v2() == 0 and library.nvmlSystemGetDriverVersion(version, len(version)) == 0:
            return version.value.decode("ascii", "replace")
    except OSError:
        pass
    return "unknown"


def supports(capability: str, sass: list[str], ptx: list[str]) -> bool:
    """Return whether a GPU of that compute capability runs kernels compiled for the given architectures.

    A GPU runs SASS of the same major version and the same or a lower minor version, and PTX of the same or a lower
    version.
    """
    major, minor = _version(capability)
    binaries = (_version(one) for one in sass)
    return any(one[0] == major and one[1] <= minor for one in binaries) or any(
        _version(one) <= (major, minor) for one in ptx
    )


def _version(capability: str) -> tuple[int, int]:
    major, _, minor = capability.partition(".")
    return int(major), int(minor or 0)


def versions(torch: Any, numpy: Any) -> dict[str, str]:
    """Return the versions of Python, the platform, torch, CUDA and NumPy."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": str(torch.__version__),
        "cuda": str(torch.version.cuda),
        "numpy": str(numpy.__version__),
        "implementation": sys.implementation.name,
    }
