"""Reports the doctor's findings about Python, torch, the driver, the GPUs and the wheel: one failure per cause."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from . import (
    _doctor_compiling,
    _doctor_environment,
    _driver_problems,
    _package_problems,
    _versions,
    _wheel_problems,
)
from . import _doctor_install as install
from ._doctor_lines import Line
from ._hints import Hint
from ._problem import IMPORTABLE_CODES, Problem, with_hint

PYTHON, TORCH, DRIVER, WHEEL = "Python and system", "torch", "driver and GPUs", "nvdiffrast"
# A problem with this section is shown below the plugin in which it was found; so is a problem with an unknown code.
PLUGIN = "plugin"
SECTIONS = {
    "wrong-python": PYTHON,
    "system-too-old": PYTHON,
    "system-musl": PYTHON,
    "path-refused": PYTHON,
    "numpy-absent": PYTHON,
    "numpy-broken": PYTHON,
    "torch-absent": TORCH,
    "torch-other-version": TORCH,
    "torch-cpu-only": TORCH,
    "torch-broken": TORCH,
    "cuda-other-major": TORCH,
    "driver-missing": DRIVER,
    "driver-too-old": DRIVER,
    "driver-broken": DRIVER,
    "driver-stub": DRIVER,
    "no-kernel": DRIVER,
    "build-info": WHEEL,
    "two-copies": WHEEL,
    "mixed-wheels": WHEEL,
    "frozen-incomplete": PLUGIN,
    "not-compiled": PLUGIN,
    "plugin-deleted": PLUGIN,
    "library-missing": PLUGIN,
    "library-damaged": PLUGIN,
    "file-unreadable": PLUGIN,
    "symbol-missing": PLUGIN,
    "mount-noexec": PLUGIN,
    "policy-blocked": PLUGIN,
    "memory-short": PLUGIN,
    "static-tls": PLUGIN,
    "executable-stack": PLUGIN,
    "dll-initialization": PLUGIN,
    "unknown": PLUGIN,
}
# Another torch solves problems with these codes.
_OTHER_TORCH = ("torch-other-version", "torch-cpu-only", "cuda-other-major")
# A wrong torch causes problems with these codes, if they concern torch's own libraries.
_CAUSED_BY_TORCH = ("library-missing", "symbol-missing", "unknown")
_TORCH_LIBRARIES = ("libtorch", "libc10", "torch", "c10")
_OLDEST_PYTHON = (3, 9)


class Plugin(NamedTuple):
    """A compiled module: its file, the result of its import (_doctor_probe.run), and its problems."""

    file: Path
    imported: Mapping[str, Any]
    problems: tuple[Problem, ...]

    @property
    def optional(self) -> bool:
        """Return whether this is the OpenGL plugin, which only RasterizeGLContext needs."""
        return is_optional(self.file.name)


class Findings(NamedTuple):
    """Everything that the doctor found.

    ``facts`` are those of _installation.describe. ``triangles`` has a result of _doctor_probe.run for each context
    that drew a triangle. ``package`` is nvdiffrast's folder, or None if nvdiffrast is not installed. ``drawing``: the
    doctor was allowed to draw with a GPU.
    """

    facts: Mapping[str, Any]
    plugins: tuple[Plugin, ...]
    triangles: Mapping[str, Mapping[str, Any]]
    package: Path | None
    drawing: bool = True


def is_optional(name: str) -> bool:
    """Return whether a file name belongs to the OpenGL plugin."""
    return name.startswith("nvdiffrast_plugin_gl")


def report(findings: Findings, environ: Mapping[str, str] = os.environ) -> list[Line]:
    """Return every line of the report, section by section."""
    problems = _problems_by_section(findings)
    return [
        *_report_python(findings, problems),
        *_report_torch(findings, problems),
        *_report_driver(findings, problems),
        *_report_wheel(findings, problems),
        *_doctor_environment.report(environ),
        *_report_compilation(findings, environ),
    ]


def _line(section: str, problem: Problem, state: str = "failed") -> Line:
    return Line(section, state, problem.summary, tuple(problem.details), problem.hint, problem.code)


def _problems_by_section(findings: Findings) -> dict[str, list[Line]]:
    """Return the problems by section or plugin file, without repetitions and without consequences of other problems."""
    sections: dict[str, list[Line]] = {}
    seen = set()
    for plugin in findings.plugins:
        for problem in plugin.problems:
            if (problem.code, problem.summary) in seen or _is_consequence(problem, findings):
                continue
            seen.add((problem.code, problem.summary))
            section = SECTIONS.get(problem.code, PLUGIN)
            if section == PLUGIN:
                line = _line(WHEEL, problem, "warning" if plugin.optional else "failed")
                sections.setdefault(str(plugin.file), []).append(line)
            else:
                sections.setdefault(section, []).append(_line(section, problem))
    return sections


def _is_consequence(problem: Problem, findings: Findings) -> bool:
    """Return whether a problem is reported from the facts, or follows from a wrong torch."""
    if problem.code in ("driver-missing", "numpy-absent", "torch-absent"):
        return True
    if problem.code not in _CAUSED_BY_TORCH or not _is_torch_wrong(findings):
        return False
    return problem.code != "library-missing" or problem.summary.lower().startswith(_TORCH_LIBRARIES)


def _is_torch_wrong(findings: Findings) -> bool:
    torch = findings.facts.get("torch")
    if not torch or torch.get("error"):
        return True
    return any(problem.code in _OTHER_TORCH for plugin in findings.plugins for problem in plugin.problems)


def _report_python(findings: Findings, sections: Mapping[str, list[Line]]) -> Iterator[Line]:
    problems = sections.get(PYTHON, [])
    threads = " free-threaded" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
    name = f"{platform.python_implementation()} {platform.python_version()}{threads}, {sys.executable}"
    if sys.version_info < _OLDEST_PYTHON or sys.implementation.name != "cpython":
        yield Line(PYTHON, "failed", f"{name}: the wheels need CPython 3.9 or newer", ("Install CPython.",))
    else:
        yield Line(PYTHON, "info" if problems else "passed", name)
    yield Line(PYTHON, "info", f"{platform.platform()}, {' '.join(platform.libc_ver()) or 'no glibc'}")
    if install.is_managed() and (findings.package is None or not findings.facts.get("torch")):
        text = "this Python belongs to the operating system, and pip refuses to install into it"
        hint = f"{sys.executable} -m venv .venv"
        yield Line(PYTHON, "warning", text, ("Create a virtual environment and use its Python and pip.",), hint)
    yield from problems
    yield _numpy_line(findings)


def _numpy_line(findings: Findings) -> Line:
    if _package_problems.is_numpy_installed():
        return Line(PYTHON, "passed", "numpy")
    problem = _package_problems.numpy_absent(Hint(f"{install.installer()} numpy"))
    if not findings.facts.get("torch"):
        return Line(PYTHON, "info", problem.summary, ("The command that installs torch also installs numpy.",))
    return _line(PYTHON, problem)


def _report_torch(findings: Findings, sections: Mapping[str, list[Line]]) -> Iterator[Line]:
    torch = findings.facts.get("torch")
    if not torch:
        # If nvdiffrast is not installed, the commands at the end of the report install both.
        hint = Hint("") if findings.package is None else _install_torch(findings)
        yield _line(TORCH, _package_problems.torch_absent(hint))
        return
    if torch.get("error"):
        yield _line(TORCH, _broken_torch(findings))
        return
    problems = [_with_torch_command(line, findings) for line in sections.get(TORCH, [])]
    target = f"CUDA {torch['cuda']}" if torch.get("cuda") else "ROCm" if torch.get("hip") else "the CPU"
    state = "passed" if torch.get("cuda") and not problems else "info"
    yield Line(TORCH, state, f"torch {torch.get('version')} for {target}, {torch.get('path')}")
    if not torch.get("cuda") and not problems:
        hint = _install_torch(findings) if findings.package else Hint("")
        yield _line(TORCH, with_hint("torch-cpu-only", "this torch cannot use an NVIDIA GPU", (), hint))
    yield from problems


def _with_torch_command(line: Line, findings: Findings) -> Line:
    """Return the line with the command of the doctor's table, if another torch solves its problem."""
    if line.code not in _OTHER_TORCH:
        return line
    hint = _install_torch(findings)
    return line._replace(details=(*line.details, *filter(None, (hint.note,))), hint=hint.command)


def _install_torch(findings: Findings, *, again: bool = False) -> Hint:
    machine = install.this_machine(dict(findings.facts))
    numpy = not _package_problems.is_numpy_installed()
    return install.torch_hint(machine, findings.facts.get("build_info"), numpy=numpy, again=again)


def _broken_torch(findings: Findings) -> Problem:
    """Return the problem of a torch whose import fails.

    The command installs the torch that the wheel was built for, or else the same torch again.
    """
    is_known = isinstance(findings.facts.get("build_info"), dict)
    hint = _install_torch(findings, again=True) if is_known else Hint("")
    if not hint.command:
        hint = install.torch_again(_installed_version("torch"))
    return _package_problems.torch_broken(findings.facts["torch"], hint)


def _report_driver(findings: Findings, sections: Mapping[str, list[Line]]) -> Iterator[Line]:
    driver, problems = findings.facts.get("driver"), sections.get(DRIVER, [])
    error = findings.facts.get("driver_error")
    is_old = any(line.code == "driver-too-old" for line in problems)
    if driver:
        text = f"NVIDIA driver {driver.get('version') or 'of unknown version'}, up to CUDA {driver.get('cuda')}"
        yield Line(DRIVER, "info" if is_old or error else "passed", text)
    if error:
        yield _line(DRIVER, Problem(error["code"], error["summary"], tuple(error["details"]), error["hint"]))
    elif not driver:
        yield _line(DRIVER, _driver_problems.driver_missing())
    yield from problems
    devices = list(findings.facts.get("devices") or ())
    # A driver that is too old runs no kernels of the wheel.
    info = None if is_old else findings.facts.get("build_info")
    for device in devices:
        yield _device_line(device, info)
    if driver and not devices and not error:
        details = ("Check CUDA_VISIBLE_DEVICES, and the container's access to the GPUs (--gpus all).",)
        yield Line(DRIVER, "failed", "the driver finds no GPU", details, "nvidia-smi")
    yield from _report_triangles(findings)


def _device_line(device: Mapping[str, Any], info: Any) -> Line:
    """Report a GPU, and whether the wheel runs on it; a GPU without kernels is reported by a problem (no-kernel)."""
    capability = str(device.get("capability"))
    text = f"{device.get('name')}, compute capability {capability}, {_gigabytes(device.get('memory'))}"
    architectures = info.get("architectures") if isinstance(info, dict) else None
    if not isinstance(architectures, dict):
        return Line(DRIVER, "info", text)
    if _versions.has_kernels(architectures.get("sass") or (), capability):
        return Line(DRIVER, "passed", f"{text}: the wheel has kernels for it")
    if _versions.has_ptx(architectures.get("ptx") or (), capability):
        return Line(DRIVER, "passed", f"{text}: the driver compiles the wheel's PTX for it once, at the first use")
    return Line(DRIVER, "info", text)


def _report_triangles(findings: Findings) -> Iterator[Line]:
    if not findings.plugins:
        return
    if not findings.triangles:
        yield Line(DRIVER, "untested", f"no triangle was drawn: {_reason_not_drawn(findings)}")
    for context, result in findings.triangles.items():
        title = f"drawing a triangle with {'OpenGL' if context == 'gl' else 'CUDA'}"
        if result["ok"]:
            yield Line(DRIVER, "passed", f"{title}: {result['text']}")
        else:
            advice = "With CUDA_LAUNCH_BLOCKING=1, CUDA names the call that failed."
            details = (*str(result["text"]).splitlines(), advice)
            state = "warning" if context == "gl" else "failed"
            yield Line(DRIVER, state, f"{title} failed", details, code="triangle")


def _reason_not_drawn(findings: Findings) -> str:
    if not findings.facts.get("devices"):
        return "there is no GPU"
    if not findings.drawing:
        return "--no-gpu was given"
    return "the CUDA plugin cannot be imported"


def _report_wheel(findings: Findings, sections: Mapping[str, list[Line]]) -> Iterator[Line]:
    if findings.package is None:
        yield _not_installed_line()
        return
    info = findings.facts.get("build_info")
    problems = sections.get(WHEEL, [])
    if isinstance(info, dict):
        built = f"{info.get('release')} for {info.get('python')}, torch {info.get('torch')}, CUDA {info.get('cuda')}"
        yield Line(WHEEL, "info" if problems else "passed", f"{built}, {findings.package}")
        if info.get("partial"):
            few = ", ".join(map(str, (info.get("architectures") or {}).get("sass") or ()))
            yield Line(WHEEL, "warning", f"compiled only for compute capability {few}: a trial build, not a release")
    elif not any(line.code == "build-info" for line in problems):
        reason = str(findings.facts.get("build_info_error") or "it is missing")
        yield _line(WHEEL, _wheel_problems.build_info_unreadable(reason, _reinstall(findings)))
    yield from problems
    yield from _report_deleted(findings)
    for plugin in findings.plugins:
        yield from _report_plugin(plugin, sections.get(str(plugin.file), []), blocked=_is_torch_wrong(findings))
    for folder in findings.facts.get("dll_folders") or ():
        yield Line(WHEEL, "info", f"Windows searches {folder} for DLLs")


def _not_installed_line() -> Line:
    """Report that this doctor does not belong to an installed wheel."""
    version = _installed_version("nvdiffrast")
    if not version:
        return Line(WHEEL, "untested", "nvdiffrast is not installed for this Python")
    return Line(WHEEL, "untested", f"nvdiffrast {version} is installed, from a wheel without a doctor")


def _installed_version(project: str) -> str:
    """Return the version in a project's metadata, or "" if the project is not installed."""
    try:
        return importlib.metadata.version(project)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _deleted_plugins(findings: Findings) -> dict[str, str]:
    """Return the names of the compiled modules that the wheel lists and that do not exist, each with its evidence."""
    info = findings.facts.get("build_info")
    present = {plugin.file.name.partition(".")[0] for plugin in findings.plugins}
    listed = info.get("plugins") if isinstance(info, dict) else None
    names = [str(name) for name in listed] if isinstance(listed, list) else []
    deleted = {name: "build_info.json lists it" for name in names if name not in present}
    for file in map(Path, findings.facts.get("missing_plugins") or ()):
        deleted[file.name.partition(".")[0]] = f"{file} is missing"
    return deleted


def _reinstall(findings: Findings) -> Hint:
    """Return the command that installs the same wheel again."""
    return Hint(**(findings.facts.get("reinstall") or {"command": ""}))


def _report_deleted(findings: Findings) -> Iterator[Line]:
    for name, evidence in _deleted_plugins(findings).items():
        problem = _wheel_problems.plugin_deleted(name, [evidence], _reinstall(findings))
        yield _line(WHEEL, problem, "warning" if is_optional(name) else "failed")


def _report_plugin(plugin: Plugin, problems: list[Line], *, blocked: bool) -> Iterator[Line]:
    """Report a plugin and its problems; ``blocked``: a problem of torch keeps it from being imported."""
    title = f"{plugin.file.name}{' (OpenGL, optional)' if plugin.optional else ''}"
    if plugin.imported["ok"]:
        yield Line(WHEEL, "info" if problems else "passed", f"{title} {plugin.imported['text']}")
    elif blocked and not problems:
        yield Line(WHEEL, "untested", f"{title} cannot be imported until the problem of torch is solved")
    elif any(problem.code not in IMPORTABLE_CODES for problem in plugin.problems):
        yield Line(WHEEL, "info", f"{title} cannot be imported")
    else:
        details = tuple(str(plugin.imported["text"]).splitlines())
        yield Line(WHEEL, "warning" if plugin.optional else "failed", f"{title} cannot be imported", details)
    yield from problems


def _report_compilation(findings: Findings, environ: Mapping[str, str]) -> Iterator[Line]:
    if findings.package is not None and not findings.plugins and not _deleted_plugins(findings):
        yield _doctor_compiling.not_compiled(environ)
    yield from _doctor_compiling.leftovers(environ)


def _gigabytes(memory: Any) -> str:
    return f"{memory / 2**30:.0f} GiB" if isinstance(memory, (int, float)) else "memory unknown"
