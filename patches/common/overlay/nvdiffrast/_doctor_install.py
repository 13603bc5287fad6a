"""Builds the commands that install a wheel and its torch for this machine's Python and CUDA."""

from __future__ import annotations

import functools
import importlib.util
import json
import platform
import re
import sys
import sysconfig
from pathlib import Path
from typing import Any, NamedTuple

from . import _hints, _versions
from ._doctor_index import Wheel, make_wheel
from ._hints import TORCH_CHANNELS, TORCH_PAGE, Hint

# The existing builds of torch and their origins. The doctor's commands name only builds of this table.
_TABLE = Path(__file__).with_name("torch_builds.json")


class Machine(NamedTuple):
    """The properties of a machine that a wheel has to match.

    ``torch`` is the installed line ("2.14") or None, and ``cuda`` the CUDA of the installed torch ("13.0") or None.
    ``driver`` is the newest CUDA that the driver supports, and ``capabilities`` are those of the GPUs ("9.0").
    """

    python: str
    platform: str
    torch: str | None
    cuda: str | None
    driver: str | None
    capabilities: tuple[str, ...]


class Advice(NamedTuple):
    """The commands that install nvdiffrast, in order, for ``pip`` and ``uv``; ``note`` describes their result."""

    note: str
    pip: tuple[str, ...] = ()
    uv: tuple[str, ...] = ()


def this_machine(facts: dict[str, Any]) -> Machine:
    """Return the running Python and platform with the torch, driver and GPUs of ``facts`` (_installation.describe)."""
    torch = facts.get("torch") or {}
    driver = facts.get("driver") or {}
    version = ".".join(map(str, sys.version_info[:2])) + ("t" if sysconfig.get_config_var("Py_GIL_DISABLED") else "")
    name = f"{platform.system()}_{platform.machine()}".lower().replace("windows", "win")
    capabilities = {str(device.get("capability")) for device in facts.get("devices") or ()}
    return Machine(
        python=version,
        platform=name,
        torch=_versions.torch_line(torch.get("version")),
        cuda=torch.get("cuda"),
        driver=driver.get("cuda"),
        capabilities=tuple(sorted(capabilities)),
    )


def installer() -> str:
    """Return "pip install", or "uv pip install" if this Python has no pip."""
    return "pip install" if importlib.util.find_spec("pip") else "uv pip install"


def is_managed(stdlib: str | None = None) -> bool:
    """Return whether this Python belongs to the operating system, so that pip refuses to install into it (PEP 668)."""
    folder = Path(stdlib or sysconfig.get_path("stdlib"))
    return sys.prefix == sys.base_prefix and (folder / "EXTERNALLY-MANAGED").is_file()


def torch_command(install: str, python: str, system: str, torch: str, cuda: str) -> str | None:
    """Return the command that installs a build of torch, or None if the doctor's table does not contain the build.

    install: "pip install" or "uv pip install"; python: "3.12"; system: "linux_x86_64"; torch: a line, "2.14"; cuda:
    "cu130".
    """
    for row in _builds():
        if row[:3] == [system, cuda, torch] and python in row[4]:
            return torch_from(install, row[3], torch, cuda)
    return None


def torch_from(install: str, origin: str, torch: str, cuda: str) -> str:
    """Return the command that installs torch from ``origin``: "pypi", or "pytorch" for PyTorch's own index."""
    channel = "" if origin == "pypi" else f"{_index_option(install)} {TORCH_CHANNELS}{cuda} "
    # The quotes keep the shell from expanding the star.
    return f'{install} {channel}"torch=={torch}.*"'


def replacing(install: str) -> str:
    """Return the command with the option that replaces an installed build; pip and uv would keep the same version."""
    return f"{install} {'--reinstall' if install.startswith('uv') else '--force-reinstall'}"


def torch_again(version: str) -> Hint:
    """Return the command that installs the same torch again; the command is empty if ``version`` is not a version.

    ``version`` is the version in torch's metadata, "2.13.0+cu126". Its local part is the folder of PyTorch's index;
    torch without a local part came from PyPI.
    """
    found = re.fullmatch(r"\d+(?:\.\d+)+(?:\+(?P<folder>cu\d+|cpu|xpu|rocm[\d.]+))?", version, re.ASCII)
    if found is None:
        return Hint("")
    install = replacing(installer())
    channel = f" {_index_option(install)} {TORCH_CHANNELS}{found['folder']}" if found["folder"] else ""
    return Hint(f"{install} --no-deps{channel} torch=={version}")


def torch_hint(machine: Machine, info: Any, *, numpy: bool = False, again: bool = False) -> Hint:
    """Return the command that installs the torch that the wheel with the build_info.json ``info`` was built for.

    Without such a wheel it is the newest torch for this machine. If the table does not contain the build, the hint is
    the page that shows the command. numpy: also install numpy; again: replace the installed torch.
    """
    wanted = wheel_of(machine, info)
    if wanted is not None:
        torch, cuda = wanted.torch, wanted.cuda
    else:
        rows = [row for row in _builds() if row[0] == machine.platform and machine.python in row[4]]
        if not rows:
            return _hints.torch_page()
        _, cuda, torch, _, _ = max(
            rows, key=lambda row: (_versions.numbers(row[2]), row[3] == "pypi", _versions.numbers(row[1]))
        )
    install = replacing(installer()) if again or machine.torch == torch else installer()
    command = torch_command(install, machine.python, machine.platform, torch, cuda)
    return Hint(command + (" numpy" if numpy else "")) if command else _hints.torch_page()


def advice(machine: Machine, wheels: tuple[Wheel, ...], index: str) -> Advice:
    """Return how to install the best of ``wheels`` from the ``index``; wheels for the installed torch are preferred."""
    matching = [wheel for wheel in wheels if (wheel.python, wheel.platform) == (machine.python, machine.platform)]
    if not matching:
        known = ", ".join(sorted({f"{wheel.python} on {wheel.platform}" for wheel in wheels})) or "no wheel"
        return Advice(f"the index has no wheel for Python {machine.python} on {machine.platform}; it has {known}")
    runnable = [wheel for wheel in matching if all(supports(wheel, gpu) for gpu in machine.capabilities)]
    if not runnable:
        return Advice(f"no wheel of the index has kernels for this GPU ({', '.join(machine.capabilities)})")
    best = max(runnable, key=lambda wheel: _rank(wheel, machine))
    if _matches_torch(best, machine):
        return commands(best, index, note=f"for the installed torch {machine.torch}")
    installed = f"torch {machine.torch} of CUDA {machine.cuda or 'none'} is" if machine.torch else "no torch is"
    offered = sorted({f"{wheel.torch} of {wheel.cuda}" for wheel in runnable}, key=_versions.numbers)
    note = f"{installed} installed, and the index has wheels for torch {', '.join(offered)}: this changes torch"
    return commands(best, index, note=note, machine=machine)


def commands(wheel: Wheel, index: str, *, note: str, machine: Machine | None = None) -> Advice:
    """Return the commands that install one wheel; with ``machine``, they first install the wheel's torch there."""
    channel = f"{index.rstrip('/')}/whl/{wheel.cuda}/"
    pin = f"nvdiffrast=={wheel.release}"
    pip = ["pip install numpy", f"pip install --index-url {channel} {pin}"]
    uv = ["uv pip install numpy", f"uv pip install --default-index {channel} {pin}"]
    if machine is not None:
        build = machine.python, machine.platform, wheel.torch, wheel.cuda
        for lines, install in ((pip, "pip install"), (uv, "uv pip install")):
            command = torch_command(replacing(install) if machine.torch == wheel.torch else install, *build)
            if command is None:
                note = f"{note}; first install torch {wheel.torch} built for {wheel.cuda}, see {TORCH_PAGE}"
                break
            lines.insert(0, command)
    return Advice(note, tuple(pip), tuple(uv))


def wheel_of(machine: Machine, info: Any) -> Wheel | None:
    """Return the installed wheel from its build_info.json ``info``, or None if that has no torch or CUDA."""
    if not isinstance(info, dict):
        return None
    return make_wheel(
        {
            "release": info.get("release"),
            "torch": _versions.torch_line(info.get("torch")),
            "cuda": _versions.cuda_tag(info.get("cuda")),
            "python": machine.python,
            "platform": machine.platform,
        }
    )


def supports(wheel: Wheel, capability: str) -> bool:
    """Return whether a wheel runs on a GPU with this compute capability, by its compiled kernels or its PTX."""
    return _versions.has_kernels(wheel.sass, capability) or _versions.has_ptx(wheel.ptx, capability)


def _index_option(install: str) -> str:
    return "--default-index" if install.startswith("uv") else "--index-url"


@functools.cache
def _builds() -> list[list[Any]]:
    """Return the rows of the table (platform, CUDA tag, torch line, origin, Pythons), or [] if it cannot be read."""
    try:
        return list(json.loads(_TABLE.read_text(encoding="utf-8"))["builds"])
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _matches_torch(wheel: Wheel, machine: Machine) -> bool:
    """Return whether a wheel is for the installed torch line and for any minor version of its CUDA."""
    return (wheel.torch, _major_of_tag(wheel.cuda)) == (machine.torch, _versions.cuda_major(machine.cuda or ""))


def _rank(wheel: Wheel, machine: Machine) -> tuple[Any, ...]:
    """Return a sort key that prefers wheels for the driver, then for the installed torch, then for a known torch."""
    tag = (machine.cuda or "").replace(".", "")
    driver = _versions.numbers(machine.driver)[:1] if machine.driver else None
    major = (int(_major_of_tag(wheel.cuda)),)
    return (
        driver is None or major <= driver,
        _matches_torch(wheel, machine),
        torch_command("pip install", machine.python, machine.platform, wheel.torch, wheel.cuda) is not None,
        wheel.cuda == f"cu{tag}",
        _major_of_tag(wheel.cuda) == _versions.cuda_major(machine.cuda or ""),
        _versions.numbers(wheel.torch),
        _versions.numbers(wheel.cuda),
        _versions.numbers(wheel.release),
    )


def _major_of_tag(tag: str) -> str:
    """Return "13" for "cu130", and "11" for "cu118"."""
    return tag[2:-1]
