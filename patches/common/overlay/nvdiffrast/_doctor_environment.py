"""Reports environment variables that change the behaviour of nvdiffrast, torch or the driver."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from ._doctor_lines import Line

ENVIRONMENT = "environment"


def report(environ: Mapping[str, str]) -> Iterator[Line]:
    """Report each variable that is set."""
    found = [line for name, check in VARIABLES.items() if name in environ for line in check(name, environ[name])]
    yield from found or [Line(ENVIRONMENT, "passed", "no variable that changes nvdiffrast's behaviour is set")]


def _show(name: str, value: str) -> Iterator[Line]:
    yield Line(ENVIRONMENT, "info", f"{name}={value}")


def _check_blocking(name: str, value: str) -> Iterator[Line]:
    if value not in ("", "0"):
        yield _warning(f"{name}={value}: CUDA waits for every kernel, which locates errors but is slow", name)


def _check_forced_compilation(name: str, value: str) -> Iterator[Line]:
    if value == "1":
        yield _warning(f"{name}=1: the plugins are compiled just in time, and the installed ones are not used", name)


def _check_visible_gpus(name: str, value: str) -> Iterator[Line]:
    if value.strip() in ("", "-1"):
        yield Line(ENVIRONMENT, "failed", f"{name}={value!r} hides every GPU", hint=_unset(name), code="gpus-hidden")
    else:
        yield from _show(name, value)


def _check_folder(name: str, value: str) -> Iterator[Line]:
    if Path(value).is_dir():
        yield from _show(name, value)
    else:
        yield _warning(f"{name}={value}: the folder does not exist", name)


def _check_folders(name: str, value: str) -> Iterator[Line]:
    yield from _show(name, value)
    for folder in filter(None, (part.strip('"') for part in value.split(os.pathsep))):
        if not Path(folder).is_dir():
            yield _warning(f"{name} contains {folder}, which is not a folder", name)


def _show_architectures(name: str, value: str) -> Iterator[Line]:
    yield Line(ENVIRONMENT, "info", f"{name}={value}: used only for compiling, not by an installed wheel")


VARIABLES = {
    "NVDIFFRAST_FORCE_JIT": _check_forced_compilation,
    "NVDIFFRAST_NO_JIT": _show,
    "NVDIFFRAST_DLL_DIRS": _check_folders,
    "CUDA_VISIBLE_DEVICES": _check_visible_gpus,
    "CUDA_LAUNCH_BLOCKING": _check_blocking,
    "CUDA_HOME": _check_folder,
    "CUDA_PATH": _check_folder,
    "TORCH_CUDA_ARCH_LIST": _show_architectures,
    "TORCH_EXTENSIONS_DIR": _show,
    "LD_LIBRARY_PATH": _show,
    "LD_PRELOAD": _show,
}


def _warning(text: str, name: str) -> Line:
    return Line(ENVIRONMENT, "warning", text, hint=_unset(name))


def _unset(name: str) -> str:
    return f"set {name}=" if os.name == "nt" else f"unset {name}"
