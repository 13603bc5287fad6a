"""The commands that install a wheel and its torch for this machine's Python and CUDA."""

from __future__ import annotations

import base64
import functools
import importlib.util
import json
import platform
import re
import sys
import sysconfig
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

# The index of torch's own builds; a folder for each CUDA.
TORCH_CHANNELS = "https://download.pytorch.org/whl/"
# Which builds of torch exist, and who publishes them; nothing else is recommended by a command.
_TABLE = Path(__file__).with_name("torch_builds.json")
# Shows the command for any torch.
TORCH_PAGE = "https://pytorch.org/get-started/locally/"
_TIMEOUT = 15
_LARGEST = 64 << 20
# What goes into a command must not be able to say anything else to a shell.
_WORDS = {
    "release": r"\d+(\.\w+)*",
    "torch": r"\d+\.\d+",
    "cuda": r"cu\d{2,4}",
    "python": r"\d+\.\d+",
    "platform": r"\w+",
}
_ADDRESS = re.compile(r"https?://[A-Za-z0-9._~:/%@\[\]-]+")


class IndexRefusedError(Exception):
    """The index cannot be read, or does not hold what an index holds; the message says which and why."""


class Machine(NamedTuple):
    """What a wheel must fit; torch and CUDA are None where there is no torch or one without CUDA.

    ``torch`` is its line ("2.14"), ``cuda`` torch's CUDA ("13.0"), ``driver`` the newest CUDA of the driver,
    ``capabilities`` those of the GPUs ("9.0").
    """

    python: str
    platform: str
    torch: str | None
    cuda: str | None
    driver: str | None
    capabilities: tuple[str, ...]


class Wheel(NamedTuple):
    """What an index says of a wheel."""

    release: str
    torch: str
    cuda: str
    python: str
    platform: str
    sass: tuple[str, ...]
    ptx: tuple[str, ...]


class Advice(NamedTuple):
    """``note`` says what the commands are for; ``pip`` and ``uv`` are commands to run one after the other."""

    note: str
    pip: tuple[str, ...] = ()
    uv: tuple[str, ...] = ()


def this_machine(facts: dict[str, Any]) -> Machine:
    """This process's Python and platform, and what ``facts`` (of _installation.describe) say of torch and the GPUs."""
    torch = facts.get("torch") or {}
    driver = facts.get("driver") or {}
    version = ".".join(map(str, sys.version_info[:2])) + ("t" if sysconfig.get_config_var("Py_GIL_DISABLED") else "")
    name = f"{platform.system()}_{platform.machine()}".lower().replace("windows", "win")
    found = [str(device.get("capability")) for device in facts.get("devices") or ()]
    return Machine(
        version, name, _line(torch.get("version")), torch.get("cuda"), driver.get("cuda"), tuple(sorted(set(found)))
    )


def installer() -> str:
    """Return "pip install", or "uv pip install" where this Python has no pip."""
    return "pip install" if importlib.util.find_spec("pip") else "uv pip install"


def is_managed(stdlib: str | None = None) -> bool:
    """Return whether this Python belongs to the operating system, so that pip refuses to install into it (PEP 668)."""
    folder = Path(stdlib or sysconfig.get_path("stdlib"))
    return sys.prefix == sys.base_prefix and (folder / "EXTERNALLY-MANAGED").is_file()


def torch_command(install: str, python: str, system: str, torch: str, cuda: str) -> str | None:
    """Return the command that installs a build of torch, None if the doctor's table does not have the build.

    install: "pip install" or "uv pip install"; python: "3.12"; system: "linux_x86_64"; torch: a line, "2.14"; cuda:
    "cu130".
    """
    for row in _builds():
        if row[:3] == [system, cuda, torch] and python in row[4]:
            return torch_from(install, row[3], torch, cuda)
    return None


def torch_from(install: str, origin: str, torch: str, cuda: str) -> str:
    """Return the command for a torch that ``origin`` publishes: "pypi", or "pytorch" for PyTorch's own index."""
    option = "--default-index" if install.startswith("uv") else "--index-url"
    channel = "" if origin == "pypi" else f"{option} {TORCH_CHANNELS}{cuda} "
    # Quoted: a star is a pattern to a shell that finds files of such a name.
    return f'{install} {channel}"torch=={torch}.*"'


def replacing(install: str) -> str:
    """Return the command that also replaces another build of the same version, which pip and uv would leave."""
    return f"{install} {'--reinstall' if install.startswith('uv') else '--force-reinstall'}"


def torch_again(version: str) -> str:
    """Return the command that installs a torch again, by the version that its metadata states: "2.13.0+cu126".

    The local part names the folder of PyTorch's index that it came from; without one it came from PyPI. Empty if the
    version is not one.
    """
    found = re.fullmatch(r"\d+(?:\.\d+)+(?:\+(?P<folder>cu\d+|cpu|xpu|rocm[\d.]+))?", version, re.ASCII)
    if found is None:
        return ""
    install = replacing(installer())
    option = "--default-index" if install.startswith("uv") else "--index-url"
    channel = f" {option} {TORCH_CHANNELS}{found['folder']}" if found["folder"] else ""
    return f"{install} --no-deps{channel} torch=={version}"


@functools.cache
def _builds() -> list[list[Any]]:
    """Return the rows of the table (platform, CUDA tag, torch line, origin, Pythons), empty if it cannot be read."""
    try:
        return list(json.loads(_TABLE.read_text(encoding="utf-8"))["builds"])
    except (OSError, ValueError, KeyError, TypeError):
        return []


def torch_hint(machine: Machine, info: Any, *, numpy: bool = False, again: bool = False) -> str:
    """Return the command that installs the torch that the wheel of build_info.json ``info`` is for.

    Without such a wheel it is the newest torch for this machine; ``numpy`` installs numpy as well, ``again`` replaces
    what is installed. Where the table has no such build, the page that shows the command is returned.
    """
    wanted = of_info(machine, info)
    if wanted is not None:
        torch, cuda = wanted.torch, wanted.cuda
    else:
        fitting = [row for row in _builds() if row[0] == machine.platform and machine.python in row[4]]
        if not fitting:
            return TORCH_PAGE
        _, cuda, torch, _, _ = max(fitting, key=lambda row: (_numbers(row[2]), row[3] == "pypi", _numbers(row[1])))
    install = replacing(installer()) if again or machine.torch == torch else installer()
    command = torch_command(install, machine.python, machine.platform, torch, cuda)
    return command + (" numpy" if numpy else "") if command else TORCH_PAGE


def advice(machine: Machine, wheels: tuple[Wheel, ...], index: str) -> Advice:
    """Return how to get the best of ``wheels`` from the ``index``: for the torch that is here, if there is one."""
    fitting = [wheel for wheel in wheels if (wheel.python, wheel.platform) == (machine.python, machine.platform)]
    if not fitting:
        known = ", ".join(sorted({f"{wheel.python} on {wheel.platform}" for wheel in wheels})) or "nothing"
        return Advice(f"the index has no wheel for Python {machine.python} on {machine.platform}; it has {known}")
    served = [wheel for wheel in fitting if all(serves(wheel, one) for one in machine.capabilities)]
    if not served:
        return Advice(f"no wheel of the index has kernels for this GPU ({', '.join(machine.capabilities)})")
    best = max(served, key=lambda wheel: _rank(wheel, machine))
    if _fits(best, machine):
        return commands(best, index, note=f"for the torch {machine.torch} that is here")
    here = f"torch {machine.torch} of CUDA {machine.cuda or 'none'}" if machine.torch else "no torch"
    kept = sorted({f"{wheel.torch} of {wheel.cuda}" for wheel in served}, key=_numbers)
    note = f"here is {here}; the index has wheels for torch {', '.join(kept)}: this changes torch"
    return commands(best, index, note=note, machine=machine)


def commands(wheel: Wheel, index: str, *, note: str, machine: Machine | None = None) -> Advice:
    """Return the commands for one wheel; with ``machine``, those that install its torch there come first."""
    channel = f"{index.rstrip('/')}/whl/{wheel.cuda}/"
    pin = f"nvdiffrast=={wheel.release}"
    pip = ["pip install numpy", f"pip install --index-url {channel} {pin}"]
    uv = ["uv pip install numpy", f"uv pip install --default-index {channel} {pin}"]
    if machine is not None:
        place = machine.python, machine.platform, wheel.torch, wheel.cuda
        for lines, install in ((pip, "pip install"), (uv, "uv pip install")):
            command = torch_command(replacing(install) if machine.torch == wheel.torch else install, *place)
            if command is None:
                note = f"{note}; first install torch {wheel.torch} built for {wheel.cuda}, see {TORCH_PAGE}"
                break
            lines.insert(0, command)
    return Advice(note, tuple(pip), tuple(uv))


def of_info(machine: Machine, info: Any) -> Wheel | None:
    """Return what build_info.json says of the wheel that is here, None if it says no torch and no CUDA."""
    if not isinstance(info, dict):
        return None
    return _wheel(
        {
            "release": info.get("release"),
            "torch": _line(info.get("torch")),
            "cuda": "cu" + str(info.get("cuda")).replace(".", ""),
            "python": machine.python,
            "platform": machine.platform,
        }
    )


def _fits(wheel: Wheel, machine: Machine) -> bool:
    """Whether a wheel is for the torch that is here, of whatever minor version of CUDA."""
    return (wheel.torch, _major(wheel.cuda)) == (machine.torch, (machine.cuda or "").partition(".")[0])


def read_index(address: str) -> tuple[Wheel, ...]:
    """Everything that the index at ``address`` offers, without what was yanked or is partial.

    Raises:
        IndexRefusedError: ``address`` is not one, or what is there is no index's catalog.
    """
    if not _ADDRESS.fullmatch(address):
        raise IndexRefusedError("an index is an http:// or https:// address, percent-encoded")
    parts = urlsplit(address.rstrip("/") + "/catalog.json")
    request = urllib.request.Request(urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])))  # noqa: S310
    if parts.username:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        # Not for whoever it redirects to.
        request.add_unredirected_header("Authorization", "Basic " + base64.b64encode(pair.encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:  # noqa: S310 - http and https alone
            content = response.read(_LARGEST + 1)
    except Exception as error:  # whatever a network, a proxy or a certificate can do
        raise IndexRefusedError(f"it cannot be read: {error}") from error
    if len(content) > _LARGEST:
        raise IndexRefusedError("its catalog.json is larger than any index's")
    return _parsed(content)


def serves(wheel: Wheel, capability: str) -> bool:
    """Whether its kernels run on such a GPU: compiled for its generation, or PTX of an older one for the driver."""
    here = _numbers(capability)
    compiled = (_numbers(one) for one in wheel.sass)
    return any(one[0] == here[0] and one <= here for one in compiled) or any(_numbers(p) <= here for p in wheel.ptx)


def _parsed(content: bytes) -> tuple[Wheel, ...]:
    try:
        data = json.loads(content)
        schema, entries = data["schema"], data["entries"]
        if schema != 1:
            raise IndexRefusedError(f"its catalog.json is of schema {schema}, this doctor reads 1: upgrade nvdiffrast")
        offered = [_wheel(entry) for entry in entries if not entry.get("yanked") and not entry.get("partial")]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IndexRefusedError(f"its catalog.json is not an index's: {error!r}") from error
    return tuple(wheel for wheel in offered if wheel is not None)


def _wheel(entry: dict[str, Any]) -> Wheel | None:
    """The entry, or None if a word of it must not stand in a command."""
    words = {name: str(entry.get(name)) for name in _WORDS}
    if not all(re.fullmatch(pattern, words[name], re.ASCII) for name, pattern in _WORDS.items()):
        return None
    sass, ptx = (tuple(map(str, entry.get(key) or ())) for key in ("sass", "ptx"))
    return Wheel(words["release"], words["torch"], words["cuda"], words["python"], words["platform"], sass, ptx)


def _rank(wheel: Wheel, machine: Machine) -> tuple[Any, ...]:
    """Return a key: CUDA that the driver runs, then the torch that is here, then one that a command installs."""
    here = (machine.cuda or "").replace(".", "")
    driver = _numbers(machine.driver)[:1] if machine.driver else None
    major = (int(_major(wheel.cuda)),)
    return (
        driver is None or major <= driver,
        _fits(wheel, machine),
        torch_command("pip install", machine.python, machine.platform, wheel.torch, wheel.cuda) is not None,
        wheel.cuda == f"cu{here}",
        _major(wheel.cuda) == (machine.cuda or "").partition(".")[0],
        _numbers(wheel.torch),
        _numbers(wheel.cuda),
        _numbers(wheel.release),
    )


def _line(version: Any) -> str | None:
    found = re.match(r"\d+\.\d+", str(version or ""))
    return found[0] if found else None


def _major(tag: str) -> str:
    """13 of cu130, 11 of cu118."""
    return tag[2:-1]


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text))) or (0,)
