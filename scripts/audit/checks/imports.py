"""Import in a clean environment, in a fresh interpreter, with no compiler in sight."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from scripts.audit.checks import Subject
from scripts.audit.checks.metadata import torch_is_of_its_line
from scripts.errors import AuditError, CommandError, UntestedError
from scripts.support.process import call

PROBE = Path(__file__).resolve().parent.parent / "import_probe.py"
# Seconds; importing torch from a cold disk takes a minute at worst.
_PATIENCE = 600.0
_GL_PACKAGES = "libegl1 libgl1"


def cuda_plugin(subject: Subject) -> Iterator[str]:
    """nvdiffrast.torch imports, and the CUDA plugin is the precompiled one."""
    yield from _plugin(subject, "cuda")


def gl_plugin(subject: Subject) -> Iterator[str]:
    """The GL plugin is the precompiled one."""
    if not any(plugin.kind == "gl" for plugin in subject.policy.plugins):
        return
    missing = _answer(subject).get("missing_gl", [])
    if missing:
        raise UntestedError(f"{', '.join(missing)} not on this machine: apt-get install {_GL_PACKAGES}")
    yield from _plugin(subject, "gl")


@dataclass(frozen=True)
class _Question:
    wheel: Path
    interpreter: Path
    series: str
    kinds: tuple[str, ...]


def _plugin(subject: Subject, kind: str) -> Iterator[str]:
    answer = _answer(subject)
    found = answer["plugins"].get(kind, {"error": "no answer"})
    if "error" in found:
        yield found["error"]
    elif not found["inside"]:
        yield f"the {kind} plugin came from {found['file']}, outside of the wheel"


def _answer(subject: Subject) -> dict[str, Any]:
    """What the probe found.

    Raises:
        UntestedError: no interpreter was given, or it is not what the wheel is for.
        AuditError: the wheel cannot be installed, or kills the interpreter.
    """
    cell = subject.cell
    if subject.interpreter is None:
        raise UntestedError(f"no environment with torch {cell.torch.line} was given: --torch-environment DIR")
    if cell.platform.name != _this_platform():
        raise UntestedError(f"a wheel for {cell.platform.name} does not import on {_this_platform()}")
    python = _version(subject.interpreter)
    if python != cell.python:
        raise UntestedError(f"{subject.interpreter} is Python {python}, the wheel is for {cell.python}")
    kinds = tuple(plugin.kind for plugin in subject.policy.plugins)
    answer = _ask(_Question(subject.wheel.path, subject.interpreter, cell.release.series, kinds))
    if "crash" in answer:
        raise AuditError(answer["crash"])
    if "torch_error" in answer:
        raise UntestedError(f"torch does not import in {subject.interpreter}: {answer['torch_error']}")
    if not torch_is_of_its_line(answer["torch"], cell.torch.line) or answer["cuda"] != cell.toolkit.cuda:
        raise UntestedError(
            f"{subject.interpreter} has torch {answer['torch']} with CUDA {answer['cuda']}, "
            f"the wheel is for torch {cell.torch.line} with CUDA {cell.toolkit.cuda}"
        )
    return answer


def _version(interpreter: Path) -> str:
    program = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        return call([interpreter, "-I", "-c", program], echo=False, quiet=True).strip()
    except CommandError as error:
        raise UntestedError(f"{interpreter} does not run: {error}") from error


@cache
def _ask(question: _Question) -> dict[str, Any]:
    """Install the wheel into a folder of its own, run the probe with that folder alone beside the interpreter's."""
    with tempfile.TemporaryDirectory(prefix="nvdiffrast-audit-") as temporary:
        scratch = Path(temporary).resolve()
        target, empty, answer = scratch / "installed", scratch / "empty", scratch / "answer.json"
        empty.mkdir()
        try:
            call(_install(question, target), echo=False, quiet=True)
            command: list[str | Path] = [
                question.interpreter,
                "-I",
                "-B",
                PROBE,
                target,
                answer,
                question.series,
                *question.kinds,
            ]
            call(command, env=_environment(empty), cwd=empty, timeout=_PATIENCE, echo=False, quiet=True)
            found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
        except CommandError as error:
            # The interpreter suits the wheel: an installer that refuses, or a crash, is the wheel's fault.
            return {"crash": f"{error}: {' '.join(error.output.split())}"}
        return found


def _install(question: _Question, target: Path) -> list[str | Path]:
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
    return [*uv, "--python", question.interpreter, "--target", target, question.wheel]


def _environment(empty: Path) -> dict[str, str]:
    """No compiler, no ninja, no nvcc, no kernels that were compiled here earlier."""
    cleared = dict.fromkeys(("LD_LIBRARY_PATH", "LD_PRELOAD", "CUDA_HOME", "CUDA_PATH", "CC", "CXX"), "")
    return {**cleared, "PATH": str(empty), "HOME": str(empty), "TORCH_EXTENSIONS_DIR": str(empty)}


def _this_platform() -> str:
    return "win_amd64" if os.name == "nt" else "linux_x86_64"
