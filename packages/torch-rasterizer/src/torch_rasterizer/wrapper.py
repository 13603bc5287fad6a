"""One rasterizer, whichever backend there is: PyTorch, a compiled custom_rasterizer, or nvdiffrast."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Protocol

import torch

from torch_rasterizer.devices import as_device, best_device
from torch_rasterizer.foreign_arguments import check_rasterize

# In the order in which they are tried.
BACKENDS = ("pytorch", "custom_rasterizer", "nvdiffrast")


class BackendUnavailableError(RuntimeError):
    """No backend can be used; `rejected` says of each that was asked for why."""

    def __init__(self, message: str, rejected: dict[str, str]) -> None:
        super().__init__(message)
        self.rejected = rejected


class _RejectedError(Exception):
    """Why one backend cannot be used."""


class _Implementation(Protocol):
    def rasterize(
        self,
        pos: torch.Tensor,
        tri: torch.Tensor,
        resolution: tuple[int, int],
        clamp_depth: torch.Tensor,
        use_depth_prior: int,
    ) -> tuple[torch.Tensor, torch.Tensor]: ...

    def interpolate(
        self, col: torch.Tensor, findices: torch.Tensor, barycentric: torch.Tensor, tri: torch.Tensor
    ) -> torch.Tensor: ...


@dataclass(frozen=True)
class _Opened:
    mode: str
    device: torch.device
    implementation: _Implementation


class RasterizerWrapper:
    """rasterize and interpolate by the first backend that can be used.

    backend: 'auto' tries pytorch, then custom_rasterizer, then nvdiffrast; a name takes that one or raises. device: a
    torch.device or its name; None takes CUDA or ROCm, else MPS, else the CPU.

    mode: 'pytorch_cuda', 'pytorch_rocm', 'pytorch_mps', 'pytorch_cpu', 'custom_rasterizer' or 'nvdiffrast'.
    device: the torch.device. rejected: for each other backend, why it was not taken.

    Raises ValueError for an unknown backend or device name, BackendUnavailableError when none asked for can be used.
    """

    def __init__(self, backend: str = "auto", device: torch.device | str | None = None) -> None:
        if backend not in ("auto", *BACKENDS):
            names = ", ".join(repr(name) for name in ("auto", *BACKENDS))
            raise ValueError(f"backend: expected one of {names}, found {backend!r}")
        chosen = best_device() if device is None else as_device(device)
        opened, self.rejected = _first(BACKENDS if backend == "auto" else (backend,), chosen)
        if opened is None:
            raise BackendUnavailableError(_complaint(backend, chosen, self.rejected), self.rejected)
        taken = backend if backend != "auto" else BACKENDS[len(self.rejected)]
        self.mode, self.device, self._implementation = opened.mode, opened.device, opened.implementation
        for name in BACKENDS:
            if name != taken and name not in self.rejected:
                self.rejected[name] = _not_tried(name, taken, asked=backend != "auto")

    def __repr__(self) -> str:
        return f"RasterizerWrapper(mode={self.mode!r}, device={str(self.device)!r})"

    def rasterize(
        self,
        pos: torch.Tensor,
        tri: torch.Tensor,
        resolution: tuple[int, int],
        clamp_depth: torch.Tensor | None = None,
        use_depth_prior: int = 0,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw triangles: face ids int32 <H,W> (0 background, else face+1) and barycentrics float32 <H,W,3>.

        pos: clip coordinates float32 <1,N,4>; tri: int32 <M,3>; resolution: (H, W); clamp_depth: float32 <H*W>, with
        use_depth_prior only what is behind it is drawn (not with nvdiffrast). Raises TypeError or ValueError.
        """
        if clamp_depth is None:
            # Beside pos: the original compares the devices of all three, even of an empty one.
            clamp_depth = torch.zeros(0, device=getattr(pos, "device", None))
        return self._implementation.rasterize(pos, tri, resolution, clamp_depth, use_depth_prior)

    def interpolate(
        self, col: torch.Tensor, findices: torch.Tensor, barycentric: torch.Tensor, tri: torch.Tensor
    ) -> torch.Tensor:
        """Attributes float32 <1,N,C> of the vertices at the pixels, <1,H,W,C>; background is 0."""
        return self._implementation.interpolate(col, findices, barycentric, tri)


def _first(names: tuple[str, ...], device: torch.device) -> tuple[_Opened | None, dict[str, str]]:
    """The first backend that opens, and why those before it did not."""
    rejected: dict[str, str] = {}
    for name in names:
        try:
            return _OPENERS[name](device), rejected
        except _RejectedError as reason:
            rejected[name] = str(reason)
    return None, rejected


def _complaint(backend: str, device: torch.device, rejected: dict[str, str]) -> str:
    reasons = "; ".join(f"{name}: {reason}" for name, reason in rejected.items())
    if backend == "auto":
        return f"no backend can rasterize on {device}: {reasons}"
    return f"backend {backend!r} cannot be used on {device}: {reasons}. backend='auto' takes the first that can"


def _not_tried(name: str, taken: str, *, asked: bool) -> str:
    """Why a backend was not tried; it is not imported to know it."""
    if asked:
        return f"backend={taken!r} was asked for"
    there = name == "pytorch" or _is_installed(name)
    return f"{taken} comes first" if there else f"{taken} comes first; not installed"


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # It is imported and has no spec.
        return True


def _open_pytorch(device: torch.device) -> _Opened:
    _need_device(device)
    # Only here, so that a broken installation of another backend's parts cannot keep this module from loading.
    from torch_rasterizer.rasterizer import PyTorchRasterizer  # noqa: PLC0415

    return _Opened(_pytorch_mode(device), device, PyTorchRasterizer(device))


def _pytorch_mode(device: torch.device) -> str:
    if device.type == "cuda":
        return "pytorch_rocm" if torch.version.hip else "pytorch_cuda"
    return f"pytorch_{device.type}"


def _open_custom_rasterizer(device: torch.device) -> _Opened:
    _need_device(device, "cpu", "cuda")
    module = _import("custom_rasterizer")
    if getattr(module, "__torch_rasterizer__", False):
        raise _RejectedError("the installed one is torch-rasterizer's drop-in, not a compiled original: use 'pytorch'")
    missing = [name for name in ("rasterize", "interpolate") if not callable(getattr(module, name, None))]
    if missing:
        raise _RejectedError(f"the module {_place(module)} has no {' and no '.join(missing)}")
    return _Opened("custom_rasterizer", device, _Original(module, device))


class _Original:
    """The compiled original; it reads memory as if contiguous without looking, so it is given nothing else."""

    def __init__(self, module: ModuleType, device: torch.device) -> None:
        self._module, self._device = module, device

    def rasterize(
        self,
        pos: torch.Tensor,
        tri: torch.Tensor,
        resolution: tuple[int, int],
        clamp_depth: torch.Tensor,
        use_depth_prior: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        check_rasterize(pos, tri, resolution, self._device)
        drawn: tuple[torch.Tensor, torch.Tensor] = self._module.rasterize(
            pos.contiguous(), tri.contiguous(), resolution, clamp_depth.contiguous(), use_depth_prior
        )
        return drawn

    def interpolate(
        self, col: torch.Tensor, findices: torch.Tensor, barycentric: torch.Tensor, tri: torch.Tensor
    ) -> torch.Tensor:
        return self._module.interpolate(col, findices, barycentric, tri)


def _open_nvdiffrast(device: torch.device) -> _Opened:
    _need_device(device, "cuda")
    dr = _import("nvdiffrast.torch")
    from torch_rasterizer.nvdiffrast_adapter import NvdiffrastRasterizer  # noqa: PLC0415

    try:
        return _Opened("nvdiffrast", device, NvdiffrastRasterizer(dr, device))
    except Exception as error:  # Old releases compile here: what can go wrong has no one type.
        raise _RejectedError(f"no context on {device}: {_brief(error)}") from error


_OPENERS: dict[str, Callable[[torch.device], _Opened]] = {
    "pytorch": _open_pytorch,
    "custom_rasterizer": _open_custom_rasterizer,
    "nvdiffrast": _open_nvdiffrast,
}


def _need_device(device: torch.device, *types: str) -> None:
    if types and device.type not in types:
        raise _RejectedError(f"runs on {' and '.join(types)}, not on {device}")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise _RejectedError(f"torch {torch.__version__} sees no CUDA or ROCm device")
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        raise _RejectedError(f"torch sees {count} CUDA or ROCm devices, none with index {device.index}")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise _RejectedError(f"torch {torch.__version__} sees no MPS device")


def _import(name: str) -> ModuleType:
    if not _is_installed(name.partition(".")[0]):
        raise _RejectedError("not installed")
    try:
        return importlib.import_module(name)
    except Exception as error:  # A broken extension raises ImportError, OSError, or what its own code raises.
        raise _RejectedError(f"installed, but its import fails: {_brief(error)}") from error


def _place(module: ModuleType) -> str:
    return str(getattr(module, "__file__", None) or module.__name__)


def _brief(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0] if text else 'no message'}"
