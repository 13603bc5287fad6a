"""Says why a compiled module cannot be imported, or would not work, and what to run; imported only when asked."""

from __future__ import annotations

import base64
import hashlib
import importlib.machinery
import importlib.util
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import _hints, _installation, _library_problems, _loader, _record, _refusals
from ._hints import Hint
from ._problem import Case, Problem, with_hint

_WINDOWS_NUMBER = re.compile(r"\[WinError (\d+)\]")
_Finder = Callable[[Case], Iterable[Problem]]
# What CUDA's runtime 13 needs of a driver, by CUDA major.
_OLDEST_DRIVER = {"11": "450", "12": "525", "13": "580"}


def explain(file: Path, error: BaseException) -> str:
    """Return the message for a module that is there and cannot be imported."""
    case = _case(file, error, number=_refusals.windows_error(file))
    return _message(f"{file} is there but cannot be imported: {error}", _found(case, _FINDERS), case)


def explain_absence(name: str) -> str:
    """Return the message for a compiled module that is absent where none may be compiled in its place."""
    case = _case(_loader.PACKAGE, None)
    places = f"looked in {_loader.PACKAGE / 'torch'} and {_loader.PACKAGE.parent}"
    problems = _found(case, (lambda case: iter([_absence(name, case)]), _damaged_info))
    return _message(f"this installation holds no compiled {name}: {places}", problems, case)


def explain_requirement(name: str, error: BaseException) -> str:
    """Return the message for torch or numpy, which cannot be imported."""
    case = _case(_loader.PACKAGE, error)
    # torch is examined where numpy is at fault, too: one who lacks the one often lacks the other.
    own: tuple[_Finder, ...] = (_numpy,) if name == "numpy" else ()
    problems = _found(case, (_wheel_of_other_python, _library_problems.refused, *own, _no_torch, _broken_torch))
    return _message(f"{name} cannot be imported: {_first_line(case.text)}", problems, case)


def examine(file: Path, error: BaseException | None = None, *, device: bool = True) -> list[Problem]:
    """Return every problem of a compiled module, likeliest cause first; empty if there is none. It never raises.

    error: what importing it said, None if it was imported; device: whether the driver and the GPUs matter.
    """
    return _found(_case(file, error), (*_FINDERS, _devices) if device else _FINDERS)


def _case(file: Path, error: BaseException | None, number: int | None = None) -> Case:
    info, info_error = _installation.build_info()
    torch = _installation.torch_facts(imported=True)
    stated = _WINDOWS_NUMBER.search(str(error or ""))
    number = number or getattr(error, "winerror", None) or (int(stated[1]) if stated else None)
    return Case(file, error, info, info_error, torch, _installation.python_tag(), number)


def _message(headline: str, problems: list[Problem], case: Case) -> str:
    """Return the whole message: what failed, why, what was built for what is here, and the command to run next."""
    first = problems[0]
    lines = [f"nvdiffrast: {headline}", f"[{first.code}] {first.summary}"]
    lines += [f"  {detail}" for detail in first.details]
    lines += [f"also [{other.code}] {other.summary}" for other in problems[1:]]
    lines += _comparison(case) if case.info else []
    command = first.hint or ("" if _hints.is_frozen() else _hints.doctor().command)
    return "\n".join([*lines, f"next: {command}"] if command else lines)


def _found(case: Case, finders: Sequence[_Finder]) -> list[Problem]:
    """Return what the finders find; if nothing explains the case's error, a problem of unknown cause comes first."""
    try:
        found = [problem for finder in finders for problem in finder(case)]
    except Exception as failure:  # a diagnosis that fails must not hide what it was asked about
        return [with_hint("unknown", f"{case.file} cannot be examined: {failure!r}", (case.text,), case.reinstall())]
    if case.error is not None and not any(problem.code not in _BESIDE for problem in found):
        found.insert(0, with_hint("unknown", "no known cause fits", (case.text,), case.reinstall()))
    return found


def _absence(name: str, case: Case) -> Problem:
    """Return why the compiled module ``name`` is absent."""
    if _hints.is_frozen():
        summary = f"this program was frozen without nvdiffrast's compiled {name}"
        return with_hint("frozen-incomplete", summary, (), _hints.rebuild_frozen())
    if not _loader.PACKAGE.is_dir():
        summary = f"{_loader.PACKAGE} is in a zip file, from which no system loads compiled code: install the wheel"
        return with_hint("path-refused", summary, (), _hints.install_for_this_python(case.info))
    other = next(_wheel_of_other_python(case), None)
    if other is not None:
        return other
    if _record.lists_module(name):
        return _deleted(name, case)
    summary = "this installation was not compiled, and just-in-time compilation is not possible or not allowed"
    return with_hint("not-compiled", summary, (), _hints.install_for_this_python(case.info))


def _wheel_of_other_python(case: Case) -> Iterator[Problem]:
    """Find a wheel for another Python, of which other packages in the same folder usually are, too."""
    if case.info is not None and case.info["python"] != case.python:
        yield _other_python(f"this wheel is for {case.info['python']}", case)


def _deleted(name: str, case: Case) -> Problem:
    listed = tuple(f"{file} is missing" for file in _record.modules(name))
    details = (*listed, "Antivirus programs delete such files: allow the folder there first, if it happens again.")
    summary = f"the installed wheel brought {name}, and it was deleted since"
    return with_hint("plugin-deleted", summary, details, case.reinstall())


def _python(case: Case) -> Iterator[Problem]:
    """Find a module that this Python does not import, going by the name of its file."""
    if _loader.takes(case.file):
        return
    name = case.file.name.partition(".")[0]
    if any(_loader.takes(file) for file in _record.modules(name)):
        # What is here is left from another installation; this one's own file is what is missing.
        yield _deleted(name, case)
    elif not _library_problems.is_musl():
        tagged = re.search(r"\.(?:cpython-|cp)(\d+t?)", case.file.name)
        meant = f"cp{tagged[1]}" if tagged else str(case.info["python"]) if case.info else "another Python"
        yield _other_python(f"{case.file.name} is for {meant}", case)


def _other_python(subject: str, case: Case) -> Problem:
    imports = f"this Python imports compiled modules that end in {' or '.join(importlib.machinery.EXTENSION_SUFFIXES)}"
    hint = _hints.install_for_this_python(case.info)
    return with_hint("wrong-python", f"{subject}, this Python is {case.python}: {sys.executable}", (imports,), hint)


def _no_torch(case: Case) -> Iterator[Problem]:
    if case.torch is None:
        summary = f"torch is not installed for this Python, {sys.executable}"
        hint = _hints.rebuild_frozen() if _hints.is_frozen() else _hints.install_torch(case.info)
        yield with_hint("torch-absent", summary, (), hint)


def _numpy(case: Case) -> Iterator[Problem]:
    if importlib.util.find_spec("numpy") is None:
        summary = f"numpy is not installed for this Python, {sys.executable}"
        hint = _hints.rebuild_frozen() if _hints.is_frozen() else Hint("pip install numpy")
        yield with_hint("numpy-absent", summary, (), hint)
    else:
        summary = f"numpy is installed and its own import fails: {_first_line(case.text)}"
        yield Problem("numpy-broken", summary, (), "pip install --force-reinstall numpy")


def _torch(case: Case) -> Iterator[Problem]:
    """Find a torch that the wheel was not built for."""
    yield from _no_torch(case)
    if case.torch is None or case.torch.get("error") or case.info is None:
        return
    built, here = str(case.info["torch"]), str(case.torch["version"])
    cuda, found = str(case.info["cuda"]), case.torch.get("cuda")
    other_wheel = "Or keep this torch and install nvdiffrast's wheel for it."
    hint = case.reinstall_torch()
    if _line(built) != _line(here):
        summary = f"it was built for torch {built}, here is {here}"
        yield with_hint("torch-other-version", summary, (other_wheel,), hint)
    elif not found:
        other = "ROCm" if case.torch.get("hip") else "no CUDA"
        summary = f"this torch is for {other}: {here}, {case.torch['path']}; it was built for CUDA {cuda}"
        yield with_hint("torch-cpu-only", summary, (), hint)
    elif found.partition(".")[0] != cuda.partition(".")[0]:
        summary = f"it was built for CUDA {cuda}, this torch is for CUDA {found}"
        yield with_hint("cuda-other-major", summary, (other_wheel,), hint)


def _broken_torch(case: Case) -> Iterator[Problem]:
    if case.torch is not None and case.torch.get("error"):
        summary = f"torch is installed and its own import fails: {_first_line(case.torch['error'])}"
        yield with_hint("torch-broken", summary, (str(case.torch["path"]),), case.reinstall_torch())


def _info(case: Case) -> Iterator[Problem]:
    if case.info_error:
        summary = f"what it was built for is unknown: {case.info_error}"
        yield with_hint("build-info", summary, (), case.reinstall())


def _damaged_info(case: Case) -> Iterator[Problem]:
    """Find a damaged build_info.json; a source wheel has none."""
    if _installation.BUILD_INFO.exists():
        yield from _info(case)


def _mixed(case: Case) -> Iterator[Problem]:
    """Find files that are not those of one wheel, which lists them with their hashes."""
    found = _record.distributions()
    if len(found) > 1:
        names = ", ".join(folder.name for folder in found)
        summary = f"two wheels are installed over each other: {names}"
        advice = "Repeat the command until pip finds no nvdiffrast, then install one wheel."
        yield Problem("mixed-wheels", summary, (advice,), "pip uninstall nvdiffrast")
        return
    site = _loader.PACKAGE.parent
    for folder in found:
        for name, digest in _record.files(folder).items():
            if name.startswith(_OURS) and digest and _differs(site / name, digest):
                summary = f"{site / name} is not the file of {folder.name}"
                details = ("it was changed, or is another wheel's",)
                yield with_hint("mixed-wheels", summary, details, case.reinstall())
                return


#: Where a wheel's own files are, beside its .dist-info folder.
_OURS = ("nvdiffrast/", "nvdiffrast.libs/", "nvdiffrast_plugin", "_nvdiffrast_c")


def _differs(file: Path, digest: str) -> bool:
    """Return whether a file is there and is another one; a file that is absent is found elsewhere."""
    try:
        found = hashlib.sha256(file.read_bytes()).digest()
    except OSError:
        return False
    return base64.urlsafe_b64encode(found).rstrip(b"=").decode() != digest


def _copies(case: Case) -> Iterator[Problem]:
    found = _installation.copies()
    if len(found) > 1:
        others = ", ".join(str(folder) for folder in found[1:])
        summary = f"another nvdiffrast is on the path: {others}; used is {found[0]}"
        advice = f"Keep one of them: pip removes the first that it finds; otherwise delete {found[1]}."
        yield Problem("two-copies", summary, (advice,), "pip uninstall nvdiffrast")


def _first_line(text: str) -> str:
    """Return the first line of a message; numpy's and torch's take a screen."""
    return next(iter(text.strip().splitlines()), "it gives no reason")


def _devices(case: Case) -> Sequence[Problem]:
    driver = _installation.driver()
    if driver is None:
        hint = "install NVIDIA's driver; in a container, start it with GPU access (--gpus all)"
        return [Problem("driver-missing", "there is no NVIDIA driver", (), hint)]
    if case.info is None:
        return []
    cuda, runs = str(case.info["cuda"]), driver.get("cuda")
    if runs and int(runs.partition(".")[0]) < int(cuda.partition(".")[0]):
        oldest = _OLDEST_DRIVER.get(cuda.partition(".")[0])
        summary = f"the driver {driver.get('version') or ''} runs CUDA up to {runs}, the wheel is built for {cuda}"
        hint = f"install a driver {oldest} or newer" if oldest else "install a newer driver"
        return [Problem("driver-too-old", summary.replace("  ", " "), (), f"{hint}, or a wheel for CUDA {runs}")]
    return [problem for device in _installation.devices() for problem in _kernels(device, case.info, runs)]


def _kernels(device: Mapping[str, Any], info: Mapping[str, Any], runs: str | None) -> Iterator[Problem]:
    """Whether the wheel has kernels for a GPU: of its generation, or PTX that a driver for CUDA ``runs`` translates."""
    built = info.get("architectures")
    if not isinstance(built, dict):
        return
    sass, ptx = ([_pair(one) for one in built.get(kind) or ()] for kind in ("sass", "ptx"))
    here = _pair(device["capability"])
    if any(one[0] == here[0] and one <= here for one in sass):
        return
    if any(one <= here for one in ptx):
        yield from _translation(device, info, runs)
        return
    listed = f"compiled for {_shown(sass)}; PTX for {_shown(ptx)}, which only newer GPUs can take"
    summary = f"the wheel has no kernel for {device['name']}, compute capability {device['capability']}"
    yield Problem("no-kernel", summary, (listed,), f"install a wheel that is built for {device['capability']}")


def _translation(device: Mapping[str, Any], info: Mapping[str, Any], runs: str | None) -> Iterator[Problem]:
    """Compiled kernels run on every driver of their CUDA major; PTX wants one as new as the compiler that wrote it."""
    compiler = info.get("compiler")
    nvcc = compiler.get("nvcc") if isinstance(compiler, dict) else None
    written = str(nvcc or info["cuda"])
    if runs and _pair(runs) < _pair(written):
        summary = f"{device['name']} needs the wheel's PTX, of CUDA {written}; the driver translates it up to {runs}"
        hint = f"install a newer driver, or a wheel that is built for {device['capability']}"
        yield Problem("driver-too-old", summary, (), hint)


def _pair(capability: Any) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", str(capability))[:2])


def _shown(pairs: list[tuple[int, ...]]) -> str:
    return ", ".join(".".join(map(str, pair)) for pair in pairs) or "nothing"


def _line(version: str) -> str:
    """2.11 of 2.11.0+cu130."""
    return ".".join(version.partition("+")[0].split(".")[:2])


def _comparison(case: Case) -> list[str]:
    info, torch = case.info or {}, case.torch or {}
    here = torch.get("version") or (
        f"cannot be imported ({_first_line(torch['error'])})" if torch.get("error") else None
    )
    major = str(info.get("cuda")).partition(".")[0], str(torch.get("cuda")).partition(".")[0]
    rows = [
        ("", "built for", "found", ""),
        ("Python", info.get("python"), case.python, info.get("python") == case.python),
        ("torch", info.get("torch"), here, _line(str(info.get("torch"))) == _line(str(here))),
        ("CUDA of torch", info.get("cuda"), torch.get("cuda"), major[0] == major[1]),
    ]
    shown = [
        (one, str(two), str(three or "none"), "" if same in ("", True) else "<- differs")
        for one, two, three, same in rows
    ]
    first, second, third = (max(len(row[column]) for row in shown) for column in range(3))
    return [f"  {row[0]:{first}}  {row[1]:{second}}  {row[2]:{third}}  {row[3]}".rstrip() for row in shown]


#: In the order in which they are told: what explains most comes first. A missing file explains a torch that is broken.
_FINDERS: tuple[_Finder, ...] = (
    _python,
    _library_problems.refused,
    _torch,
    _library_problems.files,
    _broken_torch,
    _mixed,
    _library_problems.symbols,
    _info,
    _copies,
)
#: Problems that do not keep a module from being imported.
_BESIDE = ("build-info", "two-copies", "driver-missing", "driver-too-old", "no-kernel")
