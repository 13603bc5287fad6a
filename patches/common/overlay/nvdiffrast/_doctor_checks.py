"""What the doctor says of each thing that must be right: a line when it is, the problem and its mend when it is not."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
import sysconfig
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ._doctor_install import Wheel, serves
from ._doctor_lines import Line

PYTHON, TORCH, DRIVER = "Python and system", "torch", "driver and GPUs"
WHEEL, ENVIRONMENT, JIT = "nvdiffrast", "environment", "just-in-time compiling"
# Where a problem is shown; every other belongs to the plugin that it was found at.
_SECTIONS = {
    "wrong-python": PYTHON,
    "system-too-old": PYTHON,
    "path-refused": PYTHON,
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
# torch waits for this file as long as it is there, also when who made it was killed.
_LOCK = "lock"
_STALE_SECONDS = 3600
_SMALLEST_PYTHON = (3, 9)


class Plugin(NamedTuple):
    """A compiled module: its file, what importing it gave (_doctor_probe.run), and the problems found at it."""

    file: Path
    imported: Mapping[str, Any]
    problems: tuple[Any, ...]

    @property
    def optional(self) -> bool:
        """The OpenGL plugin, without which everything but RasterizeGLContext works."""
        return self.file.name.startswith("nvdiffrast_plugin_gl")


class Patient(NamedTuple):
    """All that was found out before anything is said: ``facts`` of _installation.describe, plugins, triangles by name.

    ``package`` is nvdiffrast's folder, None where it is not installed.
    """

    facts: Mapping[str, Any]
    plugins: tuple[Plugin, ...]
    triangles: Mapping[str, Mapping[str, Any]]
    package: Path | None


def lines(patient: Patient, environ: Mapping[str, str] = os.environ) -> list[Line]:
    """Every line, by section."""
    found = _problems(patient)
    return [
        *_python(found),
        *_torch(patient, found),
        *_driver(patient, found),
        *_wheel(patient, found),
        *_environment(environ),
        *_jit(patient, environ),
    ]


def _problems(patient: Patient) -> dict[str, list[Line]]:
    """The problems by section, each once, however many plugins have it."""
    made: dict[str, list[Line]] = {}
    seen = set()
    for plugin in patient.plugins:
        for problem in plugin.problems:
            section = _SECTIONS.get(problem.code, str(plugin.file))
            if (problem.code, problem.summary) not in seen:
                seen.add((problem.code, problem.summary))
                state = "warning" if plugin.optional and section == str(plugin.file) else "failed"
                shown = WHEEL if section == str(plugin.file) else section
                line = Line(shown, state, problem.summary, tuple(problem.details), problem.mend, problem.code)
                made.setdefault(section, []).append(line)
    return made


def _python(found: Mapping[str, list[Line]]) -> Iterator[Line]:
    problems = found.get(PYTHON, [])
    threads = " free-threaded" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
    name = f"{platform.python_implementation()} {platform.python_version()}{threads}, {sys.executable}"
    if sys.version_info < _SMALLEST_PYTHON or sys.implementation.name != "cpython":
        yield Line(PYTHON, "failed", f"{name}: wheels are for CPython 3.9 and newer", mend="install CPython")
    else:
        # A problem below says what is wrong with it.
        yield Line(PYTHON, "info" if problems else "passed", name)
    yield Line(PYTHON, "info", f"{platform.platform()}, {' '.join(platform.libc_ver()) or 'no glibc'}")
    yield from problems
    if importlib.util.find_spec("numpy") is None:
        yield Line(PYTHON, "failed", "numpy is not installed, and nvdiffrast imports it", mend="pip install numpy")
    else:
        yield Line(PYTHON, "passed", "numpy")


def _torch(patient: Patient, found: Mapping[str, list[Line]]) -> Iterator[Line]:
    torch, problems = patient.facts.get("torch"), found.get(TORCH, [])
    if torch:
        built = f"CUDA {torch['cuda']}" if torch.get("cuda") else "ROCm" if torch.get("hip") else "no CUDA"
        fine = not problems and torch.get("cuda")
        yield Line(
            TORCH, "passed" if fine else "info", f"torch {torch.get('version')} for {built}, {torch.get('path')}"
        )
        if not torch.get("cuda") and not problems:
            mend = "install a torch of CUDA by the commands below"
            yield Line(TORCH, "failed", "this torch cannot use an NVIDIA GPU", mend=mend, code="torch-cpu-only")
    elif not problems:
        yield Line(
            TORCH, "failed", "torch is not installed", mend="install it by the commands below", code="torch-absent"
        )
    yield from problems


def _driver(patient: Patient, found: Mapping[str, list[Line]]) -> Iterator[Line]:
    driver, problems = patient.facts.get("driver"), found.get(DRIVER, [])
    if driver:
        text = f"NVIDIA driver {driver.get('version') or 'of unknown version'}, up to CUDA {driver.get('cuda')}"
        yield Line(DRIVER, "info" if any(one.code == "driver-too-old" for one in problems) else "passed", text)
    elif not any(one.code == "driver-missing" for one in problems):
        mend = "install NVIDIA's driver; in a container, start it with GPU access (--gpus all)"
        yield Line(DRIVER, "failed", "there is no NVIDIA driver", mend=mend, code="driver-missing")
    yield from problems
    devices = list(patient.facts.get("devices") or ())
    # Such a driver runs none of the kernels that would fit.
    built = None if any(one.code == "driver-too-old" for one in problems) else patient.facts.get("build_info")
    for device in devices:
        yield _device(device, built)
    if driver and not devices:
        mend = "check CUDA_VISIBLE_DEVICES, and the container's GPU access (--gpus all)"
        yield Line(DRIVER, "failed", "the driver shows no GPU", mend=mend)
    yield from _triangles(patient)


def _device(device: Mapping[str, Any], built: Any) -> Line:
    """The GPU, and what of the wheel runs on it; that nothing does is a problem told before."""
    capability = str(device.get("capability"))
    text = f"{device.get('name')}, compute capability {capability}, {_gigabytes(device.get('memory'))}"
    if not isinstance(built, dict) or not isinstance(built.get("architectures"), dict):
        return Line(DRIVER, "info", text)
    sass, ptx = (tuple(map(str, built["architectures"].get(kind) or ())) for kind in ("sass", "ptx"))
    compiled, translated = Wheel("", "", "", "", "", sass, ()), Wheel("", "", "", "", "", (), ptx)
    if serves(compiled, capability):
        return Line(DRIVER, "passed", f"{text}: the wheel has kernels for it")
    if serves(translated, capability):
        return Line(DRIVER, "passed", f"{text}: the driver compiles the wheel's PTX for it, once, at the first use")
    return Line(DRIVER, "info", text)


def _triangles(patient: Patient) -> Iterator[Line]:
    if not patient.plugins:
        return
    if not patient.triangles:
        yield Line(DRIVER, "untested", "a first triangle: no GPU is here, or none was to be used")
    for name, found in patient.triangles.items():
        title = f"a first triangle by {'OpenGL' if name == 'gl' else 'CUDA'}"
        if found["ok"]:
            yield Line(DRIVER, "passed", f"{title}: {found['text']}")
        else:
            said = tuple(str(found["text"]).splitlines())
            mend = "run it with CUDA_LAUNCH_BLOCKING=1 and report what it says"
            state = "warning" if name == "gl" else "failed"
            yield Line(DRIVER, state, f"{title} failed", said, mend, "triangle")


def _wheel(patient: Patient, found: Mapping[str, list[Line]]) -> Iterator[Line]:
    if patient.package is None:
        without = _installed_without_doctor()
        text = (
            f"nvdiffrast {without} is there, of a wheel without a doctor"
            if without
            else "nvdiffrast is not installed for this Python"
        )
        yield Line(WHEEL, "untested", text, mend="install a wheel: see the end")
        return
    info = patient.facts.get("build_info")
    if isinstance(info, dict):
        made = f"{info.get('release')} for {info.get('python')}, torch {info.get('torch')}, CUDA {info.get('cuda')}"
        yield Line(WHEEL, "info" if found.get(WHEEL) else "passed", f"{made}, {patient.package}")
        if info.get("partial"):
            few = ", ".join(map(str, (info.get("architectures") or {}).get("sass") or ()))
            yield Line(WHEEL, "warning", f"built for few GPUs only ({few}): no release", mend="see the end")
    elif not any(one.code == "build-info" for one in found.get(WHEEL, [])):
        why = patient.facts.get("build_info_error") or "there is none"
        mend = "reinstall the wheel: see the end"
        yield Line(WHEEL, "failed", f"build_info.json cannot be read: {why}", mend=mend, code="build-info")
    yield from found.get(WHEEL, [])
    for plugin in patient.plugins:
        yield from _plugin(plugin, found.get(str(plugin.file), []))
    for folder in patient.facts.get("dll_folders") or ():
        yield Line(WHEEL, "info", f"DLLs are looked for in {folder}")


def _installed_without_doctor() -> str | None:
    """The version of an nvdiffrast that is none of these wheels, where this doctor is not a part of it."""
    try:
        return importlib.metadata.version("nvdiffrast")
    except importlib.metadata.PackageNotFoundError:
        return None


def _plugin(plugin: Plugin, problems: list[Line]) -> Iterator[Line]:
    title = f"{plugin.file.name}{' (OpenGL, optional)' if plugin.optional else ''}"
    if plugin.imported["ok"]:
        yield Line(WHEEL, "info" if problems else "passed", f"{title} {plugin.imported['text']}")
    else:
        # Its reason may be told elsewhere: what another section holds is not told twice.
        state = "warning" if plugin.optional else "failed"
        said = () if plugin.problems else tuple(str(plugin.imported["text"]).splitlines())
        yield Line(WHEEL, state, f"{title} cannot be imported", said)
    yield from problems


def _environment(environ: Mapping[str, str]) -> Iterator[Line]:
    """Variables that change what nvdiffrast, torch or the driver do; those that are not set say nothing."""
    said = [line for name, tell in _VARIABLES.items() if name in environ for line in tell(name, environ[name])]
    yield from said or [Line(ENVIRONMENT, "passed", "no variable is set that changes what nvdiffrast does")]


def _told(name: str, value: str) -> Iterator[Line]:
    yield Line(ENVIRONMENT, "info", f"{name}={value}")


def _slow(name: str, value: str) -> Iterator[Line]:
    if value not in ("", "0"):
        yield _warning(f"{name}={value}: every kernel is waited for; good for finding an error, slow else", name)


def _forced(name: str, value: str) -> Iterator[Line]:
    if value == "1":
        yield _warning(f"{name}=1: the compiled plugins are not used, but compiled again", name)


def _hidden(name: str, value: str) -> Iterator[Line]:
    if value.strip() in ("", "-1"):
        yield Line(ENVIRONMENT, "failed", f"{name}={value!r} hides every GPU", mend=_unset(name), code="gpus-hidden")
    else:
        yield from _told(name, value)


def _folder(name: str, value: str) -> Iterator[Line]:
    if Path(value).is_dir():
        yield from _told(name, value)
    else:
        yield _warning(f"{name}={value}: there is no such folder", name)


def _folders(name: str, value: str) -> Iterator[Line]:
    yield from _told(name, value)
    for folder in filter(None, value.split(os.pathsep)):
        if not Path(folder).is_dir():
            yield _warning(f"{name} names {folder}, which is no folder", name)


def _architectures(name: str, value: str) -> Iterator[Line]:
    yield Line(ENVIRONMENT, "info", f"{name}={value}: heeded where something is compiled, never by a finished wheel")


_VARIABLES = {
    "NVDIFFRAST_FORCE_JIT": _forced,
    "NVDIFFRAST_NO_JIT": _told,
    "NVDIFFRAST_DLL_DIRS": _folders,
    "CUDA_VISIBLE_DEVICES": _hidden,
    "CUDA_LAUNCH_BLOCKING": _slow,
    "CUDA_HOME": _folder,
    "CUDA_PATH": _folder,
    "TORCH_CUDA_ARCH_LIST": _architectures,
    "TORCH_EXTENSIONS_DIR": _told,
    "LD_PRELOAD": _told,
}


def _warning(text: str, name: str) -> Line:
    return Line(ENVIRONMENT, "warning", text, mend=_unset(name))


def _unset(name: str) -> str:
    return f"set {name}=" if os.name == "nt" else f"unset {name}"


def _jit(patient: Patient, environ: Mapping[str, str]) -> Iterator[Line]:
    """What compiling needs, where nothing compiled is there; and what an interrupted compilation left."""
    if patient.package is not None and not patient.plugins:
        missing = [name for name, there in _tools(environ).items() if not there]
        text = "this installation holds no compiled plugin: a wheel for this machine would"
        state, rest = ("failed", f"to compile it, {', '.join(missing)} is missing") if missing else ("warning", "")
        yield Line(JIT, state, text, (rest,) if rest else (), "install a wheel: see the end", "not-compiled")
    for lock in stale_locks(environ):
        text = f"an interrupted compilation left {lock}: torch would wait for it for ever"
        yield Line(JIT, "failed", text, mend="python -m nvdiffrast.doctor --fix", code="stale-lock")
    folder = extensions_folder(environ)
    if "TORCH_EXTENSIONS_DIR" in environ and not _writable(folder):
        text = f"TORCH_EXTENSIONS_DIR={folder} cannot be written to"
        yield Line(JIT, "warning", text, mend="set it to a folder of yours")


def _tools(environ: Mapping[str, str]) -> dict[str, bool]:
    """What torch compiles with, and whether it is here."""
    homes = (Path(environ[name], "bin") for name in ("CUDA_HOME", "CUDA_PATH") if environ.get(name))
    nvcc = any(shutil.which("nvcc", path=str(folder)) for folder in (*homes, Path("/usr/local/cuda/bin")))
    compiler = "cl" if os.name == "nt" else environ.get("CXX") or "c++"
    ninja = shutil.which("ninja") or importlib.util.find_spec("ninja")
    return {
        "nvcc (a CUDA toolkit)": nvcc or bool(shutil.which("nvcc")),
        f"a C++ compiler ({compiler})": bool(shutil.which(compiler)),
        "ninja": bool(ninja),
    }


def extensions_folder(environ: Mapping[str, str]) -> Path:
    """Where torch keeps what it compiles."""
    if environ.get("TORCH_EXTENSIONS_DIR"):
        return Path(environ["TORCH_EXTENSIONS_DIR"])
    if os.name == "nt":
        return Path(environ.get("LOCALAPPDATA", str(Path.home())), "torch_extensions", "torch_extensions", "Cache")
    return Path(environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser(), "torch_extensions")


def stale_locks(environ: Mapping[str, str]) -> list[Path]:
    """Locks of nvdiffrast's own compilations that are older than any compilation takes."""
    root = extensions_folder(environ)
    name = f"nvdiffrast_plugin*/{_LOCK}"
    return [lock for pattern in (name, f"*/{name}") for lock in _globbed(root, pattern) if _age(lock) > _STALE_SECONDS]


def _globbed(root: Path, pattern: str) -> Iterable[Path]:
    try:
        return sorted(root.glob(pattern))
    except OSError:
        return ()


def _age(path: Path) -> float:
    """In seconds; 0 of what is gone."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def _writable(folder: Path) -> bool:
    """Whether it is one, or could be made."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK)


def _gigabytes(memory: Any) -> str:
    return f"{memory / 2**30:.0f} GiB" if isinstance(memory, (int, float)) else "memory unknown"
