"""Says why a compiled module cannot be imported, or would not work, and what to do; imported only when asked."""

from __future__ import annotations

import base64
import csv
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from . import _binaries, _installation, _loader

REINSTALL = "pip install --force-reinstall --no-deps nvdiffrast, from the index it came from"
_UNDEFINED_SYMBOL = re.compile(r"undefined symbol: (?P<symbol>\S+)")
_NO_PROCEDURE = "procedure could not be found"
_MISSING_LIBRARY = re.compile(
    r"(?P<library>[^\s:']+): cannot open shared object file|Error loading shared library (?P<musl>\S+):"
)
_TOO_OLD = re.compile(
    r"version [`'](?P<version>(?:GLIBC|GLIBCXX|CXXABI)_[\d.]+)' not found(?: \(required by (?P<by>[^)]+)\))?"
)
_DAMAGED = ("file too short", "invalid ELF header", "is not a valid Win32 application", "ELF file data encoding")
_GRAPHICS = ("libGL.so", "libEGL.so", "libOpenGL.so", "libGLX.so", "libGLdispatch.so")
_DRIVER = ("libcuda.so", "nvcuda.dll", "libnvidia-")
_TORCH = ("libtorch", "libc10", "libshm", "torch", "c10", "shm.dll", "uv.dll", "fbgemm", "asmjit", "libiomp5md")
# What CUDA's runtime 13 needs of a driver, by CUDA major.
_OLDEST_DRIVER = {"11": "450", "12": "525", "13": "580"}


class Problem(NamedTuple):
    """One thing that is wrong: a stable ``code``, lines of ``details``, and how to ``mend`` it."""

    code: str
    summary: str
    details: tuple[str, ...]
    mend: str


class _Case(NamedTuple):
    """What all findings are made from: the module's file, what importing it said, and the facts."""

    file: Path
    error: BaseException | None
    info: Mapping[str, Any] | None
    info_error: str | None
    torch: Mapping[str, Any] | None
    python: str

    @property
    def text(self) -> str:
        return str(self.error or "")


def explain(file: Path, error: BaseException) -> str:
    """The whole message: the file, what went wrong, what it was built for, what is here, and the next step."""
    case = _case(file, error)
    problems = _told(case, device=False)
    first = problems[0]
    lines = [f"nvdiffrast: {file} is there but cannot be imported: {error}", f"[{first.code}] {first.summary}"]
    lines += [f"  {detail}" for detail in first.details]
    lines += [f"also [{other.code}] {other.summary}" for other in problems[1:]]
    lines += [case.info_error] if case.info_error else _comparison(case)
    lines.append(f"next: {first.mend}")
    return "\n".join(lines)


def explain_absence(name: str) -> str:
    """The message where there is no compiled module of that name and none may be compiled."""
    if not _loader.PACKAGE.is_dir():
        return (
            f"nvdiffrast: [path-refused] {_loader.PACKAGE} is in a zip file, from which no system loads a compiled "
            f"{name}\nnext: install the wheel: pip install nvdiffrast, from the index it came from"
        )
    found = _installation.python_tag()
    info, _ = _installation.build_info()
    built = f" (it was built for {info['python']})" if info else ""
    return (
        f"nvdiffrast: this installation holds no compiled {name}{built}: looked in {_loader.PACKAGE / 'torch'} and "
        f"{_loader.PACKAGE.parent}\nnext: install a wheel that was built for this Python, {found}"
    )


def examine(file: Path, error: BaseException | None = None, *, device: bool = True) -> list[Problem]:
    """All that is wrong with a compiled module, most telling first; nothing is fine. It never raises.

    error: what importing it said, None if it was imported; device: whether the driver and the GPUs matter.
    """
    return _told(_case(file, error), device=device)


def _case(file: Path, error: BaseException | None) -> _Case:
    info, info_error = _installation.build_info()
    torch = _installation.torch_facts(imported=True)
    return _Case(file, error, info, info_error, torch, _installation.python_tag())


def _told(case: _Case, *, device: bool) -> list[Problem]:
    try:
        return _examined(case, device=device)
    except Exception as failure:  # a diagnosis that fails must not hide what it was asked about
        return [Problem("unknown", f"{case.file} cannot be examined: {failure!r}", (case.text,), REINSTALL)]


def _examined(case: _Case, *, device: bool) -> list[Problem]:
    # What explains most comes first; a file that is missing explains a torch that is broken.
    finders: list[Callable[[_Case], Iterator[Problem]]]
    finders = [_python, _torch, _files, _broken_torch, _mixed, _symbols, _info, _copies]
    found = [problem for finder in finders for problem in finder(case)]
    if device:
        found += _devices(case)
    if case.error is not None and not any(problem.code not in _BESIDE for problem in found):
        found.insert(0, Problem("unknown", "nothing that is known explains it", (f"{case.text}",), REINSTALL))
    return found


#: What can be so without keeping a module from being imported.
_BESIDE = ("build-info", "two-copies", "driver-missing", "driver-too-old", "no-kernel")


def _python(case: _Case) -> Iterator[Problem]:
    tagged = re.search(r"\.(?:cpython-|cp)(\d+t?)", case.file.name)
    meant = f"cp{tagged[1]}" if tagged else str(case.info["python"]) if case.info else None
    if meant and meant != case.python:
        summary = f"{case.file.name} is for {meant}, this Python is {case.python}"
        yield Problem("wrong-python", summary, (), f"install nvdiffrast's wheel for {case.python}")


def _torch(case: _Case) -> Iterator[Problem]:
    if case.torch is None:
        line = _line(case.info["torch"]) if case.info else None
        yield Problem(
            "torch-absent",
            "torch is not installed",
            (),
            f'pip install "torch=={line}.*"' if line else "pip install torch",
        )
        return
    if case.torch.get("error") or case.info is None:
        return
    built, here = str(case.info["torch"]), str(case.torch["version"])
    cuda, found = str(case.info["cuda"]), case.torch.get("cuda")
    if _line(built) != _line(here):
        mend = f'pip install "torch=={_line(built)}.*" (built for CUDA {cuda}), or nvdiffrast\'s wheel for this torch'
        yield Problem("torch-other-version", f"it was built for torch {built}, here is {here}", (), mend)
    elif not found:
        other = "ROCm" if case.torch.get("hip") else "no CUDA"
        mend = f"install torch {_line(built)} built for CUDA {cuda}, or nvdiffrast's wheel for this torch's CUDA"
        yield Problem("torch-cpu-only", f"this torch is for {other}: {here}, {case.torch['path']}", (), mend)
    elif found.partition(".")[0] != cuda.partition(".")[0]:
        mend = f"install torch {_line(built)} built for CUDA {cuda}, or nvdiffrast's wheel for this torch's CUDA"
        yield Problem("cuda-other-major", f"it was built for CUDA {cuda}, this torch is for CUDA {found}", (), mend)


def _broken_torch(case: _Case) -> Iterator[Problem]:
    if case.torch is not None and case.torch.get("error"):
        summary = f"torch cannot be imported ({case.torch['error']})"
        yield Problem("torch-broken", summary, (str(case.torch["path"]),), "reinstall torch")


def _files(case: _Case) -> Iterator[Problem]:
    """What the files themselves tell, and what the system said of them."""
    folders = _searched(case)
    found = _binaries.faults(case.file, folders, _installation.loaded_libraries(), _installation.machine())
    yield from (_of_fault(fault, folders) for fault in found)
    named = _MISSING_LIBRARY.search(case.text)
    library = (named["library"] or named["musl"]) if named else None
    if library and not str(case.file).endswith(library) and all(fault.library != library for fault in found):
        yield _missing(library, case.file, folders)
    if any(sign in case.text for sign in _DAMAGED) and not any(fault.kind == "damaged" for fault in found):
        yield Problem("library-damaged", f"the system refuses a file: {case.text}", (), REINSTALL)
    old = _TOO_OLD.search(case.text)
    if old:
        summary = f"this system is too old for the wheel, it lacks {old['version']}"
        details = (f"needed by {old['by']}",) if old["by"] else ()
        yield Problem("system-too-old", summary, details, "use a newer system, or a container")


def _searched(case: _Case) -> list[Path]:
    """Where libraries may come from, beside what files themselves name."""
    folders = list(_loader.dll_folders())
    if not folders:
        folders = [case.file.parent.parent.parent / "nvdiffrast.libs"]
    if case.torch and case.torch.get("path"):
        folders.append(Path(case.torch["path"], "lib"))
    return list(dict.fromkeys(folders))


def _of_fault(fault: _binaries.Fault, folders: list[Path]) -> Problem:
    if fault.kind == "missing":
        return _missing(fault.library, fault.needed_by, folders)
    needed = (f"needed by {fault.needed_by}",)
    name = Path(fault.library).name
    if fault.kind == "symbol":
        summary = f"{name} is of another version than the one built against: {fault.detail}"
        return Problem(
            "symbol-missing", summary, (f"{fault.library}", *needed), "reinstall torch and nvdiffrast together"
        )
    mend = "reinstall torch" if name.lower().startswith(_TORCH) else REINSTALL
    return Problem("library-damaged", f"{fault.library}: {fault.detail}", needed, mend)


def _missing(library: str, needed_by: Path, folders: list[Path]) -> Problem:
    searched = tuple(f"searched {folder}" for folder in folders)
    details = (f"needed by {needed_by}", *searched, "and the system's own folders")
    return Problem("library-missing", f"{library} is missing", details, _for_library(library))


def _for_library(library: str) -> str:
    if library.startswith(_GRAPHICS):
        return (
            f"{library} belongs to the graphics driver and is in no wheel: install it (Debian: apt install libgl1 "
            "libegl1; in a container also set NVIDIA_DRIVER_CAPABILITIES=all), or use RasterizeCudaContext"
        )
    if library.lower().startswith(_DRIVER):
        return f"{library} belongs to NVIDIA's driver: install the driver, or start the container with GPU access"
    if library.lower().startswith(("vcruntime", "msvcp", "concrt")):
        return f"{library} belongs to Microsoft's Visual C++ runtime: install its redistributable, vc_redist.x64.exe"
    if re.match(r"(lib)?python3", library.lower()):
        return f"{library} belongs to another Python: install nvdiffrast's wheel for this one"
    if library.lower().startswith(_TORCH):
        return f"{library} belongs to torch: import torch before nvdiffrast, or reinstall torch"
    return f"{library} is missing: reinstall nvdiffrast's wheel; it brings what the driver and torch do not"


def _symbols(case: _Case) -> Iterator[Problem]:
    named = _UNDEFINED_SYMBOL.search(case.text)
    if named or _NO_PROCEDURE in case.text:
        what = f"no library has {named['symbol']}" if named else "a procedure is in no library"
        summary = f"{what}: a library is of another version than the one built against"
        yield Problem("symbol-missing", summary, (case.text,), "reinstall torch and nvdiffrast together")


def _info(case: _Case) -> Iterator[Problem]:
    if case.info_error:
        summary = f"what it was built for is unknown: {case.info_error}"
        yield Problem("build-info", summary, (), REINSTALL)


def _mixed(case: _Case) -> Iterator[Problem]:
    """Whether the files are those of one wheel, which lists them with their hashes."""
    found = _installation.distributions()
    if len(found) > 1:
        names = ", ".join(folder.name for folder in found)
        mend = "pip uninstall nvdiffrast until none is left, then install one"
        yield Problem("mixed-wheels", f"two wheels are installed over each other: {names}", (), mend)
        return
    site = _loader.PACKAGE.parent
    for folder in found:
        for name, digest in _recorded(folder / "RECORD"):
            if name.startswith(("nvdiffrast/", "nvdiffrast.libs/", "_nvdiffrast_c")) and _differs(site / name, digest):
                summary = f"{site / name} is not the file of {folder.name}"
                yield Problem("mixed-wheels", summary, ("it was changed, or is another wheel's",), REINSTALL)
                return


def _recorded(record: Path) -> Iterator[tuple[str, str]]:
    """The files that a wheel lists, with their SHA-256 where it states one."""
    try:
        rows = list(csv.reader(record.read_text(encoding="utf-8").splitlines()))
    except (OSError, ValueError):
        return
    for row in rows:
        if len(row) == 3 and row[1].startswith("sha256="):
            yield row[0], row[1][7:]


def _differs(file: Path, digest: str) -> bool:
    """Whether a file is there and is another one; what is not there is another matter."""
    try:
        found = hashlib.sha256(file.read_bytes()).digest()
    except OSError:
        return False
    return base64.urlsafe_b64encode(found).rstrip(b"=").decode() != digest


def _copies(case: _Case) -> Iterator[Problem]:
    found = _installation.copies()
    if len(found) > 1:
        others = ", ".join(str(folder) for folder in found[1:])
        summary = f"another nvdiffrast is on the path: {others}; used is {found[0]}"
        yield Problem("two-copies", summary, (), f"remove one of them: pip uninstall nvdiffrast, or delete {found[1]}")


def _devices(case: _Case) -> list[Problem]:
    driver = _installation.driver()
    if driver is None:
        mend = "install NVIDIA's driver; in a container, start it with GPU access (--gpus all)"
        return [Problem("driver-missing", "there is no NVIDIA driver", (), mend)]
    if case.info is None:
        return []
    cuda, runs = str(case.info["cuda"]), driver.get("cuda")
    if runs and int(runs.partition(".")[0]) < int(cuda.partition(".")[0]):
        oldest = _OLDEST_DRIVER.get(cuda.partition(".")[0])
        summary = f"the driver {driver.get('version') or ''} runs CUDA up to {runs}, the wheel is built for {cuda}"
        mend = f"install a driver {oldest} or newer" if oldest else "install a newer driver"
        return [Problem("driver-too-old", summary.replace("  ", " "), (), f"{mend}, or a wheel for CUDA {runs}")]
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
        mend = f"install a newer driver, or a wheel that is built for {device['capability']}"
        yield Problem("driver-too-old", summary, (), mend)


def _pair(capability: Any) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", str(capability))[:2])


def _shown(pairs: list[tuple[int, ...]]) -> str:
    return ", ".join(".".join(map(str, pair)) for pair in pairs) or "nothing"


def _line(version: str) -> str:
    """2.11 of 2.11.0+cu130."""
    return ".".join(version.partition("+")[0].split(".")[:2])


def _comparison(case: _Case) -> list[str]:
    info, torch = case.info or {}, case.torch or {}
    here = torch.get("version") or (f"cannot be imported ({torch['error']})" if torch.get("error") else None)
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
