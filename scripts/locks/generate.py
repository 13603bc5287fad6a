"""``nox -s lock``: make the locks of tools, toolkits and torch, or check that they answer their inputs."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import tempfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uv
from packaging.requirements import Requirement
from packaging.version import Version

from scripts import console
from scripts.errors import PipelineError, ToolchainError, UsageError
from scripts.locks import lockfile, redist
from scripts.matrix import torch_builds
from scripts.model import ROOT, cuda_tag, cuda_version
from scripts.support.command_line import run_main
from scripts.support.process import call

_TORCH_NAME = re.compile(r"(?P<version>\d+\.\d+\.\d+)-(?P<tag>cu\d\d\d)(?P<windows>-win_amd64)?")
# From CUDA 13 on the compiler is on the package index.
_CUDA_NAME = re.compile(r"cu1[3-9]\d")
_WINDOWS = "-win_amd64"


@dataclass(frozen=True)
class RequirementsLock:
    """A hash-locked requirement file: what it is made from, and what its CUDA parts must be of.

    ``inputs`` are requirement files, ``lines`` further requirements; ``parts`` are packages that must be of ``cuda``;
    ``channel`` is an index that is asked before the default one.
    """

    name: str
    output: Path
    inputs: tuple[Path, ...] = ()
    lines: tuple[str, ...] = ()
    python: str = "3.10"
    cuda: str | None = None
    parts: tuple[str, ...] = ()
    channel: str | None = None


@dataclass(frozen=True)
class ArchivesLock:
    """A lock of NVIDIA's component archives, made from the pinned manifest of ``cuda`` ("12.4.1")."""

    name: str
    output: Path
    cuda: str


Lock = RequirementsLock | ArchivesLock


def known_locks(root: Path = ROOT) -> dict[str, Lock]:
    """Every lock that is listed or there, by name: ``pipeline``, ``cu130``, ``2.14.1-cu130``, ``cu124-redist``."""
    folder = root / "requirements"
    table = _table(root)
    toolkits = dict.fromkeys([*table["toolkits"]["cuda"], *map(cuda_version, _made(folder / "toolkits", _CUDA_NAME))])
    torches = dict.fromkeys([*table["torch"], *_made(folder / "torch", _TORCH_NAME)])
    locks: list[Lock] = [_plain_lock(folder, name, table["plain"]["python"]) for name in table["plain"]["names"]]
    locks += [_toolkit_lock(folder, cuda, table["toolkits"]["components"]) for cuda in toolkits]
    locks += [torch_lock(folder, name, _torch_options(name, table["torch"])) for name in torches]
    for cuda in redist.pinned_manifests(folder / "toolkits" / "manifests.json").versions():
        name = f"{cuda_tag(cuda)}-redist"
        locks.append(ArchivesLock(name, folder / "toolkits" / f"{name}.json", cuda))
    return {lock.name: lock for lock in locks}


def _made(folder: Path, pattern: re.Pattern[str]) -> list[str]:
    """Return the names of the locks in ``folder``; a lock that locks.toml does not list is checked as well."""
    return [path.stem for path in sorted(folder.glob("*.txt")) if pattern.fullmatch(path.stem)]


def _torch_options(name: str, listed: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """A torch's options: those that are listed, else who publishes it and its oldest Python, as they were observed."""
    linux = name.removesuffix(_WINDOWS)
    match = _TORCH_NAME.fullmatch(name)
    if match is None or linux in listed:
        return listed.get(linux, {})
    builds, cuda = torch_builds.load(), cuda_version(match["tag"])
    pythons = builds.pythons(cuda, match["version"], "linux_x86_64")
    origins = {builds.origin(cuda, match["version"], "linux_x86_64", python) for python in pythons}
    return {"origin": "pypi" if "pypi" in origins else "pytorch", "python": pythons[0]} if pythons else {}


def _table(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / "requirements" / "locks.toml").read_text(encoding="utf-8"))


def _plain_lock(folder: Path, name: str, python: str) -> RequirementsLock:
    return RequirementsLock(name, folder / f"{name}.txt", inputs=(folder / f"{name}.in",), python=python)


def _toolkit_lock(folder: Path, cuda: str, components: Sequence[str]) -> RequirementsLock:
    name = cuda_tag(cuda)
    lines = tuple(f"{component}=={cuda}.*" for component in components)
    return RequirementsLock(name, folder / "toolkits" / f"{name}.txt", lines=lines, cuda=cuda, parts=tuple(components))


def torch_lock(folder: Path, name: str, options: Mapping[str, Any]) -> RequirementsLock:
    """The lock of a torch, from its name (``2.14.1-cu130``) and its options in locks.toml."""
    match = _TORCH_NAME.fullmatch(name)
    if match is None:
        raise UsageError(f"{name} is no torch lock's name", hint="write VERSION-cuXXX, for example 2.14.1-cu130")
    # The package index has only a CPU build for Windows.
    pytorch = options.get("origin", "pypi") == "pytorch" or match["windows"] is not None
    requirement = f"torch=={match['version']}" + (f"+{match['tag']}" if pytorch else "")
    cuda = cuda_version(match["tag"])
    return RequirementsLock(
        name,
        folder / "torch" / f"{name}.txt",
        inputs=(folder / "build.in",),
        lines=(requirement, *options.get("constraints", ())),
        python=options.get("python", "3.10"),
        cuda=cuda,
        parts=() if pytorch else (_runtime_package(cuda),),
        channel=torch_builds.PYTORCH_CHANNEL + match["tag"] if pytorch else None,
    )


def _runtime_package(cuda: str) -> str:
    """Return the name of the CUDA runtime's package; since CUDA 13 it has no suffix."""
    major = int(cuda.partition(".")[0])
    return "nvidia-cuda-runtime" if major >= 13 else f"nvidia-cuda-runtime-cu{major}"


def select(names: Sequence[str], root: Path = ROOT) -> list[Lock]:
    """The locks that ``names`` ask for; none asks for all. ``cu124`` also finds ``cu124-redist``.

    A torch that locks.toml does not list is locked as the table of torch builds has it, one for Windows with what goes
    for Linux, and a toolkit that it does not list with the components of all.
    """
    locks = known_locks(root)
    folder, table = root / "requirements", _table(root)
    chosen: list[Lock] = []
    for name in names:
        if name in locks:
            chosen.append(locks[name])
        elif f"{name}-redist" in locks:
            chosen.append(locks[f"{name}-redist"])
        elif _TORCH_NAME.fullmatch(name):
            chosen.append(torch_lock(folder, name, _torch_options(name, table["torch"])))
        elif match := _CUDA_NAME.fullmatch(name):
            chosen.append(_toolkit_lock(folder, cuda_version(match[0]), table["toolkits"]["components"]))
        else:
            raise UsageError(f"no lock is called {name}", hint=f"choose from: {', '.join(sorted(locks))}")
    return chosen or list(locks.values())


def problems(lock: Lock, path: Path | None = None) -> list[str]:
    """What is wrong with the lock at ``path`` (default: where it belongs), without the network; one line each."""
    path = path or lock.output
    try:
        if isinstance(lock, ArchivesLock):
            redist.read_lock(path)
            return []
        pins = lockfile.read_lock(path)
        asked = [asked for file in lock.inputs for asked in lockfile.read_input(file)]
        asked += [lockfile.Asked(Requirement(line), lock.name) for line in lock.lines]
        return lockfile.unanswered(tuple(asked), pins) + _wrong_parts(lock, pins) + _local_builds(lock, pins)
    except FileNotFoundError:
        return [f"{path} is not there"]
    except ToolchainError as error:
        return [str(error)]


def _wrong_parts(lock: RequirementsLock, pins: Iterable[lockfile.Pin]) -> list[str]:
    """CUDA parts of another version: a torch of that number, but not of that CUDA."""
    versions = {pin.name: pin.version for pin in pins}
    found = []
    for part in lock.parts:
        version = versions.get(part)
        if version is None:
            found.append(f"{lock.name}: no {part}, so this is not a CUDA {lock.cuda} build")
        elif not version.startswith(f"{lock.cuda}."):
            found.append(f"{lock.name}: {part} {version} is not of CUDA {lock.cuda}")
    return found


def _local_builds(lock: RequirementsLock, pins: Iterable[lockfile.Pin]) -> list[str]:
    """A local version answers ``==2.13.0`` too: a CPU build from a folder nearby must not get in."""
    if lock.channel:
        return []
    return [
        f"{lock.name}: {pin.name} {pin.version} is somebody's own build" for pin in pins if Version(pin.version).local
    ]


def make(lock: Lock, *, upgrade: bool = False) -> None:
    """Write ``lock`` anew. Pins that still answer stay as they are unless ``upgrade``.

    Raises:
        ToolchainError: no version answers, or what answers is of another CUDA; the old lock stays.
        CommandError: uv failed, for example because the package index cannot be reached.
    """
    lock.output.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(lock, ArchivesLock):
        redist.make_lock(lock.cuda, lock.output)
        return
    with tempfile.TemporaryDirectory(dir=lock.output.parent, prefix=".lock-") as beside:
        made = Path(beside) / lock.output.name
        if lock.output.exists() and not upgrade:
            shutil.copy(lock.output, made)
        _compile(lock, made)
        found = problems(lock, made)
        if found:
            raise ToolchainError("; ".join(found), hint="correct requirements/locks.toml")
        made.replace(lock.output)


def _compile(lock: RequirementsLock, made: Path) -> None:
    """Resolve ``lock`` for every platform and Python into the file ``made``."""
    extra = made.parent / "extra.in"
    extra.write_text("".join(f"{line}\n" for line in lock.lines), encoding="utf-8")
    command: list[str | os.PathLike[str]] = [uv.find_uv_bin(), "pip", "compile", "--quiet", "--universal"]
    command += ["--generate-hashes", "--no-annotate", "--no-header", "--no-emit-index-url", "--no-sources"]
    command += ["--python-version", lock.python, *(["--extra-index-url", lock.channel] if lock.channel else [])]
    call([*command, *lock.inputs, extra, "--output-file", made], cwd=ROOT, quiet=True)
    if lock.channel:
        made.write_text(f"--extra-index-url {lock.channel}\n" + made.read_text(encoding="utf-8"), encoding="utf-8")


def check(locks: Iterable[Lock]) -> int:
    """Print what is wrong with each lock; return how many are wrong.

    What comes from servers other than the package index may be unlocked: the plan says so, and a build refuses it.
    """
    wrong = 0
    for lock in locks:
        elsewhere = isinstance(lock, ArchivesLock) or lock.channel is not None
        if elsewhere and not lock.output.exists():
            console.mark("info", f"{lock.name}: unlocked; `nox -s lock -- {lock.name}` makes it")
            continue
        found = problems(lock)
        wrong += bool(found)
        console.mark("failed" if found else "passed", "; ".join(found) or lock.name)
    return wrong


def _make_all(locks: Iterable[Lock], *, upgrade: bool) -> int:
    """Make each lock, going on after a failure; return how many failed."""
    failed = 0
    for lock in locks:
        try:
            make(lock, upgrade=upgrade)
            console.mark("passed", lock.name)
        except PipelineError as error:
            failed += 1
            detail = getattr(error, "output", "").strip()
            console.mark("failed", "\n".join(part for part in (f"{lock.name}: {error}", detail, error.hint) if part))
    return failed


def main() -> int:
    """Make or check the locks that the command line names."""
    parser = argparse.ArgumentParser(prog="nox -s lock --", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="locks to make; default: all")
    parser.add_argument("--check", action="store_true", help="change nothing; report what no longer fits, offline")
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions instead of keeping pins")
    arguments = parser.parse_args()
    chosen = select(arguments.names)
    if arguments.check:
        wrong, verb = check(chosen), "do not answer their inputs"
    else:
        wrong, verb = _make_all(chosen, upgrade=arguments.upgrade), "could not be made"
    if wrong:
        raise ToolchainError(f"{wrong} of {len(chosen)} locks {verb}", hint="nox -s lock")
    return 0


if __name__ == "__main__":
    run_main(main)
