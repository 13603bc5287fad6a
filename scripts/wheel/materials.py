"""The materials of a wheel with their hashes, which its bill of materials and its provenance list."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from scripts.locks import lockfile, redist
from scripts.model import ROOT, Cell, ProviderKind
from scripts.source import patching
from scripts.support import environments
from scripts.support.files import file_sha256
from scripts.support.host import redist_platform
from scripts.toolchain.providers import CudaHome
from scripts.wheel.build_info import BuildInfo

CUDA_LICENCE = "NVIDIA CUDA Toolkit EULA"
CUDA_LICENCE_URL = "https://docs.nvidia.com/cuda/eula/index.html"
TOOLS_LOCK = "requirements/pipeline.txt"
# The names of the CUDA runtime: as a package on PyPI, and as a component archive.
_RUNTIMES = ("nvidia-cuda-runtime", "cuda_cudart")


@dataclass(frozen=True)
class Part:
    """A third-party material; ``hashes`` are the SHA-256 of all files that its lock permits."""

    name: str
    version: str
    hashes: tuple[str, ...] = ()
    licence: str | None = None


@dataclass(frozen=True, kw_only=True)
class Materials:
    """Everything that affects the bytes of a wheel, with names, versions and hashes.

    ``series`` maps each file of the series ("patches/0.3/loader.patch") to its SHA-256, and ``locks`` each lock file
    ("requirements/pipeline.txt"). ``runtime`` is the version of the CUDA runtime. ``architectures`` uses the notation
    of torch ("9.0+PTX").
    """

    cell: Cell
    engine: str
    image: str | None
    architectures: tuple[str, ...]
    series_sha256: str
    series: Mapping[str, str]
    provider: ProviderKind
    toolkit: tuple[Part, ...]
    runtime: str
    torch: Part
    locks: Mapping[str, str]


def collect(
    cell: Cell,
    cuda: CudaHome,
    series: patching.Series,
    *,
    engine: str,
    image: str | None,
    architectures: tuple[str, ...],
) -> Materials:
    """Return the materials of the wheel of ``cell``, built with the toolkit ``cuda`` and the patches of ``series``.

    Raises:
        ToolchainError: if the lock of torch is missing or malformed.
    """
    toolkit_lock = _toolkit_lock(cell, cuda.provider)
    torch_lock = environments.torch_lock(cell)
    locks = [ROOT / TOOLS_LOCK, torch_lock, *([toolkit_lock] if toolkit_lock else [])]
    return Materials(
        cell=cell,
        engine=engine,
        image=image if engine == "cibuildwheel" else None,
        architectures=architectures,
        series_sha256=series.sha256,
        series={
            _relative_name(path): file_sha256(path)
            for path in [*(patch.path for patch in series.patches), *series.overlay.values()]
        },
        provider=cuda.provider,
        toolkit=_toolkit(cuda, toolkit_lock),
        runtime=_runtime_version(cell, cuda),
        torch=_torch(cell, torch_lock),
        locks={_relative_name(path): file_sha256(path) for path in sorted(locks)},
    )


def host_compiler(cell: Cell, info: BuildInfo) -> Part:
    """Return the host compiler of the wheel that ``info`` describes; only the wheel knows the one in a container."""
    return Part("cl" if cell.platform.is_windows else "g++", info.compiler.cxx)


def _relative_name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _toolkit_lock(cell: Cell, kind: ProviderKind) -> Path | None:
    (provider,) = (provider for provider in cell.toolkit.providers if provider.kind == kind)
    return ROOT / provider.lock if provider.lock else None


def _toolkit(cuda: CudaHome, lock: Path | None) -> tuple[Part, ...]:
    """Return the components of the toolkit with the hashes in ``lock``; a toolkit of the system has no lock."""
    if lock is None:
        return tuple(Part(name, version, (), CUDA_LICENCE) for name, version in sorted(cuda.components.items()))
    if cuda.provider == "pypi":
        pins = sorted(lockfile.read_lock(lock), key=lambda pin: pin.name)
        return tuple(Part(pin.name, pin.version, tuple(sorted(pin.hashes)), CUDA_LICENCE) for pin in pins)
    platform = redist_platform()
    locked = sorted(redist.read_lock(lock).for_platform(platform).items())
    return tuple(Part(name, one.version, (one.archives[platform].sha256,), one.license) for name, one in locked)


def _runtime_version(cell: Cell, cuda: CudaHome) -> str:
    """Return the version of the CUDA runtime ("13.0.96"), or that of the toolkit ("13.0") if it is unknown."""
    for name in _RUNTIMES:
        if name in cuda.components:
            return cuda.components[name]
    try:
        versions = json.loads((cuda.path / "version.json").read_text(encoding="utf-8"))
        return str(versions["cuda_cudart"]["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return cell.toolkit.cuda


def _torch(cell: Cell, lock: Path) -> Part:
    """Return the locked torch, whose headers are compiled into the wheel."""
    (pin,) = (pin for pin in lockfile.read_lock(lock) if pin.name == "torch")
    return Part("torch", pin.version, tuple(sorted(pin.hashes)), "BSD-3-Clause")
