"""What the machine is: its GPU, its driver, and the variables that a check of a wheel must not be given."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from pathlib import Path
from typing import Any

# What would find a compiler, a toolkit, other packages, or change how nvdiffrast and torch behave.
_CLEARED = ("CUDA_HOME", "CUDA_PATH", "LD_PRELOAD", "NVDIFFRAST_", "PYTHON", "TORCH", "VIRTUAL_ENV")
_COMPILERS = ("CC", "CXX", "NVCC")
# A folder of LD_LIBRARY_PATH that holds one of these is how some containers are given the driver.
_OF_DRIVER = ("libcuda.so*", "libnvidia-*.so*", "libEGL*.so*")


def surroundings(scratch: Path) -> dict[str, str]:
    """The environment of a process that shall find no compiler, no toolkit and nothing compiled earlier."""
    kept = {name: value for name, value in os.environ.items() if not _is_cleared(name)}
    libraries = [folder for folder in kept.pop("LD_LIBRARY_PATH", "").split(os.pathsep) if _holds_driver(folder)]
    home, empty = scratch / "home", scratch / "empty"
    for folder in (home, empty):
        folder.mkdir(parents=True, exist_ok=True)
    kept.update(PATH=str(empty), HOME=str(home), TORCH_EXTENSIONS_DIR=str(home / "extensions"), OMP_NUM_THREADS="1")
    if libraries:
        kept["LD_LIBRARY_PATH"] = os.pathsep.join(libraries)
    return kept


def _is_cleared(name: str) -> bool:
    return name.startswith(_CLEARED) or name in _COMPILERS


def _holds_driver(folder: str) -> bool:
    return bool(folder) and any(any(Path(folder).glob(pattern)) for pattern in _OF_DRIVER)


def gpu(torch: Any) -> dict[str, str]:
    """The first GPU as torch sees it: "device", "capability", "driver"; or "why", why there is none."""
    if torch.version.cuda is None:
        return {"why": f"no GPU: torch {torch.__version__} is built without CUDA"}
    try:
        torch.cuda.init()
        found = torch.cuda.get_device_properties(0)
    except Exception as error:  # what torch raises depends on what is missing
        said = str(error).strip().splitlines() or [type(error).__name__]
        return {"why": f"no GPU: {said[0].partition('. ')[0]}"}
    device = f"{found.name}, {found.total_memory / 2**30:.1f} GiB, compute capability {capability(torch)}"
    return {"device": device, "capability": capability(torch), "driver": driver()}


def capability(torch: Any) -> str:
    """The first GPU's compute capability ("9.0")."""
    major, minor = torch.cuda.get_device_capability(0)
    return f"{major}.{minor}"


def driver() -> str:
    """The driver's version ("580.65.06"), "unknown" where it cannot be asked."""
    try:
        library = ctypes.CDLL("nvml.dll" if os.name == "nt" else "libnvidia-ml.so.1")
        said = ctypes.create_string_buffer(96)
        if library.nvmlInit_v2() == 0 and library.nvmlSystemGetDriverVersion(said, len(said)) == 0:
            return said.value.decode("ascii", "replace")
    except OSError:
        pass
    return "unknown"


def served(capability: str, sass: list[str], ptx: list[str]) -> bool:
    """Whether a GPU runs kernels of those architectures: binaries of its own generation, or PTX of no later one."""
    major, minor = _pair(capability)
    binaries = (_pair(one) for one in sass)
    return any(one[0] == major and one[1] <= minor for one in binaries) or any(
        _pair(one) <= (major, minor) for one in ptx
    )


def _pair(capability: str) -> tuple[int, int]:
    major, _, minor = capability.partition(".")
    return int(major), int(minor or 0)


def versions(torch: Any, numpy: Any) -> dict[str, str]:
    """The versions of what the checks ran on."""
    found = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": str(torch.__version__),
        "cuda": str(torch.version.cuda),
        "numpy": str(numpy.__version__),
    }
    return {**found, "implementation": sys.implementation.name}
