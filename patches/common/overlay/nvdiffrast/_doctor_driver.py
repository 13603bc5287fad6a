"""Ask NVIDIA's driver for its version and the GPUs in a process of its own, with a time limit.

A driver can hang, end the process, or be the stub library that CUDA toolkits contain. Each of these becomes a finding.
The parent calls :func:`ask`; the child runs this file as a program, which is why it imports nothing of its package.
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

# Machines with many GPUs and no persistence mode need several seconds for cuInit.
SECONDS = 60.0
# A process that hangs inside the kernel cannot be killed: it is abandoned after this time.
_SECONDS_TO_END = 5.0
_LIBRARY = "nvcuda.dll" if os.name == "nt" else "libcuda.so.1"
# What a driver library prints to the same stream does not begin like this.
_MARK = "nvdiffrast-driver: "
# CUresult and CUdevice_attribute.
_NO_DEVICE, _STUB_LIBRARY = 100, 34
_MAJOR, _MINOR = 75, 76


class Answer(NamedTuple):
    """What the driver said.

    ``driver`` has its ``version`` and the newest ``cuda`` that it runs, None without a driver; ``devices`` have
    ``name``, ``capability`` and ``memory`` (bytes); ``error`` has ``code``, ``summary``, ``details`` and ``hint``.
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
def ask() -> Answer:
    """Return the driver's answer; the process asks once."""
    with tempfile.TemporaryFile() as output:
        ended = _run(output)
        output.seek(0)
        lines = output.read().decode("utf-8", "replace").splitlines()
    return _answer(lines, ended)


def _run(output: Any) -> str:
    """Run the child with ``output`` as its standard output and error; return how it ended, empty if it succeeded."""
    # -I: neither the current folder nor this file's folder, which holds a package named torch, is on the child's path.
    command = [sys.executable, "-I", str(Path(__file__).absolute())]
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    except OSError as error:
        return f"could not be called: {sys.executable} does not start: {error}"
    try:
        status = child.wait(SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_SECONDS_TO_END)
        return f"gave no answer within {SECONDS:g} s"
    if status < 0:
        return f"ended the process: signal {_signal(-status)}"
    return f"ended the process: exit status {status}" if status else ""


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def _answer(lines: list[str], ended: str) -> Answer:
    """Make the answer from the child's ``lines`` and how it ended; what was said before a failure counts."""
    told = [json.loads(line[len(_MARK) :]) for line in lines if line.startswith(_MARK)]
    known: dict[str, Any] = {key: value for one in told for key, value in one.items()}
    devices = [one["device"] for one in told if "device" in one]
    driver = known.get("driver")
    if not ended and "done" not in known:
        ended = "ended the process: exit status 0"
    if known.get("stub"):
        return Answer(None, [], _stub(str(known.get("library"))))
    summary = f"{known.get('call', 'the driver')} {ended}" if ended else known.get("error")
    if summary is None:
        return Answer(driver, devices, None)
    details = [f"the library is {known.get('library') or _LIBRARY}"]
    details += [f"it printed: {line}" for line in [line for line in lines if line and not line.startswith(_MARK)][-1:]]
    details.append("restart the machine; if that does not help, reinstall NVIDIA's driver")
    return Answer(
        driver, [], _error("driver-broken", f"NVIDIA's driver does not work: {summary}", details, _NVIDIA_SMI)
    )


_NVIDIA_SMI = "nvidia-smi"


def _stub(library: str) -> dict[str, Any]:
    """Describe a toolkit's stub library, which exists for linking alone, in the place of the driver's."""
    details = ["a CUDA toolkit contains it for linking; it answers every call with an error"]
    return _error("driver-stub", f"{library} is CUDA's stub library, not NVIDIA's driver", details, _without(library))


def _without(library: str) -> str:
    """Return the command that takes the folder of ``library`` from the loader's path, empty if it is not in it."""
    named = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    folder = Path(library).parent.resolve()
    kept = [one for one in named if one and Path(one).resolve() != folder]
    if len(kept) == len([one for one in named if one]):
        return ""
    path = ":".join(kept)
    quoted = path if re.fullmatch(r"[\w./:+-]*", path) else "'" + path.replace("'", "'\\''") + "'"
    return f"export LD_LIBRARY_PATH={quoted}" if kept else "unset LD_LIBRARY_PATH"


def _error(code: str, summary: str, details: list[str], hint: str) -> dict[str, Any]:
    return {"code": code, "summary": summary, "details": details, "hint": hint}


def main() -> None:
    """Ask the driver in this process; print each step before it is made, so that a hang or a crash has a name."""
    try:
        for told in _steps():
            _say(told)
    except _DriverError as failure:
        _say({"stub": True} if failure.code == _STUB_LIBRARY else {"error": str(failure)})
    _say({"done": True})


def _say(told: dict[str, Any]) -> None:
    # The new line ends what the library may have printed without one.
    os.write(1, f"\n{_MARK}{json.dumps(told)}\n".encode())


def _steps() -> Iterator[dict[str, Any]]:
    yield {"call": f"loading {_LIBRARY}"}
    try:
        cuda = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        if not _is_absent(error):
            yield {"error": f"{_LIBRARY} cannot be loaded: {error}"}
        return
    yield {"library": _mapped() or _LIBRARY}
    value = ctypes.c_int(0)
    yield {"call": "cuDriverGetVersion"}
    _call(cuda, "cuDriverGetVersion", ctypes.byref(value))
    runs = f"{value.value // 1000}.{value.value % 1000 // 10}" if value.value else None
    yield {"driver": {"version": _version_of_linux(), "cuda": runs}}
    yield {"call": "cuInit"}
    try:
        _call(cuda, "cuInit", 0)
    except _DriverError as failure:
        if failure.code == _NO_DEVICE:
            return
        raise
    yield from _devices(cuda)
    if _version_of_linux() is None:
        yield {"call": "NVML"}
        yield {"driver": {"version": _version_by_nvml(), "cuda": runs}}


def _devices(cuda: Any) -> Iterator[dict[str, Any]]:
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
        _DriverError: the library does not have it, or it returned an error.
    """
    try:
        called = getattr(cuda, function)
    except AttributeError as error:
        raise _DriverError(f"{_LIBRARY} has no function {function}") from error
    code = called(*arguments)
    if code:
        raise _DriverError(f"{function} failed with {code}{_name(cuda, code)}", code)


def _name(cuda: Any, code: int) -> str:
    """Return the name of a CUresult in brackets, empty if the driver does not know it."""
    text = ctypes.c_char_p()
    try:
        known = cuda.cuGetErrorName(code, ctypes.byref(text)) == 0
    except AttributeError:
        return ""
    return f" ({text.value.decode('ascii', 'replace')})" if known and text.value else ""


def _is_absent(error: OSError) -> bool:
    """Whether the system has no such library, as opposed to one that it cannot load."""
    said = str(error)
    if os.name == "nt":
        return isinstance(error, FileNotFoundError)
    return _LIBRARY in said.partition(":")[0] and "No such file" in said


def _mapped() -> str | None:
    """Return the file of the driver's library that this process has loaded, as far as the system tells."""
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    return next((line.split(maxsplit=5)[5] for line in lines if "/libcuda" in line), None)


def _version_of_linux() -> str | None:
    try:
        said = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r"\s(\d+\.\d+(?:\.\d+)?)\s", said)
    return found[1] if found else None


def _version_by_nvml() -> str | None:
    """Return the driver's version as nvidia-smi shows it."""
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
