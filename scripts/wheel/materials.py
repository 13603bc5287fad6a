"""What one wheel is made of, with hashes: what its bill of materials and its provenance both state."""

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
# The CUDA runtime, as its providers call it: package index, component archives.
_RUNTIMES = ("nvidia-cuda-runtime", "cuda_cudart")


@dataclass(frozen=True)
class Part:
    """One thing of somebody else's; ``hashes`` are the sha256 of every file that its lock lets serve it."""

    name: str
    version: str
    hashes: tuple[str, ...] = ()
    licence: str | None = None


@dataclass(frozen=True)
class Ingredients:
    """Everything that decides a wheel's bytes, by name, version and hash; nothing of the machine that made it.

    ``series`` maps every file of ours that goes into the tree ("patches/0.3/loader.patch") to its sha256, ``locks``
    every lock that was used ("requirements/pipeline.txt") to its own. ``runtime`` is the version of the CUDA runtime,
    ``architectures`` what was compiled for in torch's notation ("9.0+PTX").
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
) -> Ingredients:
    """Return what the wheel of ``cell`` is made of, with the toolkit at ``cuda`` and the patches of ``series``.

    Raises:
        ToolchainError: if the lock of torch is missing or malformed.
    """
    toolkit_lock = _toolkit_lock(cell, cuda.provider)
    torch_lock = environments.torch_lock(cell)
    locks = [ROOT / TOOLS_LOCK, torch_lock, *([toolkit_lock] if toolkit_lock else [])]
    return Ingredients(
        cell=cell,
        engine=engine,
        image=image if engine == "cibuildwheel" else None,
        architectures=architectures,
        series_sha256=series.sha256,
        series={_name(path): file_sha256(path) for path in [*_patches(series), *series.overlay.values()]},
        provider=cuda.provider,
        toolkit=_toolkit(cuda, toolkit_lock),
        runtime=_runtime_version(cell, cuda),
        torch=_torch(cell, torch_lock),
        locks={_name(path): file_sha256(path) for path in sorted(locks)},
    )


def host_compiler(cell: Cell, info: BuildInfo) -> Part:
    """Return the host compiler of the wheel that ``info`` describes; only the wheel knows the one in a container."""
    return Part("cl" if cell.platform.is_windows else "g++", info.compiler.cxx)


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _patches(series: patching.Series) -> list[Path]:
    return [patch.path for patch in series.patches]


def _toolkit_lock(cell: Cell, kind: ProviderKind) -> Path | None:
    (provider,) = (provider for provider in cell.toolkit.providers if provider.kind == kind)
    return ROOT / provider.lock if provider.lock else None


def _toolkit(cuda: CudaHome, lock: Path | None) -> tuple[Part, ...]:
    """The toolkit's parts with the hashes of their lock; those of the system have none."""
    if lock is None:
        return tuple(Part(name, version, (), CUDA_LICENCE) for name, version in sorted(cuda.components.items()))
    if cuda.provider == "pypi":
        pins = sorted(lockfile.read_lock(lock), key=lambda pin: pin.name)
        return tuple(Part(pin.name, pin.version, tuple(sorted(pin.hashes)), CUDA_LICENCE) for pin in pins)
    platform = redist_platform()
    held = sorted(redist.read_lock(lock).for_platform(platform).items())
    return tuple(Part(name, one.version, (one.archives[platform].sha256,), one.license) for name, one in held)


def _runtime_version(cell: Cell, cuda: CudaHome) -> str:
    """The CUDA runtime's own version, "13.0.96"; where an installed toolkit does not say it, the toolkit's, "13.0"."""
    for name in _RUNTIMES:
        if name in cuda.components:
            return cuda.components[name]
    try:
        stated = json.loads((cuda.path / "version.json").read_text(encoding="utf-8"))
        return str(stated["cuda_cudart"]["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return cell.toolkit.cuda


def _torch(cell: Cell, lock: Path) -> Part:
    """The torch whose headers were compiled in."""
    (pin,) = (pin for pin in lockfile.read_lock(lock) if pin.name == "torch")
    return Part("torch", pin.version, tuple(sorted(pin.hashes)), "BSD-3-Clause")
