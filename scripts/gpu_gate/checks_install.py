"""Checks of the installation.

The files are those of the wheel, the wheel matches this Python, torch and CUDA, and the compiled modules come from the
wheel instead of a just-in-time build.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import importlib
import json
import os
import platform
import shutil
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from . import machine
from .bench import Bench, Check, Outcome

_COMPILERS = ("c++", "g++", "gcc", "clang++", "cl", "nvcc", "ninja")
# The documented interface of all releases, and the names that only 0.3 releases have.
_NAMES = [
    "DepthPeeler",
    "RasterizeCudaContext",
    "antialias",
    "antialias_construct_topology_hash",
    "interpolate",
    "rasterize",
    "texture",
    "texture_construct_mip",
]
_NAMES_OF_03 = ["RasterizeGLContext", "get_log_level", "set_log_level"]


def _outcome(problems: list[str], detail: str, **figures: float) -> Outcome:
    return Outcome("failed" if problems else "passed", "; ".join(problems) or detail, figures)


def _distribution() -> metadata.Distribution:
    return metadata.distribution("nvdiffrast")


def _build_info(bench: Bench) -> dict[str, Any]:
    file = _package(bench) / "build_info.json"
    info: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return info


def _package(bench: Bench) -> Path:
    """Return the directory of the imported package nvdiffrast."""
    return Path(bench.dr.__file__).resolve().parent.parent


def files(bench: Bench) -> Outcome:
    """Check that the imported package is the installed one, and that every file matches RECORD."""
    distribution, problems = _distribution(), []
    hashed = [file for file in distribution.files or () if file.hash]
    for file in hashed:
        path = Path(str(distribution.locate_file(file)))
        assert file.hash is not None
        if not path.is_file():
            problems.append(f"{file} is missing")
        elif _digest(path, file.hash.mode) != file.hash.value:
            problems.append(f"{file} does not match its hash in RECORD")
    installed = Path(str(distribution.locate_file("nvdiffrast"))).resolve()
    if installed != _package(bench):
        problems.append(f"imported from {_package(bench)}, but installed in {installed}")
    if not hashed:
        problems.append("RECORD lists no file")
    return _outcome(problems, f"{len(hashed)} files match RECORD", files=len(hashed))


def _digest(path: Path, algorithm: str) -> str:
    digest = hashlib.new(algorithm, path.read_bytes()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


def build_info(bench: Bench) -> Outcome:
    """Check that build_info.json names this Python, torch, CUDA and platform, and the release of the wheel."""
    info, problems = _build_info(bench), []
    platform_name = "win_amd64" if os.name == "nt" else f"linux_{platform.machine()}"
    expected = {
        "release": _distribution().version.partition("+")[0],
        "python": f"cp{sys.version_info.major}{sys.version_info.minor}",
        "torch": ".".join(bench.torch.__version__.split(".")[:2]),
        "cuda": str(bench.torch.version.cuda),
    }
    actual = {**info, "torch": ".".join(str(info.get("torch")).split(".")[:2])}
    for key, value in expected.items():
        if actual.get(key) != value:
            problems.append(f"{key} is {actual.get(key)} in build_info.json, but {value} here")
    if not str(info.get("cell")).endswith(f"-{platform_name}"):
        problems.append(f"built for the cell {info.get('cell')}, but this platform is {platform_name}")
    return _outcome(problems, ", ".join(f"{key} {value}" for key, value in expected.items()))


def precompiled(bench: Bench) -> Outcome:
    """Check that the plugins are loaded from the wheel, that nothing was compiled, and that no compiler is on PATH."""
    problems = [f"{tool} is on PATH" for tool in _COMPILERS if shutil.which(tool)]
    modules = _plugins(bench)
    for name, module in modules.items():
        file = Path(str(module.__file__)).resolve()
        if _package(bench).parent not in file.parents:
            problems.append(f"{name} was loaded from {file}, which is not in the wheel")
    extensions = Path(os.environ.get("TORCH_EXTENSIONS_DIR", ""))
    if extensions.name and any(extensions.glob("**/*.so")):
        problems.append(f"an extension was compiled in {extensions}")
    return _outcome(problems, f"{', '.join(modules)} loaded from the wheel", plugins=len(modules))


def _plugins(bench: Bench) -> dict[str, ModuleType]:
    """Load the compiled modules in the same way as upstream's code, and return them by name."""
    if not bench.release.startswith("0.3."):
        return {"_nvdiffrast_c": importlib.import_module("_nvdiffrast_c")}
    ops = bench.dr.ops
    is_gl = {"nvdiffrast_plugin": False, "nvdiffrast_plugin_gl": True}
    present = {name: gl for name, gl in is_gl.items() if name in _build_info(bench)["plugins"]}
    return {name: ops._get_plugin(gl=gl) for name, gl in present.items()}


def symbols(bench: Bench) -> Outcome:
    """Check that the documented interface exists, and that the plugins have every function that ops.py calls."""
    names = _NAMES + (_NAMES_OF_03 if bench.release.startswith("0.3.") else [])
    problems = [f"nvdiffrast.torch has no {name}" for name in names if not hasattr(bench.dr, name)]
    modules = list(_plugins(bench).values())
    used = plugin_functions((_package(bench) / "torch" / "ops.py").read_text(encoding="utf-8"))
    problems += [f"no plugin has {name}" for name in sorted(used) if not any(hasattr(one, name) for one in modules)]
    if not used:
        problems.append("ops.py uses no function of the plugins")
    return _outcome(problems, f"the plugins have the {len(used)} functions that ops.py uses", functions=len(used))


def plugin_functions(source: str) -> set[str]:
    """Return the names that ops.py uses from the compiled modules: `_get_plugin(...).NAME` and `_nvdiffrast_c.NAME`."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            value = node.value.func if isinstance(node.value, ast.Call) else node.value
            if isinstance(value, ast.Name) and value.id in ("_get_plugin", "_nvdiffrast_c"):
                names.add(node.attr)
    return names


def architectures(bench: Bench) -> Outcome:
    """Report which of the wheel's kernels this GPU runs."""
    sass, capability = _build_info(bench)["architectures"]["sass"], machine.capability(bench.torch)
    kernels = "kernels for this capability" if capability in sass else "kernels of the same major version, or PTX"
    return Outcome("passed", f"compute capability {capability}: {kernels}")


CHECKS = (
    Check("files", files, needs_gpu=False),
    Check("build-info", build_info, needs_gpu=False),
    Check("precompiled", precompiled, needs_gpu=False),
    Check("symbols", symbols, needs_gpu=False),
    Check("architectures", architectures),
)
