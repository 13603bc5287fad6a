"""Imports the installed wheel and writes the result as JSON; the audit runs this file in the tested interpreter.

Arguments: the folder of the installed wheel, the output file, the series, the kinds of plugins.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any


def missing_gl_libraries() -> list[str]:
    if os.name == "nt":
        return []
    missing = []
    for name in ("libEGL.so.1", "libGL.so.1"):
        try:
            ctypes.CDLL(name)
        except OSError:
            missing.append(name)
    return missing


def import_plugin(series: str, kind: str) -> ModuleType:
    package = importlib.import_module("nvdiffrast.torch")
    if series == "0.3":
        module: ModuleType = package.ops._get_plugin(gl=kind == "gl")
        return module
    return sys.modules["_nvdiffrast_c"]


def probe_plugin(target: Path, series: str, kind: str) -> dict[str, Any]:
    try:
        file = Path(str(import_plugin(series, kind).__file__)).resolve()
    except BaseException as error:  # Every exception is a result of the probe.
        return {"error": f"{type(error).__name__}: {error}"}
    return {"file": str(file), "inside": target.resolve() in file.parents}


def probe(target: Path, series: str, kinds: list[str]) -> dict[str, Any]:
    try:
        torch = importlib.import_module("torch")
    except BaseException as error:
        return {"torch_error": f"{type(error).__name__}: {error}"}
    missing = missing_gl_libraries()
    sys.path.insert(0, str(target))
    plugins = {kind: probe_plugin(target, series, kind) for kind in kinds if kind != "gl" or not missing}
    return {"torch": torch.__version__, "cuda": torch.version.cuda, "missing_gl": missing, "plugins": plugins}


if __name__ == "__main__":
    result = probe(Path(sys.argv[1]), sys.argv[3], sys.argv[4:])
    Path(sys.argv[2]).write_text(json.dumps(result), encoding="utf-8")
