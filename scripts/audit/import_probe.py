"""Run by the audit in the interpreter under test: import the installed wheel, write what came of it as JSON.

Arguments: the folder the wheel was installed into, the file to write, the series, the kinds of plugin.
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


def gl_libraries_missing() -> list[str]:
    if os.name == "nt":
        return []
    missing = []
    for name in ("libEGL.so.1", "libGL.so.1"):
        try:
            ctypes.CDLL(name)
        except OSError:
            missing.append(name)
    return missing


def plugin(series: str, kind: str) -> ModuleType:
    package = importlib.import_module("nvdiffrast.torch")
    if series == "0.3":
        module: ModuleType = package.ops._get_plugin(gl=kind == "gl")
        return module
    return sys.modules["_nvdiffrast_c"]


def look(target: Path, series: str, kind: str) -> dict[str, Any]:
    try:
        file = Path(str(plugin(series, kind).__file__)).resolve()
    except BaseException as error:  # whatever it is, it is the answer
        return {"error": f"{type(error).__name__}: {error}"}
    return {"file": str(file), "inside": target.resolve() in file.parents}


def answer(target: Path, series: str, kinds: list[str]) -> dict[str, Any]:
    try:
        torch = importlib.import_module("torch")
    except BaseException as error:
        return {"torch_error": f"{type(error).__name__}: {error}"}
    missing = gl_libraries_missing()
    sys.path.insert(0, str(target))
    plugins = {kind: look(target, series, kind) for kind in kinds if kind != "gl" or not missing}
    return {"torch": torch.__version__, "cuda": torch.version.cuda, "missing_gl": missing, "plugins": plugins}


if __name__ == "__main__":
    found = answer(Path(sys.argv[1]), sys.argv[3], sys.argv[4:])
    Path(sys.argv[2]).write_text(json.dumps(found), encoding="utf-8")
