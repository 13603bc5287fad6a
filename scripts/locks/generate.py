"""`nox -s lock`: write the locks of tools, toolkits and torch, or check that they satisfy their inputs."""

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
# PyPI has the compiler since CUDA 13.
_CUDA_NAME = re.compile(r"cu1[3-9]\d")
_WINDOWS = "-win_amd64"


@dataclass(frozen=True)
class RequirementsLock:
    """A hash-locked requirement file and its inputs.

    ``inputs`` are requirement files, ``lines`` further requirements. The packages in ``parts`` must have a version of
    ``cuda``. ``channel`` is an index that is searched before the default one.
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
    """A lock of NVIDIA's component archives, created from the pinned manifest of ``cuda`` ("12.4.1")."""

    name: str
    output: Path
    cuda: str


Lock = RequirementsLock | ArchivesLock


def known_locks(root: Path = ROOT) -> dict[str, Lock]:
    """Return all listed and all existing locks by name: ``pipeline``, ``cu130``, ``2.14.1-cu130``, ``cu124-redist``."""
    folder = root / "requirements"
    table = _table(root)
    toolkits = dict.fromkeys(
        [*table["toolkits"]["cuda"], *map(cuda_version, _existing(folder / "toolkits", _CUDA_NAME))]
    )
    torches = dict.fromkeys([*table["torch"], *_existing(folder / "torch", _TORCH_NAME)])
    locks: list[Lock] = [_plain_lock(folder, name, table["plain"]["python"]) for name in table["plain"]["names"]]
    locks += [_toolkit_lock(folder, cuda, table["toolkits"]["components"]) for cuda in toolkits]
    locks += [torch_lock(folder, name, _torch_options(name, table["torch"])) for name in torches]
    for cuda in redist.pinned_manifests(folder / "toolkits" / "manifests.json").versions():
        name = f"{cuda_tag(cuda)}-redist"
        locks.append(ArchivesLock(name, folder / "toolkits" / f"{name}.json", cuda))
    return {lock.name: lock for lock in locks}


def _existing(folder: Path, pattern: re.Pattern[str]) -> list[str]:
    """Return the names of the locks in ``folder``; a lock that locks.toml does not list is checked as well."""
    return [path.stem for path in sorted(folder.glob("*.txt")) if pattern.fullmatch(path.stem)]


def _torch_options(name: str, listed: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the listed options of a torch, else its publisher and its oldest Python from the torch table."""
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
    """Return the lock of a torch for its name (``2.14.1-cu130``) and its options in locks.toml.

    Raises:
        UsageError: if the name is not the name of a torch lock.
    """
    match = _TORCH_NAME.fullmatch(name)
    if match is None:
        raise UsageError(f"{name} is not the name of a torch lock", hint="write VERSION-cuXXX, such as 2.14.1-cu130")
    # PyPI has only a CPU build for Windows.
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
    """Return the named locks, or all locks without a name; ``cu124`` also selects ``cu124-redist``.

    A torch that locks.toml does not list gets its options from the table of torch builds, a torch for Windows the
    options of the one for Linux, and a toolkit that is not listed the components of all toolkits.

    Raises:
        UsageError: if a lock does not exist.
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
            raise UsageError(f"no lock {name}", hint=f"choose from: {', '.join(sorted(locks))}")
    return chosen or list(locks.values())


def problems(lock: Lock, path: Path | None = None) -> list[str]:
    """Return one message per problem of the lock at ``path``, by default its own; works offline."""
    path = path or lock.output
    try:
        if isinstance(lock, ArchivesLock):
            redist.read_lock(path)
            return []
        pins = lockfile.read_lock(path)
        inputs = [requirement for file in lock.inputs for requirement in lockfile.read_input(file)]
        inputs += [lockfile.InputRequirement(Requirement(line), lock.name) for line in lock.lines]
        return lockfile.unsatisfied(tuple(inputs), pins) + _wrong_parts(lock, pins) + _local_builds(lock, pins)
    except FileNotFoundError:
        return [f"{path} is missing"]
    except ToolchainError as error:
        return [str(error)]


def _wrong_parts(lock: RequirementsLock, pins: Iterable[lockfile.Pin]) -> list[str]:
    """Return a message for every CUDA package of another version; its torch is then for another CUDA."""
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
    """Return a message for every local version: a local CPU build also satisfies ``==2.13.0``."""
    if lock.channel:
        return []
    return [f"{lock.name}: {pin.name} {pin.version} is a local build" for pin in pins if Version(pin.version).local]


def make(lock: Lock, *, upgrade: bool = False) -> None:
    """Write ``lock``. Pins that still satisfy the inputs are kept, unless ``upgrade``.

    Raises:
        ToolchainError: if no version satisfies the inputs, or its CUDA is wrong. The old lock is kept.
        CommandError: if uv fails, for example because the package index cannot be reached.
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
    """Print the problems of each lock; return the number of locks with problems.

    Locks of files from servers other than PyPI may be missing: the plan reports them, and a build refuses them.
    """
    wrong = 0
    for lock in locks:
        elsewhere = isinstance(lock, ArchivesLock) or lock.channel is not None
        if elsewhere and not lock.output.exists():
            console.mark("info", f"{lock.name}: unlocked; `nox -s lock -- {lock.name}` locks it")
            continue
        found = problems(lock)
        wrong += bool(found)
        console.mark("failed" if found else "passed", "; ".join(found) or lock.name)
    return wrong


def _make_all(locks: Iterable[Lock], *, upgrade: bool) -> int:
    """Write each lock, and continue after failures; return the number of failures."""
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
    """Write or check the locks that the command line names."""
    parser = argparse.ArgumentParser(prog="nox -s lock --", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="locks to write; default: all")
    parser.add_argument(
        "--check", action="store_true", help="only report locks that do not satisfy their inputs; works offline"
    )
    parser.add_argument("--upgrade", action="store_true", help="use the newest versions instead of keeping pins")
    arguments = parser.parse_args()
    chosen = select(arguments.names)
    if arguments.check:
        wrong, verb = check(chosen), "do not satisfy their inputs"
    else:
        wrong, verb = _make_all(chosen, upgrade=arguments.upgrade), "could not be written"
    if wrong:
        raise ToolchainError(f"{wrong} of {len(chosen)} locks {verb}", hint="nox -s lock")
    return 0


if __name__ == "__main__":
    run_main(main)
