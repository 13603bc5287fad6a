"""Environment variables that change what nvdiffrast, torch or the driver do."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from ._doctor_lines import Line

ENVIRONMENT = "environment"


def lines(environ: Mapping[str, str]) -> Iterator[Line]:
    """Report each variable that is set."""
    said = [line for name, tell in VARIABLES.items() if name in environ for line in tell(name, environ[name])]
    yield from said or [Line(ENVIRONMENT, "passed", "no variable is set that changes what nvdiffrast does")]


def _told(name: str, value: str) -> Iterator[Line]:
    yield Line(ENVIRONMENT, "info", f"{name}={value}")


def _slow(name: str, value: str) -> Iterator[Line]:
    if value not in ("", "0"):
        yield _warning(f"{name}={value}: every kernel is waited for, which finds errors and is slow", name)


def _forced(name: str, value: str) -> Iterator[Line]:
    if value == "1":
        yield _warning(f"{name}=1: the compiled plugins are not used, but compiled again", name)


def _hidden(name: str, value: str) -> Iterator[Line]:
    if value.strip() in ("", "-1"):
        yield Line(ENVIRONMENT, "failed", f"{name}={value!r} hides every GPU", hint=_unset(name), code="gpus-hidden")
    else:
        yield from _told(name, value)


def _folder(name: str, value: str) -> Iterator[Line]:
    if Path(value).is_dir():
        yield from _told(name, value)
    else:
        yield _warning(f"{name}={value}: there is no such folder", name)


def _folders(name: str, value: str) -> Iterator[Line]:
    yield from _told(name, value)
    for folder in filter(None, (one.strip('"') for one in value.split(os.pathsep))):
        if not Path(folder).is_dir():
            yield _warning(f"{name} names {folder}, which is not a folder", name)


def _architectures(name: str, value: str) -> Iterator[Line]:
    yield Line(ENVIRONMENT, "info", f"{name}={value}: used when something is compiled, not by a finished wheel")


VARIABLES = {
    "NVDIFFRAST_FORCE_JIT": _forced,
    "NVDIFFRAST_NO_JIT": _told,
    "NVDIFFRAST_DLL_DIRS": _folders,
    "CUDA_VISIBLE_DEVICES": _hidden,
    "CUDA_LAUNCH_BLOCKING": _slow,
    "CUDA_HOME": _folder,
    "CUDA_PATH": _folder,
    "TORCH_CUDA_ARCH_LIST": _architectures,
    "TORCH_EXTENSIONS_DIR": _told,
    "LD_LIBRARY_PATH": _told,
    "LD_PRELOAD": _told,
}


def _warning(text: str, name: str) -> Line:
    return Line(ENVIRONMENT, "warning", text, hint=_unset(name))


def _unset(name: str) -> str:
    return f"set {name}=" if os.name == "nt" else f"unset {name}"
