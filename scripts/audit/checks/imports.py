"""Checks that import the wheel in a new process without a compiler."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pydantic import BaseModel

from scripts.audit.checks import Subject
from scripts.audit.checks.metadata import is_of_torch_line
from scripts.errors import AuditError, CommandError, UntestedError
from scripts.support.process import call

PROBE = Path(__file__).resolve().parent.parent / "import_probe.py"
# Importing torch from a cold disk takes up to a minute.
_TIMEOUT_SECONDS = 600.0
_GL_PACKAGES = "libegl1 libgl1"


def cuda_plugin(subject: Subject) -> Iterator[str]:
    """Check that nvdiffrast.torch can be imported and uses the precompiled CUDA plugin."""
    yield from _plugin(subject, "cuda")


def gl_plugin(subject: Subject) -> Iterator[str]:
    """Check that nvdiffrast.torch uses the precompiled GL plugin."""
    if not any(plugin.kind == "gl" for plugin in subject.policy.plugins):
        return
    missing = _probe(subject).missing_gl
    if missing:
        raise UntestedError(f"this machine has no {' and no '.join(missing)}: apt-get install {_GL_PACKAGES}")
    yield from _plugin(subject, "gl")


class _PluginResult(BaseModel, frozen=True):
    """The file of an imported plugin and whether it belongs to the wheel, or the error of the import."""

    file: str = ""
    inside: bool = False
    error: str | None = None


class _ProbeResult(BaseModel, frozen=True):
    """The JSON document that import_probe.py writes; ``crash`` is set if it wrote no document."""

    crash: str | None = None
    torch_error: str | None = None
    torch: str = ""
    cuda: str | None = None
    missing_gl: list[str] = []
    plugins: dict[str, _PluginResult] = {}


@dataclass(frozen=True)
class _ProbeOptions:
    wheel: Path
    interpreter: Path
    series: str
    kinds: tuple[str, ...]


def _plugin(subject: Subject, kind: str) -> Iterator[str]:
    result = _probe(subject).plugins.get(kind, _PluginResult(error="the probe has no result for it"))
    if result.error is not None:
        yield result.error
    elif not result.inside:
        yield f"the {kind} plugin was imported from {result.file}, which is outside of the wheel"


def _probe(subject: Subject) -> _ProbeResult:
    """Return the result of the probe.

    Raises:
        UntestedError: if no interpreter was given, or it does not match the cell.
        AuditError: if the wheel cannot be installed, or the interpreter crashes.
    """
    cell = subject.cell
    if subject.interpreter is None:
        raise UntestedError(f"no environment with torch {cell.torch.line} was given: --torch-environment DIR")
    if cell.platform.name != _this_platform():
        raise UntestedError(f"a wheel for {cell.platform.name} cannot be imported on {_this_platform()}")
    python = _version(subject.interpreter)
    if python != cell.python:
        raise UntestedError(f"{subject.interpreter} is Python {python}, but the wheel is for {cell.python}")
    kinds = tuple(plugin.kind for plugin in subject.policy.plugins)
    result = _run_probe(_ProbeOptions(subject.wheel.path, subject.interpreter, cell.release.series, kinds))
    if result.crash is not None:
        raise AuditError(result.crash)
    if result.torch_error is not None:
        raise UntestedError(f"{subject.interpreter} cannot import torch: {result.torch_error}")
    if not is_of_torch_line(result.torch, cell.torch.line) or result.cuda != cell.toolkit.cuda:
        raise UntestedError(
            f"{subject.interpreter} has torch {result.torch} with CUDA {result.cuda}, "
            f"but the wheel is for torch {cell.torch.line} with CUDA {cell.toolkit.cuda}"
        )
    return result


def _version(interpreter: Path) -> str:
    program = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        return call([interpreter, "-I", "-c", program], echo=False, quiet=True).strip()
    except CommandError as error:
        raise UntestedError(f"{interpreter} is not a working interpreter: {error}") from error


@cache
def _run_probe(options: _ProbeOptions) -> _ProbeResult:
    """Install the wheel into a new folder and run the probe with that folder added to sys.path."""
    with tempfile.TemporaryDirectory(prefix="nvdiffrast-audit-") as temporary:
        scratch = Path(temporary).resolve()
        target, empty, output = scratch / "installed", scratch / "empty", scratch / "result.json"
        empty.mkdir()
        try:
            call(_install(options, target), echo=False, quiet=True)
            command: list[str | Path] = [
                options.interpreter,
                "-I",
                "-B",
                PROBE,
                target,
                output,
                options.series,
                *options.kinds,
            ]
            call(command, env=_environment(empty), cwd=empty, timeout=_TIMEOUT_SECONDS, echo=False, quiet=True)
            return _ProbeResult.model_validate_json(output.read_text(encoding="utf-8"))
        except CommandError as error:
            # The interpreter matches the wheel, so the wheel causes a failed installation or a crash.
            return _ProbeResult(crash=f"{error}: {' '.join(error.output.split())}")


def _install(options: _ProbeOptions, target: Path) -> list[str | Path]:
    uv = [
        sys.executable,
        "-m",
        "uv",
        "pip",
        "install",
        "--quiet",
        "--offline",
        "--no-cache",
        "--no-deps",
        "--no-config",
    ]
    return [*uv, "--python", options.interpreter, "--target", target, options.wheel]


def _environment(empty: Path) -> dict[str, str]:
    """Return variables that hide compilers, ninja, nvcc and kernels that were compiled earlier."""
    cleared = dict.fromkeys(("LD_LIBRARY_PATH", "LD_PRELOAD", "CUDA_HOME", "CUDA_PATH", "CC", "CXX"), "")
    return {**cleared, "PATH": str(empty), "HOME": str(empty), "TORCH_EXTENSIONS_DIR": str(empty)}


def _this_platform() -> str:
    return "win_amd64" if os.name == "nt" else "linux_x86_64"
