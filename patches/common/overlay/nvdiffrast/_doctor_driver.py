"""Queries NVIDIA's driver for its version and the GPUs in a child process, with a time limit.

A driver can hang, crash the process, or be the stub library of a CUDA toolkit. Each of these is reported as a problem.
The parent calls :func:`query`. The child runs this file as a program, so this file must not import its package.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

# cuInit takes several seconds on machines with many GPUs and without persistence mode.
SECONDS = 60.0
# A process that hangs in the kernel cannot be killed; the parent stops waiting for it after this time.
_KILL_SECONDS = 5.0
_LIBRARY = "nvcuda.dll" if os.name == "nt" else "libcuda.so.1"
# This marks the child's lines; a driver library can print other lines to the same stream.
_MARK = "nvdiffrast-driver: "
# Values of CUresult.
_NO_DEVICE, _STUB_LIBRARY = 100, 34
# Values of CUdevice_attribute: the parts of the compute capability.
_MAJOR, _MINOR = 75, 76


class Answer(NamedTuple):
    """The driver's answer.

    ``driver`` has its "version" and the newest "cuda" that it supports; it is None if no driver is installed. Each of
    ``devices`` has "name", "capability" and "memory" (bytes). ``error`` has "code", "summary", "details" and "hint"; it
    is None if the driver works.
    """

    driver: dict[str, str | None] | None
    devices: list[dict[str, Any]]
    error: dict[str, Any] | None


class _DriverError(Exception):
    """A call of the driver's interface failed; ``code`` is its CUresult."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


@functools.cache
def query() -> Answer:
    """Return the driver's answer; the driver is queried once per process."""
    with tempfile.TemporaryFile() as output:
        ended = _run(output)
        output.seek(0)
        lines = output.read().decode("utf-8", "replace").splitlines()
    return _parse(lines, ended)


def _run(output: Any) -> str:
    """Run the child with ``output`` as its standard output and error; return how it failed, or "" if it succeeded."""
    # -I keeps this file's folder out of sys.path, because it contains a package named torch.
    command = [sys.executable, "-I", str(Path(__file__).absolute())]
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    except OSError as error:
        return f"could not be called, because {sys.executable} does not start: {error}"
    try:
        status = child.wait(SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_KILL_SECONDS)
        return f"gave no answer within {SECONDS:g} s"
    if status < 0:
        return f"ended the process: signal {_signal(-status)}"
    return f"ended the process: exit status {status}" if status else ""


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def _parse(lines: list[str], ended: str) -> Answer:
    """Return the answer from the child's ``lines`` and how it failed; lines before the failure are used too."""
    messages = [json.loads(line[len(_MARK) :]) for line in lines if line.startswith(_MARK)]
    known: dict[str, Any] = {key: value for message in messages for key, value in message.items()}
    devices = [message["device"] for message in messages if "device" in message]
    driver = known.get("driver")
    if not ended and "done" not in known:
        ended = "ended the process: exit status 0"
    if known.get("stub"):
        return Answer(None, [], _stub_problem(str(known.get("library"))))
    summary = f"{known.get('call', 'the driver')} {ended}" if ended else known.get("error")
    if summary is None:
        return Answer(driver, devices, None)
    details = [f"The library is {known.get('library') or _LIBRARY}."]
    details += [f"It printed: {line}" for line in [line for line in lines if line and not line.startswith(_MARK)][-1:]]
    details.append("Restart the machine. If that does not help, reinstall NVIDIA's driver.")
    return Answer(
        driver, [], _problem("driver-broken", f"NVIDIA's driver does not work: {summary}", details, "nvidia-smi")
    )


def _stub_problem(library: str) -> dict[str, Any]:
    """Return the problem that a toolkit's stub library, which is only for linking, is loaded instead of the driver."""
    details = ["CUDA toolkits contain it for linking. It answers every call with an error."]
    summary = f"{library} is CUDA's stub library, not NVIDIA's driver"
    return _problem("driver-stub", summary, details, _command_without(library))


def _command_without(library: str) -> str:
    """Return the command that removes the folder of ``library`` from LD_LIBRARY_PATH, or "" if it is not listed."""
    listed = [path for path in os.environ.get("LD_LIBRARY_PATH", "").split(":") if path]
    folder = Path(library).parent.resolve()
    kept = [path for path in listed if Path(path).resolve() != folder]
    if len(kept) == len(listed):
        return ""
    path = ":".join(kept)
    quoted = path if re.fullmatch(r"[\w./:+-]*", path) else "'" + path.replace("'", "'\\''") + "'"
    return f"export LD_LIBRARY_PATH={quoted}" if kept else "unset LD_LIBRARY_PATH"


def _problem(code: str, summary: str, details: list[str], hint: str) -> dict[str, Any]:
    return {"code": code, "summary": summary, "details": details, "hint": hint}


def main() -> None:
    """Query the driver in this process; print each step before it runs, so that the parent can name a failed step."""
    try:
        for message in _query_steps():
            _send(message)
    except _DriverError as failure:
        _send({"stub": True} if failure.code == _STUB_LIBRARY else {"error": str(failure)})
    _send({"done": True})


def _send(message: dict[str, Any]) -> None:
    # The first line break ends a line that the library may have left open.
    os.write(1, f"\n{_MARK}{json.dumps(message)}\n".encode())


def _query_steps() -> Iterator[dict[str, Any]]:
    """Yield a message before each call, and one with each result."""
    yield {"call": f"loading {_LIBRARY}"}
    try:
        cuda = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        if not _is_absent(error):
            yield {"error": f"{_LIBRARY} cannot be loaded: {error}"}
        return
    yield {"library": _loaded_file() or _LIBRARY}
    value = ctypes.c_int(0)
    yield {"call": "cuDriverGetVersion"}
    _call(cuda, "cuDriverGetVersion", ctypes.byref(value))
    supported = f"{value.value // 1000}.{value.value % 1000 // 10}" if value.value else None
    yield {"driver": {"version": _version_of_linux(), "cuda": supported}}
    yield {"call": "cuInit"}
    try:
        _call(cuda, "cuInit", 0)
    except _DriverError as failure:
        if failure.code == _NO_DEVICE:
            return
        raise
    yield from _query_devices(cuda)
    if _version_of_linux() is None:
        yield {"call": "NVML"}
        yield {"driver": {"version": _version_by_nvml(), "cuda": supported}}


def _query_devices(cuda: Any) -> Iterator[dict[str, Any]]:
    yield {"call": "cuDeviceGetCount"}
    count = ctypes.c_int(0)
    _call(cuda, "cuDeviceGetCount", ctypes.byref(count))
    for number in range(count.value):
        yield {"call": f"the query of GPU {number}"}
        name, memory = ctypes.create_string_buffer(256), ctypes.c_size_t(0)
        major, minor, device = ctypes.c_int(0), ctypes.c_int(0), ctypes.c_int(0)
        _call(cuda, "cuDeviceGet", ctypes.byref(device), number)
        _call(cuda, "cuDeviceGetName", name, len(name), device)
        _call(cuda, "cuDeviceTotalMem_v2", ctypes.byref(memory), device)
        _call(cuda, "cuDeviceGetAttribute", ctypes.byref(major), _MAJOR, device)
        _call(cuda, "cuDeviceGetAttribute", ctypes.byref(minor), _MINOR, device)
        capability = f"{major.value}.{minor.value}"
        shown = name.value.decode("utf-8", "replace")
        yield {"device": {"name": shown, "capability": capability, "memory": memory.value}}


def _call(cuda: Any, function: str, *arguments: Any) -> None:
    """Call a function of the driver's interface.

    Raises:
        _DriverError: if the library does not contain the function, or the function returns an error.
    """
    try:
        called = getattr(cuda, function)
    except AttributeError as error:
        raise _DriverError(f"{_LIBRARY} has no function {function}") from error
    code = called(*arguments)
    if code:
        raise _DriverError(f"{function} failed with {code}{_name(cuda, code)}", code)


def _name(cuda: Any, code: int) -> str:
    """Return the name of a CUresult in brackets, or "" if the driver does not know it."""
    text = ctypes.c_char_p()
    try:
        known = cuda.cuGetErrorName(code, ctypes.byref(text)) == 0
    except AttributeError:
        return ""
    return f" ({text.value.decode('ascii', 'replace')})" if known and text.value else ""


def _is_absent(error: OSError) -> bool:
    """Return whether the library does not exist; False if it exists but cannot be loaded."""
    text = str(error)
    if os.name == "nt":
        return isinstance(error, FileNotFoundError)
    return _LIBRARY in text.partition(":")[0] and "No such file" in text


def _loaded_file() -> str | None:
    """Return the file of the driver's library that this process has loaded; None if the system does not list it."""
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    return next((line.split(maxsplit=5)[5] for line in lines if "/libcuda" in line), None)


def _version_of_linux() -> str | None:
    """Return the driver's version from Linux's /proc; None on other systems."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r"\s(\d+\.\d+(?:\.\d+)?)\s", text)
    return found[1] if found else None


def _version_by_nvml() -> str | None:
    """Return the driver's version from NVML, as nvidia-smi does; None if NVML does not answer."""
    try:
        nvml = ctypes.CDLL("nvml.dll" if os.name == "nt" else "libnvidia-ml.so.1")
        text = ctypes.create_string_buffer(80)
        if nvml.nvmlInit_v2() == 0 and nvml.nvmlSystemGetDriverVersion(text, len(text)) == 0:
            return text.value.decode("ascii", "replace")
    except (OSError, AttributeError):
        pass
    return None


if __name__ == "__main__":
    main()
