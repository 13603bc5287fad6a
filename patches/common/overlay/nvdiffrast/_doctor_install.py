"""The commands that put a wheel for this machine's Python, torch and CUDA here, from what an index says it has."""

from __future__ import annotations

import base64
import json
import platform
import re
import sys
import sysconfig
import urllib.request
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

# The index of torch's own builds; a folder for each CUDA.
TORCH_CHANNELS = "https://download.pytorch.org/whl/"
# Stands where nobody said which index.
NO_INDEX = "https://INDEX"
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
    """``note`` says what the commands are for; each of them is run line by line."""

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


def advice(machine: Machine, wheels: tuple[Wheel, ...], index: str) -> Advice:
    """How to get the best of ``wheels`` for ``machine`` from the ``index``: that of the torch that is here, if any."""
    fitting = [wheel for wheel in wheels if (wheel.python, wheel.platform) == (machine.python, machine.platform)]
    if not fitting:
        known = ", ".join(sorted({f"{wheel.python} on {wheel.platform}" for wheel in wheels})) or "nothing"
        return Advice(f"the index has no wheel for Python {machine.python} on {machine.platform}; it has {known}")
    served = [wheel for wheel in fitting if all(serves(wheel, one) for one in machine.capabilities)]
    if not served:
        return Advice(f"no wheel of the index has kernels for this GPU ({', '.join(machine.capabilities)})")
    best = max(served, key=lambda wheel: _rank(wheel, machine))
    if (best.torch, _major(best.cuda)) == (machine.torch, (machine.cuda or "").partition(".")[0]):
        return commands(best, index, note=f"for the torch {machine.torch} that is here")
    here = f"torch {machine.torch} of CUDA {machine.cuda or 'none'}" if machine.torch else "no torch"
    kept = sorted({f"{wheel.torch} of {wheel.cuda}" for wheel in served}, key=_numbers)
    note = f"here is {here}; the index has wheels for torch {', '.join(kept)}: this changes torch"
    return commands(best, index, note=note, torch=True)


def commands(wheel: Wheel, index: str, *, note: str, torch: bool = False) -> Advice:
    """The lines for one wheel; ``torch``: those that install its torch come first."""
    channel = f"{index.rstrip('/')}/whl/{wheel.cuda}/"
    pin = f"nvdiffrast=={wheel.release}"
    pip = [f"pip install --index-url {TORCH_CHANNELS}{wheel.cuda} torch=={wheel.torch}.*"] if torch else []
    uv = [f"uv pip install --default-index {TORCH_CHANNELS}{wheel.cuda} torch=={wheel.torch}.*"] if torch else []
    if torch:
        # A star in a word is a pattern to a shell that finds files of such a name.
        pip, uv = ([re.sub(r"(torch==\S+)$", r'"\1"', line) for line in lines] for lines in (pip, uv))
    pip += ["pip install numpy", f"pip install --index-url {channel} {pin}"]
    uv += ["uv pip install numpy", f"uv pip install --default-index {channel} {pin}"]
    return Advice(note, tuple(pip), tuple(uv))


def of_build_info(machine: Machine, info: dict[str, Any]) -> Advice:
    """The same without an index: what the wheel that is here was built for."""
    wheel = _wheel(
        {
            "release": info.get("release"),
            "torch": _line(info.get("torch")),
            "cuda": "cu" + str(info.get("cuda")).replace(".", ""),
            "python": machine.python,
            "platform": machine.platform,
        }
    )
    if wheel is None:
        return Advice("what the wheel here was built for is unknown: name an index with --index-url")
    fits = wheel.torch == machine.torch and _major(wheel.cuda) == (machine.cuda or "").partition(".")[0]
    note = f"the wheel here is for torch {wheel.torch} and {wheel.cuda}; name its index with --index-url to see INDEX"
    return commands(wheel, NO_INDEX, note=note, torch=not fits)


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
    """The torch that is here, its CUDA, a CUDA that the driver runs; then the newest."""
    here = (machine.cuda or "").replace(".", "")
    driver = _numbers(machine.driver)[:1] if machine.driver else None
    major = (int(_major(wheel.cuda)),)
    return (
        driver is None or major <= driver,
        wheel.torch == machine.torch and _major(wheel.cuda) == (machine.cuda or "").partition(".")[0],
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
