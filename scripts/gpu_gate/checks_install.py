"""What was installed: whole, of this Python and torch, loaded from the wheel and compiled by nobody here."""

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
# The documented interface, of all releases, and what only the line 0.3 has.
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


def _outcome(complaints: list[str], said: str, **figures: float) -> Outcome:
    return Outcome("failed" if complaints else "passed", "; ".join(complaints) or said, figures)


def _distribution() -> metadata.Distribution:
    return metadata.distribution("nvdiffrast")


def _build_info(bench: Bench) -> dict[str, Any]:
    file = _package(bench) / "build_info.json"
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def _package(bench: Bench) -> Path:
    """The folder of the package nvdiffrast."""
    return Path(bench.dr.__file__).resolve().parent.parent


def files(bench: Bench) -> Outcome:
    """What is imported is what was installed, and every file is what RECORD says."""
    distribution, complaints = _distribution(), []
    stated = [file for file in distribution.files or () if file.hash]
    for file in stated:
        path = Path(str(distribution.locate_file(file)))
        assert file.hash is not None
        if not path.is_file():
            complaints.append(f"{file} is not there")
        elif _digest(path, file.hash.mode) != file.hash.value:
            complaints.append(f"{file} is not what RECORD says")
    at = Path(str(distribution.locate_file("nvdiffrast"))).resolve()
    if at != _package(bench):
        complaints.append(f"imported from {_package(bench)}, installed in {at}")
    if not stated:
        complaints.append("RECORD names no file")
    return _outcome(complaints, f"{len(stated)} files as RECORD says", files=len(stated))


def _digest(path: Path, algorithm: str) -> str:
    digest = hashlib.new(algorithm, path.read_bytes()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


def build_info(bench: Bench) -> Outcome:
    """build_info.json is of this Python, this torch, its CUDA, this system and this wheel."""
    info, complaints = _build_info(bench), []
    system = "win_amd64" if os.name == "nt" else f"linux_{platform.machine()}"
    wanted = {
        "release": _distribution().version.partition("+")[0],
        "python": f"cp{sys.version_info.major}{sys.version_info.minor}",
        "torch": ".".join(bench.torch.__version__.split(".")[:2]),
        "cuda": str(bench.torch.version.cuda),
    }
    found = {**info, "torch": ".".join(str(info.get("torch")).split(".")[:2])}
    complaints += [
        f"{key} is {found.get(key)}, here is {value}" for key, value in wanted.items() if found.get(key) != value
    ]
    if not str(info.get("cell")).endswith(f"-{system}"):
        complaints.append(f"built for the cell {info.get('cell')}, here is {system}")
    return _outcome(complaints, ", ".join(f"{key} {value}" for key, value in wanted.items()))


def precompiled(bench: Bench) -> Outcome:
    """The plugins are the wheel's own, and nothing was compiled, nor could have been."""
    complaints = [f"{tool} is on PATH" for tool in _COMPILERS if shutil.which(tool)]
    modules = _plugins(bench)
    for name, module in modules.items():
        file = Path(str(module.__file__)).resolve()
        if _package(bench).parent not in file.parents:
            complaints.append(f"{name} came from {file}, outside of the wheel")
    extensions = Path(os.environ.get("TORCH_EXTENSIONS_DIR", ""))
    if extensions.name and any(extensions.glob("**/*.so")):
        complaints.append(f"something was compiled in {extensions}")
    return _outcome(complaints, f"{', '.join(modules)} from the wheel", plugins=len(modules))


def _plugins(bench: Bench) -> dict[str, ModuleType]:
    """The compiled modules by name, loaded as upstream's own code loads them."""
    if not bench.release.startswith("0.3."):
        return {"_nvdiffrast_c": importlib.import_module("_nvdiffrast_c")}
    ops = bench.dr.ops
    wanted = {"nvdiffrast_plugin": False, "nvdiffrast_plugin_gl": True}
    present = {name: gl for name, gl in wanted.items() if name in _build_info(bench)["plugins"]}
    return {name: ops._get_plugin(gl=gl) for name, gl in present.items()}


def symbols(bench: Bench) -> Outcome:
    """The documented interface is there, and the plugins have all that upstream's Python asks of them."""
    names = _NAMES + (_NAMES_OF_03 if bench.release.startswith("0.3.") else [])
    complaints = [f"nvdiffrast.torch has no {name}" for name in names if not hasattr(bench.dr, name)]
    modules = list(_plugins(bench).values())
    asked = asked_of_plugins((_package(bench) / "torch" / "ops.py").read_text(encoding="utf-8"))
    complaints += [f"no plugin has {name}" for name in sorted(asked) if not any(hasattr(one, name) for one in modules)]
    if not asked:
        complaints.append("ops.py asks nothing of the plugins")
    return _outcome(complaints, f"{len(asked)} functions of the plugins", functions=len(asked))


def asked_of_plugins(source: str) -> set[str]:
    """What ops.py takes from the compiled modules: `_get_plugin(...).NAME` and `_nvdiffrast_c.NAME`."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            value = node.value.func if isinstance(node.value, ast.Call) else node.value
            if isinstance(value, ast.Name) and value.id in ("_get_plugin", "_nvdiffrast_c"):
                names.add(node.attr)
    return names


def architectures(bench: Bench) -> Outcome:
    """Which of the wheel's kernels this device runs."""
    sass, capability = _build_info(bench)["architectures"]["sass"], machine.capability(bench.torch)
    how = "kernels of its own" if capability in sass else "kernels of its generation, or PTX"
    return Outcome("passed", f"compute capability {capability}: {how}")


CHECKS = (
    Check("files", files, needs_gpu=False),
    Check("build-info", build_info, needs_gpu=False),
    Check("precompiled", precompiled, needs_gpu=False),
    Check("symbols", symbols, needs_gpu=False),
    Check("architectures", architectures),
)
