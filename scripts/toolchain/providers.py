"""Gets a CUDA toolkit from one of its providers and verifies it before the build uses it."""

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

_NVCC_VERSION = re.compile(r"release (\d+\.\d+), V(\d+\.\d+\.\d+)")
_CUDART_VERSION = re.compile(r"^#define CUDART_VERSION\s+(\d+)", re.MULTILINE)
# Part of the name of every cached toolkit. Increase it when _from_pypi or _from_redist writes other files.
_LAYOUT = "1"


@dataclass(frozen=True)
class CudaHome:
    """A toolkit on disk; ``path`` is the value for CUDA_HOME.

    ``version`` is the version of nvcc ("13.0.88"). ``components`` maps the name of each component to its version.
    ``lock_sha256`` is the SHA-256 of the lock file, None for the provider ``system``.
    """

    path: Path
    version: str
    provider: ProviderKind
    components: Mapping[str, str]
    lock_sha256: str | None


def provide(toolkit: Toolkit, *, provider: str | None = None, cache: Path | None = None) -> CudaHome:
    """Return the toolkit from ``provider``, or from the first of its providers that is usable on this machine.

    A downloaded toolkit is stored in ``cache`` under the hash of its lock, and is always complete.

    Raises:
        UsageError: if the toolkit has no such provider.
        ToolchainError: if no provider is usable, with the reason for each, or the result is another toolkit.
    """
    reasons = []
    for candidate in _select_providers(toolkit, provider):
        reason = _unusable_reason(toolkit, candidate)
        if reason is None:
            return _provide(toolkit, candidate, cache or cache_root())
        reasons.append(f"{candidate.kind}: {reason}")
    raise ToolchainError(f"CUDA {toolkit.cuda} is not available: {'; '.join(reasons)}", hint=_hint(toolkit))


def availability(toolkit: Toolkit) -> str | None:
    """Return None if a provider of the toolkit is usable here, otherwise the reason for each; use no network."""
    reasons = [_unusable_reason(toolkit, provider) for provider in toolkit.providers]
    return None if None in reasons else "; ".join(reason for reason in reasons if reason)


def to_fetch(toolkit: Toolkit, *, cache: Path | None = None) -> Path | None:
    """Return the lock of the packages that :func:`provide` would download, or None if it would download nothing."""
    provider = next((one for one in toolkit.providers if _unusable_reason(toolkit, one) is None), None)
    if provider is None or provider.kind != "pypi" or provider.lock is None:
        return None
    lock = ROOT / provider.lock
    return None if _cache_folder(toolkit, provider, lock, cache or cache_root()).is_dir() else lock


def compiler_availability(toolkit: Toolkit, *, needs_gl: bool = False) -> str | None:
    """Return None if this machine has a suitable host compiler (and the GL headers), otherwise what is missing."""
    try:
        compilers.check_host(toolkit, needs_gl=needs_gl)
    except (ToolchainError, CommandError) as error:
        return str(error)
    return None


def _select_providers(toolkit: Toolkit, kind: str | None) -> list[Provider]:
    """Return the providers of ``kind``, or all providers if it is None."""
    chosen = [provider for provider in toolkit.providers if kind in (None, provider.kind)]
    if not chosen:
        kinds = ", ".join(provider.kind for provider in toolkit.providers)
        raise UsageError(f"{toolkit.tag} has no provider {kind}", hint=f"choose from: {kinds}")
    return chosen


def _hint(toolkit: Toolkit) -> str:
    if any(provider.lock for provider in toolkit.providers):
        return f"run `nox -s lock -- {toolkit.tag}`, or set CUDA_HOME to a CUDA {toolkit.cuda} toolkit"
    return f"install CUDA {toolkit.cuda} and set CUDA_HOME"


def _unusable_reason(toolkit: Toolkit, provider: Provider) -> str | None:
    """Return why ``provider`` is not usable on this machine, or None if it is."""
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
    folder = _cache_folder(toolkit, provider, lock, cache)
    components, home = (_from_pypi if provider.kind == "pypi" else _from_redist)(toolkit, lock, folder)
    return CudaHome(home, _verify(home, toolkit), provider.kind, MappingProxyType(dict(components)), file_sha256(lock))


def _cache_folder(toolkit: Toolkit, provider: Provider, lock: Path, cache: Path) -> Path:
    """Return the folder of a downloaded toolkit in the cache; it depends on the content of ``lock``."""
    identity = hashlib.sha256(f"{_LAYOUT} {sys.platform} {file_sha256(lock)}".encode()).hexdigest()[:16]
    return cache / "toolkits" / f"{toolkit.tag}-{provider.kind}-{identity}"


def _from_pypi(toolkit: Toolkit, lock: Path, folder: Path) -> tuple[Mapping[str, str], Path]:
    """Install the packages that ``lock`` pins into ``folder`` with uv; return the components and CUDA_HOME.

    No Python environment is changed.
    """
    components = {pin.name: pin.version for pin in lockfile.read_lock(lock)}
    subfolder = Path("nvidia", f"cu{toolkit.cuda.partition('.')[0]}")
    if not folder.is_dir():
        with complete_folder(folder) as new_folder:
            command: list[str | os.PathLike[str]] = [uv.find_uv_bin(), "pip", "install", "--no-deps"]
            command += ["--require-hashes", "--only-binary", ":all:", "--python", sys.executable]
            download_sizes.announce(f"CUDA {toolkit.cuda}", Path(sys.executable), [lock])
            call(
                [*command, "--target", new_folder, "--requirements", lock],
                show=download_sizes.is_progress,
                terminal=True,
                hint=f"run the command again, or {_hint(toolkit)}",
            )
            _create_links(new_folder / subfolder)
            _verify(new_folder / subfolder, toolkit)
    return components, folder / subfolder


def _from_redist(toolkit: Toolkit, lock: Path, folder: Path) -> tuple[Mapping[str, str], Path]:
    """Unpack the archives that ``lock`` pins into ``folder``; return the components and CUDA_HOME."""
    locked = redist.read_lock(lock)
    if not folder.is_dir():
        with complete_folder(folder) as new_folder:
            redist.install(locked, new_folder)
            _create_links(new_folder)
            _verify(new_folder, toolkit)
    components = locked.for_platform(redist_platform())
    return {name: component.version for name, component in components.items()}, folder


def _create_links(home: Path) -> None:
    """Create the names that nvcc and torch look for and that the packages do not have: lib64 and libcudart.so."""
    if sys.platform == "win32":
        return
    if not (home / "lib64").exists():
        (home / "lib64").symlink_to("lib", target_is_directory=True)
    runtime = home / "lib" / "libcudart.so"
    versioned = sorted(home.glob("lib/libcudart.so.*"), key=lambda path: len(path.name))
    if versioned and not runtime.exists():
        runtime.symlink_to(versioned[0].name)


def _verify(home: Path, toolkit: Toolkit) -> str:
    """Check that ``home`` is this toolkit and has the headers of the CUDA runtime; return the full version of nvcc.

    Raises:
        ToolchainError: if the CUDA version differs, or parts are missing.
    """
    version, full = _versions(home)
    problem = None
    if version != toolkit.cuda:
        problem = f"is CUDA {version}, not {toolkit.cuda}"
    elif not (home / "include" / "cuda_runtime_api.h").is_file():
        problem = "has no include/cuda_runtime_api.h"
    else:
        problem = _runtime_problem(home, toolkit)
    if problem:
        raise ToolchainError(f"{home} {problem}", hint=_hint(toolkit))
    return full


def _runtime_problem(home: Path, toolkit: Toolkit) -> str | None:
    """Return a problem if the runtime's headers have another version; such a build would fail on other machines."""
    match = _CUDART_VERSION.search(
        (home / "include" / "cuda_runtime_api.h").read_text(encoding="utf-8", errors="replace")
    )
    number = int(match[1]) if match else 0
    found = f"{number // 1000}.{number % 1000 // 10}"
    return None if found == toolkit.cuda else f"has the runtime headers of CUDA {found}, not {toolkit.cuda}"


def _nvcc(home: Path) -> Path:
    return home / "bin" / ("nvcc.exe" if sys.platform == "win32" else "nvcc")


def _versions(home: Path) -> tuple[str, str]:
    """Return the short and the full version of nvcc: ("13.0", "13.0.88")."""
    try:
        match = _NVCC_VERSION.search(call([_nvcc(home), "--version"], echo=False, quiet=True))
    except CommandError as error:
        raise ToolchainError(
            f"{home} has no working nvcc: {error}", hint="set CUDA_HOME to a complete toolkit"
        ) from error
    if match is None:
        raise ToolchainError(f"{_nvcc(home)} prints no version", hint="set CUDA_HOME to a complete toolkit")
    return match[1], match[2]


def _system_home() -> Path | None:
    """Return CUDA_HOME, or CUDA_PATH, or the toolkit of the nvcc on PATH, which can be a script that calls nvcc."""
    named = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    if named:
        return Path(named)
    nvcc = which("nvcc")
    if nvcc is None:
        return None
    top = re.search(r"^#\$ TOP=(.+)$", call([nvcc, "--dryrun", "-x", "cu", os.devnull], echo=False, quiet=True), re.M)
    return Path(top[1].strip()).resolve() if top else nvcc.resolve().parent.parent


def _system_problem(toolkit: Toolkit) -> str | None:
    """Return why the toolkit of the system is not this one, or None if it is."""
    try:
        home = _system_home()
        if home is None:
            return f"the system has no CUDA {toolkit.cuda} (CUDA_HOME, CUDA_PATH, nvcc on PATH)"
        _verify(home, toolkit)
    except (ToolchainError, CommandError) as error:
        return str(error)
    return None
