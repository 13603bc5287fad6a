"""A CUDA toolkit from one of its providers, verified before anything is compiled with it."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import uv

from scripts.errors import CommandError, ToolchainError, UsageError
from scripts.locks import lockfile, redist
from scripts.model import ROOT, Provider, ProviderKind, Toolkit
from scripts.support import download_sizes
from scripts.support.files import cache_root, complete_folder, file_sha256
from scripts.support.host import redist_platform
from scripts.support.process import call, which
from scripts.toolchain import compilers

_RELEASE = re.compile(r"release (\d+\.\d+), V(\d+\.\d+\.\d+)")
_CUDART_VERSION = re.compile(r"^#define CUDART_VERSION\s+(\d+)", re.MULTILINE)
# Part of every cached toolkit's name: raise it when what _install_* lays down changes.
_LAYOUT = "1"


@dataclass(frozen=True)
class CudaHome:
    """A toolkit on disk, for CUDA_HOME.

    ``version`` is nvcc's ("13.0.88"); ``components`` maps each part to its version; ``lock_sha256`` is of the lock
    that named their contents, None for ``system``.
    """

    path: Path
    version: str
    provider: ProviderKind
    components: Mapping[str, str]
    lock_sha256: str | None

    @property
    def nvcc(self) -> Path:
        """The compiler driver."""
        return _nvcc(self.path)


def provide(toolkit: Toolkit, *, provider: str | None = None, cache: Path | None = None) -> CudaHome:
    """The toolkit, from the first of its providers that can be used here, or from the one that is named.

    What is fetched lies in ``cache`` under its lock's content, complete or not at all.

    Raises:
        UsageError: the toolkit has no such provider.
        ToolchainError: no provider can be used, with the reason for each; or what it gave is not this toolkit.
    """
    reasons = []
    for candidate in _named(toolkit, provider):
        reason = _missing(toolkit, candidate)
        if reason is None:
            return _provide(toolkit, candidate, cache or cache_root())
        reasons.append(f"{candidate.kind}: {reason}")
    raise ToolchainError(f"no CUDA {toolkit.cuda} here: {'; '.join(reasons)}", hint=_hint(toolkit))


def availability(toolkit: Toolkit) -> str | None:
    """None when a provider can give the toolkit here, else why not; looks at files only."""
    reasons = [_missing(toolkit, provider) for provider in toolkit.providers]
    return None if None in reasons else "; ".join(reason for reason in reasons if reason)


def to_fetch(toolkit: Toolkit, *, cache: Path | None = None) -> Path | None:
    """Return the lock of the packages that :func:`provide` would download; None if it needs none of them."""
    provider = next((one for one in toolkit.providers if _missing(toolkit, one) is None), None)
    if provider is None or provider.kind != "pypi" or provider.lock is None:
        return None
    lock = ROOT / provider.lock
    return None if _place(toolkit, provider, lock, cache or cache_root()).is_dir() else lock


def compiler_availability(toolkit: Toolkit, *, needs_gl: bool = False) -> str | None:
    """None when a host compiler for the toolkit (and GL headers, if they are needed) is here, else what is missing."""
    try:
        compilers.check_host(toolkit, needs_gl=needs_gl)
    except (ToolchainError, CommandError) as error:
        return str(error)
    return None


def _named(toolkit: Toolkit, kind: str | None) -> list[Provider]:
    chosen = [provider for provider in toolkit.providers if kind in (None, provider.kind)]
    if not chosen:
        kinds = ", ".join(provider.kind for provider in toolkit.providers)
        raise UsageError(f"{toolkit.tag} has no provider {kind}", hint=f"choose from: {kinds}")
    return chosen


def _hint(toolkit: Toolkit) -> str:
    if any(provider.lock for provider in toolkit.providers):
        return f"run `nox -s lock -- {toolkit.tag}`, or set CUDA_HOME to a CUDA {toolkit.cuda}"
    return f"install CUDA {toolkit.cuda} and set CUDA_HOME"


def _missing(toolkit: Toolkit, provider: Provider) -> str | None:
    """Why ``provider`` cannot be used here, or None."""
    if provider.kind == "system":
        return _system_problem(toolkit)
    if provider.lock is None or not (ROOT / provider.lock).exists():
        return f"unlocked: run `nox -s lock -- {toolkit.tag}`"
    return None


def _provide(toolkit: Toolkit, provider: Provider, cache: Path) -> CudaHome:
    if provider.kind == "system":
        home = _system_home()
        assert home is not None
        return CudaHome(home, _verify(home, toolkit), "system", MappingProxyType({"nvcc": _versions(home)[1]}), None)
    assert provider.lock is not None
    lock = ROOT / provider.lock
    folder = _place(toolkit, provider, lock, cache)
    components, home = (_from_pypi if provider.kind == "pypi" else _from_redist)(toolkit, lock, folder)
    return CudaHome(home, _verify(home, toolkit), provider.kind, MappingProxyType(dict(components)), file_sha256(lock))


def _place(toolkit: Toolkit, provider: Provider, lock: Path, cache: Path) -> Path:
    """Return where a fetched toolkit lies, which the content of its lock decides."""
    identity = hashlib.sha256(f"{_LAYOUT} {sys.platform} {file_sha256(lock)}".encode()).hexdigest()[:16]
    return cache / "toolkits" / f"{toolkit.tag}-{provider.kind}-{identity}"


def _from_pypi(toolkit: Toolkit, lock: Path, folder: Path) -> tuple[Mapping[str, str], Path]:
    """The parts that ``lock`` pins, installed by uv into ``folder``; no Python environment is touched."""
    components = {pin.name: pin.version for pin in lockfile.read_lock(lock)}
    inside = Path("nvidia", f"cu{toolkit.cuda.partition('.')[0]}")
    if not folder.is_dir():
        with complete_folder(folder) as beside:
            command: list[str | os.PathLike[str]] = [uv.find_uv_bin(), "pip", "install", "--no-deps"]
            command += ["--require-hashes", "--only-binary", ":all:", "--python", sys.executable]
            download_sizes.announce(f"CUDA {toolkit.cuda}", Path(sys.executable), [lock])
            call(
                [*command, "--target", beside, "--requirements", lock],
                show=download_sizes.is_progress,
                terminal=True,
                hint=f"run it again; {_hint(toolkit)}",
            )
            _link(beside / inside)
            _verify(beside / inside, toolkit)
    return components, folder / inside


def _from_redist(toolkit: Toolkit, lock: Path, folder: Path) -> tuple[Mapping[str, str], Path]:
    """The archives that ``lock`` pins, unpacked into ``folder``."""
    held = redist.read_lock(lock)
    if not folder.is_dir():
        with complete_folder(folder) as beside:
            redist.install(held, beside)
            _link(beside)
            _verify(beside, toolkit)
    components = held.for_platform(redist_platform())
    return {name: component.version for name, component in components.items()}, folder


def _link(home: Path) -> None:
    """The names that nvcc and torch look for, where a package has only the versioned or the short one."""
    if sys.platform == "win32":
        return
    if not (home / "lib64").exists():
        (home / "lib64").symlink_to("lib", target_is_directory=True)
    runtime = home / "lib" / "libcudart.so"
    versioned = sorted(home.glob("lib/libcudart.so.*"), key=lambda path: len(path.name))
    if versioned and not runtime.exists():
        runtime.symlink_to(versioned[0].name)


def _verify(home: Path, toolkit: Toolkit) -> str:
    """nvcc's full version, when ``home`` is this toolkit with the runtime's headers.

    Raises:
        ToolchainError: it is another CUDA, or parts are missing.
    """
    release, full = _versions(home)
    problem = None
    if release != toolkit.cuda:
        problem = f"is CUDA {release}, not {toolkit.cuda}"
    elif not (home / "include" / "cuda_runtime_api.h").is_file():
        problem = "has no include/cuda_runtime_api.h"
    else:
        problem = _other_runtime(home, toolkit)
    if problem:
        raise ToolchainError(f"{home} {problem}", hint=_hint(toolkit))
    return full


def _other_runtime(home: Path, toolkit: Toolkit) -> str | None:
    """Headers of another CUDA than nvcc's compile, and then fail on somebody's machine."""
    match = _CUDART_VERSION.search(
        (home / "include" / "cuda_runtime_api.h").read_text(encoding="utf-8", errors="replace")
    )
    number = int(match[1]) if match else 0
    found = f"{number // 1000}.{number % 1000 // 10}"
    return None if found == toolkit.cuda else f"has the runtime headers of CUDA {found}, not {toolkit.cuda}"


def _nvcc(home: Path) -> Path:
    return home / "bin" / ("nvcc.exe" if sys.platform == "win32" else "nvcc")


def _versions(home: Path) -> tuple[str, str]:
    """nvcc's release and full version, ("13.0", "13.0.88")."""
    try:
        match = _RELEASE.search(call([_nvcc(home), "--version"], echo=False, quiet=True))
    except CommandError as error:
        raise ToolchainError(
            f"{home} has no nvcc that runs: {error}", hint="set CUDA_HOME to a whole toolkit"
        ) from error
    if match is None:
        raise ToolchainError(f"{_nvcc(home)} does not say its version", hint="set CUDA_HOME to a whole toolkit")
    return match[1], match[2]


def _system_home() -> Path | None:
    """CUDA_HOME, else CUDA_PATH, else the toolkit of the nvcc on PATH, which may be a script that calls it."""
    named = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    if named:
        return Path(named)
    nvcc = which("nvcc")
    if nvcc is None:
        return None
    said = re.search(r"^#\$ TOP=(.+)$", call([nvcc, "--dryrun", "-x", "cu", os.devnull], echo=False, quiet=True), re.M)
    return Path(said[1].strip()).resolve() if said else nvcc.resolve().parent.parent


def _system_problem(toolkit: Toolkit) -> str | None:
    """Why the system's toolkit is not this one, or None."""
    try:
        home = _system_home()
        if home is None:
            return f"no CUDA {toolkit.cuda} on the system (CUDA_HOME, CUDA_PATH, nvcc on PATH)"
        _verify(home, toolkit)
    except (ToolchainError, CommandError) as error:
        return str(error)
    return None
