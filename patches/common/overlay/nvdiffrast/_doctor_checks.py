"""What the doctor reports of Python, torch, the driver, the GPUs and the wheel: one failure for each cause."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from . import _doctor_compiling, _doctor_environment
from . import _doctor_install as install
from ._doctor_lines import Line

PYTHON, TORCH, DRIVER, WHEEL = "Python and system", "torch", "driver and GPUs", "nvdiffrast"
# The section of a problem; a problem with another code belongs to the plugin at which it was found.
_SECTIONS = {
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
    "no-kernel": DRIVER,
    "build-info": WHEEL,
    "two-copies": WHEEL,
    "mixed-wheels": WHEEL,
}
# Problems that another torch solves.
_OTHER_TORCH = ("torch-other-version", "torch-cpu-only", "cuda-other-major")
# A wrong torch explains these, where they are about torch's own libraries.
_OF_LIBRARIES = ("library-missing", "symbol-missing", "unknown")
_TORCH_LIBRARIES = ("libtorch", "libc10", "torch", "c10")
# Problems that do not keep a plugin from being imported.
_BESIDE = ("build-info", "two-copies", "driver-missing", "driver-too-old", "no-kernel")
_SMALLEST_PYTHON = (3, 9)


class Plugin(NamedTuple):
    """A compiled module: its file, what importing it gave (_doctor_probe.run), and the problems found at it."""

    file: Path
    imported: Mapping[str, Any]
    problems: tuple[Any, ...]

    @property
    def optional(self) -> bool:
        """The OpenGL plugin, without which everything but RasterizeGLContext works."""
        return is_optional(self.file.name)


class Examined(NamedTuple):
    """Everything that was found out: ``facts`` of _installation.describe, plugins, and triangles by name.

    ``package`` is nvdiffrast's folder, None where it is not installed; ``drawing``: a GPU may be used.
    """

    facts: Mapping[str, Any]
    plugins: tuple[Plugin, ...]
    triangles: Mapping[str, Mapping[str, Any]]
    package: Path | None
    drawing: bool = True


def is_optional(name: str) -> bool:
    """Return whether a file name is one of the OpenGL plugin."""
    return name.startswith("nvdiffrast_plugin_gl")


def lines(examined: Examined, environ: Mapping[str, str] = os.environ) -> list[Line]:
    """Return every line, section by section."""
    found = _problems(examined)
    return [
        *_python(examined, found),
        *_torch(examined, found),
        *_driver(examined, found),
        *_wheel(examined, found),
        *_doctor_environment.lines(environ),
        *_compiling(examined, environ),
    ]


def _problems(examined: Examined) -> dict[str, list[Line]]:
    """Return the problems by section, each once, and without those that another problem explains."""
    made: dict[str, list[Line]] = {}
    seen = set()
    for plugin in examined.plugins:
        for problem in plugin.problems:
            section = _SECTIONS.get(problem.code, str(plugin.file))
            if (problem.code, problem.summary) in seen or _is_explained(problem, examined):
                continue
            seen.add((problem.code, problem.summary))
            state = "warning" if plugin.optional and section == str(plugin.file) else "failed"
            shown = WHEEL if section == str(plugin.file) else section
            line = Line(shown, state, problem.summary, tuple(problem.details), problem.hint, problem.code)
            made.setdefault(section, []).append(line)
    return made


def _is_explained(problem: Any, examined: Examined) -> bool:
    """Whether the findings about the driver, numpy or torch say the same, nearer to the cause."""
    if problem.code in ("driver-missing", "numpy-absent", "torch-absent"):
        return True
    if problem.code not in _OF_LIBRARIES or not _torch_is_wrong(examined):
        return False
    return problem.code != "library-missing" or str(problem.summary).lower().startswith(_TORCH_LIBRARIES)


def _torch_is_wrong(examined: Examined) -> bool:
    torch = examined.facts.get("torch")
    if not torch or torch.get("error"):
        return True
    return any(problem.code in _OTHER_TORCH for plugin in examined.plugins for problem in plugin.problems)


def _python(examined: Examined, found: Mapping[str, list[Line]]) -> Iterator[Line]:
    problems = found.get(PYTHON, [])
    threads = " free-threaded" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
    name = f"{platform.python_implementation()} {platform.python_version()}{threads}, {sys.executable}"
    if sys.version_info < _SMALLEST_PYTHON or sys.implementation.name != "cpython":
        yield Line(PYTHON, "failed", f"{name}: wheels are for CPython 3.9 and newer", ("install CPython",))
    else:
        # A problem below says what is wrong with it.
        yield Line(PYTHON, "info" if problems else "passed", name)
    yield Line(PYTHON, "info", f"{platform.platform()}, {' '.join(platform.libc_ver()) or 'no glibc'}")
    if install.is_managed() and (examined.package is None or not examined.facts.get("torch")):
        text = "this Python belongs to the operating system, and pip refuses to install into it"
        hint = f"{sys.executable} -m venv .venv"
        yield Line(PYTHON, "warning", text, ("make a virtual environment and run its Python and pip",), hint)
    yield from problems
    yield _numpy(examined)


def _numpy(examined: Examined) -> Line:
    if importlib.util.find_spec("numpy") is not None:
        return Line(PYTHON, "passed", "numpy")
    text = "numpy is not installed, and nvdiffrast imports it"
    if not examined.facts.get("torch"):
        return Line(PYTHON, "info", f"{text}: the command that installs torch installs it, too")
    return Line(PYTHON, "failed", text, hint=f"{install.installer()} numpy", code="numpy-absent")


def _torch(examined: Examined, found: Mapping[str, list[Line]]) -> Iterator[Line]:
    torch = examined.facts.get("torch")
    problems = [line._replace(hint=_torch_hint(line, examined)) for line in found.get(TORCH, [])]
    if not torch:
        # Where nvdiffrast is not installed, the commands at the end install both.
        hint = "" if examined.package is None else _right_torch(examined)
        yield Line(TORCH, "failed", "torch is not installed", hint=hint, code="torch-absent")
        return
    if torch.get("error"):
        yield from problems or [_broken(examined)]
        return
    built = f"CUDA {torch['cuda']}" if torch.get("cuda") else "ROCm" if torch.get("hip") else "the CPU"
    state = "passed" if torch.get("cuda") and not problems else "info"
    yield Line(TORCH, state, f"torch {torch.get('version')} for {built}, {torch.get('path')}")
    if not torch.get("cuda") and not problems:
        text, hint = "this torch cannot use an NVIDIA GPU", _right_torch(examined)
        yield Line(TORCH, "failed", text, hint=hint if examined.package else "", code="torch-cpu-only")
    yield from problems


def _torch_hint(line: Line, examined: Examined) -> str:
    """Return the command for the torch that the wheel is for, where another torch solves the problem."""
    if line.code in _OTHER_TORCH:
        return _right_torch(examined)
    return _broken(examined).hint if line.code == "torch-broken" else line.hint


def _right_torch(examined: Examined, *, again: bool = False) -> str:
    machine = install.this_machine(dict(examined.facts))
    numpy = importlib.util.find_spec("numpy") is None
    return install.torch_hint(machine, examined.facts.get("build_info"), numpy=numpy, again=again)


def _broken(examined: Examined) -> Line:
    """Report a torch whose import fails; the next step is the torch that the wheel is for, else the same one again."""
    torch = examined.facts["torch"]
    text = f"torch is installed, and its own import fails: {torch.get('error')}"
    known = isinstance(examined.facts.get("build_info"), dict)
    hint = _right_torch(examined, again=True) if known else ""
    if not hint.startswith(("pip", "uv")):
        hint = install.torch_again(_version("torch"))
    return Line(TORCH, "failed", text, (str(torch.get("path")),), hint, "torch-broken")


def _driver(examined: Examined, found: Mapping[str, list[Line]]) -> Iterator[Line]:
    driver, problems = examined.facts.get("driver"), found.get(DRIVER, [])
    error = examined.facts.get("driver_error")
    old = any(one.code == "driver-too-old" for one in problems)
    if driver:
        text = f"NVIDIA driver {driver.get('version') or 'of unknown version'}, up to CUDA {driver.get('cuda')}"
        yield Line(DRIVER, "info" if old or error else "passed", text)
    if error:
        yield Line(DRIVER, "failed", error["summary"], tuple(error["details"]), error["hint"], error["code"])
    elif not driver:
        details = ("install NVIDIA's driver; start a container with access to the GPUs (--gpus all)",)
        yield Line(DRIVER, "failed", "there is no NVIDIA driver", details, code="driver-missing")
    yield from problems
    devices = list(examined.facts.get("devices") or ())
    # Such a driver runs none of the kernels that would fit.
    built = None if old else examined.facts.get("build_info")
    for device in devices:
        yield _device(device, built)
    if driver and not devices and not error:
        details = ("check CUDA_VISIBLE_DEVICES, and the container's access to the GPUs (--gpus all)",)
        yield Line(DRIVER, "failed", "the driver shows no GPU", details, "nvidia-smi")
    yield from _triangles(examined)


def _device(device: Mapping[str, Any], built: Any) -> Line:
    """Report a GPU and what of the wheel runs on it; that nothing does is a problem of its own."""
    capability = str(device.get("capability"))
    text = f"{device.get('name')}, compute capability {capability}, {_gigabytes(device.get('memory'))}"
    if not isinstance(built, dict) or not isinstance(built.get("architectures"), dict):
        return Line(DRIVER, "info", text)
    sass, ptx = (tuple(map(str, built["architectures"].get(kind) or ())) for kind in ("sass", "ptx"))
    compiled, translated = (install.Wheel("", "", "", "", "", *kinds) for kinds in ((sass, ()), ((), ptx)))
    if install.serves(compiled, capability):
        return Line(DRIVER, "passed", f"{text}: the wheel has kernels for it")
    if install.serves(translated, capability):
        return Line(DRIVER, "passed", f"{text}: the driver compiles the wheel's PTX for it, once, at the first use")
    return Line(DRIVER, "info", text)


def _triangles(examined: Examined) -> Iterator[Line]:
    if not examined.plugins:
        return
    if not examined.triangles:
        yield Line(DRIVER, "untested", f"a first triangle was not drawn: {_why_not_drawn(examined)}")
    for name, found in examined.triangles.items():
        title = f"a first triangle by {'OpenGL' if name == 'gl' else 'CUDA'}"
        if found["ok"]:
            yield Line(DRIVER, "passed", f"{title}: {found['text']}")
        else:
            said = (*str(found["text"]).splitlines(), "CUDA_LAUNCH_BLOCKING=1 makes CUDA name the call that failed")
            yield Line(DRIVER, "warning" if name == "gl" else "failed", f"{title} failed", said, code="triangle")


def _why_not_drawn(examined: Examined) -> str:
    if not examined.facts.get("devices"):
        return "there is no GPU to draw with"
    if not examined.drawing:
        return "--no-gpu was given"
    return "the CUDA plugin cannot be imported"


def _wheel(examined: Examined, found: Mapping[str, list[Line]]) -> Iterator[Line]:
    if examined.package is None:
        yield _not_installed()
        return
    info = examined.facts.get("build_info")
    problems = found.get(WHEEL, [])
    if isinstance(info, dict):
        made = f"{info.get('release')} for {info.get('python')}, torch {info.get('torch')}, CUDA {info.get('cuda')}"
        yield Line(WHEEL, "info" if problems else "passed", f"{made}, {examined.package}")
        if info.get("partial"):
            few = ", ".join(map(str, (info.get("architectures") or {}).get("sass") or ()))
            yield Line(WHEEL, "warning", f"compiled for compute capability {few} alone: a trial build, not a release")
    elif not any(one.code == "build-info" for one in problems):
        why = examined.facts.get("build_info_error") or "it is missing"
        yield Line(
            WHEEL,
            "failed",
            f"build_info.json cannot be read: {why}",
            hint=_again(examined)["command"],
            code="build-info",
        )
    yield from problems
    yield from _deleted(examined)
    for plugin in examined.plugins:
        yield from _plugin(plugin, found.get(str(plugin.file), []), blocked=_torch_is_wrong(examined))
    for folder in examined.facts.get("dll_folders") or ():
        yield Line(WHEEL, "info", f"DLLs are looked for in {folder}")


def _not_installed() -> Line:
    """Report that this doctor is not a part of an installed wheel."""
    version = _version("nvdiffrast")
    if not version:
        return Line(WHEEL, "untested", "nvdiffrast is not installed for this Python")
    return Line(WHEEL, "untested", f"nvdiffrast {version} is installed, from a wheel without a doctor")


def _version(project: str) -> str:
    """Return the version that an installer recorded, empty if none did."""
    try:
        return importlib.metadata.version(project)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _missing_plugins(examined: Examined) -> dict[str, str]:
    """Return the compiled modules that the wheel lists and that are gone: name -> what lists it."""
    info = examined.facts.get("build_info")
    present = {plugin.file.name.partition(".")[0] for plugin in examined.plugins}
    listed = info.get("plugins") if isinstance(info, dict) else None
    names = [str(name) for name in listed] if isinstance(listed, list) else []
    missing = {name: "build_info.json lists it" for name in names if name not in present}
    for file in map(Path, examined.facts.get("missing_plugins") or ()):
        missing[file.name.partition(".")[0]] = f"RECORD lists {file}"
    return missing


def _again(examined: Examined) -> Mapping[str, str]:
    """Return the command that installs the same wheel again, and a note on it."""
    return examined.facts.get("reinstall") or {"command": "", "note": ""}


def _deleted(examined: Examined) -> Iterator[Line]:
    for name, listed in _missing_plugins(examined).items():
        state = "warning" if is_optional(name) else "failed"
        again = _again(examined)
        details = (listed, "antivirus software deletes such files: look into its log first", again["note"])
        text = f"{name} was deleted from this installation"
        yield Line(WHEEL, state, text, tuple(filter(None, details)), again["command"], "plugin-deleted")


def _plugin(plugin: Plugin, problems: list[Line], *, blocked: bool) -> Iterator[Line]:
    title = f"{plugin.file.name}{' (OpenGL, optional)' if plugin.optional else ''}"
    if plugin.imported["ok"]:
        yield Line(WHEEL, "info" if problems else "passed", f"{title} {plugin.imported['text']}")
    elif blocked and not problems:
        yield Line(WHEEL, "untested", f"{title}: it cannot be imported until torch is right, see above")
    elif any(problem.code not in _BESIDE for problem in plugin.problems):
        yield Line(WHEEL, "info", f"{title} cannot be imported")
    else:
        said = tuple(str(plugin.imported["text"]).splitlines())
        yield Line(WHEEL, "warning" if plugin.optional else "failed", f"{title} cannot be imported", said)
    yield from problems


def _compiling(examined: Examined, environ: Mapping[str, str]) -> Iterator[Line]:
    if examined.package is not None and not examined.plugins and not _missing_plugins(examined):
        yield _doctor_compiling.not_compiled(environ)
    yield from _doctor_compiling.leftovers(environ)


def _gigabytes(memory: Any) -> str:
    return f"{memory / 2**30:.0f} GiB" if isinstance(memory, (int, float)) else "memory unknown"
