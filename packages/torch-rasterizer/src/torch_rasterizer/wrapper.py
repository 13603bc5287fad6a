"""One rasterizer interface to several backends: PyTorch, a compiled custom_rasterizer, or nvdiffrast."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Protocol, cast

import torch

from torch_rasterizer.devices import as_device, best_device
from torch_rasterizer.validation import check_rasterize

# In the order of preference.
BACKENDS = ("pytorch", "custom_rasterizer", "nvdiffrast")


class BackendUnavailableError(RuntimeError):
    """No requested backend can be used; ``rejected`` maps the name of each one to the reason."""

    def __init__(self, message: str, rejected: dict[str, str]) -> None:
        super().__init__(message)
        self.rejected = rejected


class _RejectedError(Exception):
    """The reason why a backend cannot be used."""


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
    """An opened backend. checks_arguments: whether the implementation rejects wrong arguments itself."""

    mode: str
    device: torch.device
    implementation: _Implementation
    checks_arguments: bool = True


class RasterizerWrapper:
    """rasterize and interpolate with the first backend that can be used.

    backend: 'auto' tries pytorch, then custom_rasterizer, then nvdiffrast; a name selects one backend. device: a
    torch.device or its name; None selects CUDA or ROCm, else MPS, else the CPU.

    The attribute mode is 'pytorch_cuda', 'pytorch_rocm', 'pytorch_mps', 'pytorch_cpu', 'custom_rasterizer' or
    'nvdiffrast'; device is the torch.device; rejected maps each other backend to the reason why it was not selected.

    Raises:
        ValueError: if the backend or device name is unknown.
        BackendUnavailableError: if no requested backend can be used.
    """

    def __init__(self, backend: str = "auto", device: torch.device | str | None = None) -> None:
        if backend not in ("auto", *BACKENDS):
            names = ", ".join(repr(name) for name in ("auto", *BACKENDS))
            raise ValueError(f"backend: expected one of {names}, found {backend!r}")
        chosen = best_device() if device is None else as_device(device)
        opened, self.rejected = _open_first(BACKENDS if backend == "auto" else (backend,), chosen)
        if opened is None:
            raise BackendUnavailableError(_unavailable_message(backend, chosen, self.rejected), self.rejected)
        selected = backend if backend != "auto" else BACKENDS[len(self.rejected)]
        self.mode, self.device = opened.mode, opened.device
        self._implementation, self._checks_arguments = opened.implementation, opened.checks_arguments
        for name in BACKENDS:
            if name != selected and name not in self.rejected:
                self.rejected[name] = _reason_not_tried(name, selected, requested=backend != "auto")

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
        """Return face ids int32 [H, W] (face + 1, 0 for background) and barycentrics float32 [H, W, 3].

        pos: clip coordinates float32 [1, N, 4]. tri: int32 [M, 3]. resolution: (H, W). clamp_depth: float32 [H*W]; with
        use_depth_prior only samples behind it are drawn; nvdiffrast does not support it.

        Raises:
            TypeError, ValueError: if an argument does not match.
        """
        if clamp_depth is None:
            # On the device of pos: custom_rasterizer compares the devices of all three, even of an empty tensor.
            clamp_depth = torch.zeros(0, device=getattr(pos, "device", None))
        if not self._checks_arguments:
            check_rasterize(pos, tri, resolution, self.device)
            # custom_rasterizer reads the memory of any tensor as if it were contiguous.
            pos, tri, clamp_depth = pos.contiguous(), tri.contiguous(), clamp_depth.contiguous()
        return self._implementation.rasterize(pos, tri, resolution, clamp_depth, use_depth_prior)

    def interpolate(
        self, col: torch.Tensor, findices: torch.Tensor, barycentric: torch.Tensor, tri: torch.Tensor
    ) -> torch.Tensor:
        """Return attributes float32 [1, N, C] at the pixels, [1, H, W, C], 0 in the background."""
        return self._implementation.interpolate(col, findices, barycentric, tri)


def _open_first(names: tuple[str, ...], device: torch.device) -> tuple[_Opened | None, dict[str, str]]:
    """Return the first backend that opens, and why the backends before it did not."""
    rejected: dict[str, str] = {}
    for name in names:
        try:
            return _OPENERS[name](device), rejected
        except _RejectedError as reason:
            rejected[name] = str(reason)
    return None, rejected


def _unavailable_message(backend: str, device: torch.device, rejected: dict[str, str]) -> str:
    reasons = "; ".join(f"{name}: {reason}" for name, reason in rejected.items())
    if backend == "auto":
        return f"no backend can rasterize on {device}: {reasons}"
    return f"backend {backend!r} cannot be used on {device}: {reasons}. backend='auto' selects the first usable backend"


def _reason_not_tried(name: str, selected: str, *, requested: bool) -> str:
    """Return why a backend was not tried, without importing it."""
    if requested:
        return f"backend={selected!r} was requested"
    available = name == "pytorch" or _is_installed(name)
    return f"{selected} is preferred" if available else f"{selected} is preferred; not installed"


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # The module is imported and has no spec.
        return True


def _open_pytorch(device: torch.device) -> _Opened:
    _require_device(device)
    # Imported here, so that a broken module of one backend does not prevent the import of this module.
    from torch_rasterizer.rasterizer import PyTorchRasterizer  # noqa: PLC0415

    return _Opened(_pytorch_mode(device), device, PyTorchRasterizer(device))


def _pytorch_mode(device: torch.device) -> str:
    if device.type == "cuda":
        return "pytorch_rocm" if torch.version.hip else "pytorch_cuda"
    return f"pytorch_{device.type}"


def _open_custom_rasterizer(device: torch.device) -> _Opened:
    _require_device(device, "cpu", "cuda")
    module = _import("custom_rasterizer")
    if getattr(module, "__torch_rasterizer__", False):
        raise _RejectedError(
            "the installed one is the package custom-rasterizer, not a compiled original: use 'pytorch'"
        )
    missing = [name for name in ("rasterize", "interpolate") if not callable(getattr(module, name, None))]
    if missing:
        raise _RejectedError(f"the module {_module_file(module)} lacks {' and '.join(missing)}")
    return _Opened("custom_rasterizer", device, cast("_Implementation", module), checks_arguments=False)


def _open_nvdiffrast(device: torch.device) -> _Opened:
    _require_device(device, "cuda")
    dr = _import("nvdiffrast.torch")
    from torch_rasterizer.nvdiffrast_adapter import NvdiffrastRasterizer  # noqa: PLC0415

    try:
        return _Opened("nvdiffrast", device, NvdiffrastRasterizer(dr, device))
    except Exception as error:  # Old releases compile here, which may raise any exception.
        raise _RejectedError(f"cannot create a context on {device}: {_summarize(error)}") from error


_OPENERS: dict[str, Callable[[torch.device], _Opened]] = {
    "pytorch": _open_pytorch,
    "custom_rasterizer": _open_custom_rasterizer,
    "nvdiffrast": _open_nvdiffrast,
}


def _require_device(device: torch.device, *types: str) -> None:
    if types and device.type not in types:
        raise _RejectedError(f"runs on {' and '.join(types)}, not on {device}")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise _RejectedError(f"torch {torch.__version__} finds no CUDA or ROCm device")
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        raise _RejectedError(f"torch finds {count} CUDA or ROCm devices, but no index {device.index}")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise _RejectedError(f"torch {torch.__version__} finds no MPS device")


def _import(name: str) -> ModuleType:
    if not _is_installed(name.partition(".")[0]):
        raise _RejectedError("not installed")
    try:
        return importlib.import_module(name)
    except Exception as error:  # A broken extension may raise any exception.
        raise _RejectedError(f"installed, but its import fails: {_summarize(error)}") from error


def _module_file(module: ModuleType) -> str:
    return str(getattr(module, "__file__", None) or module.__name__)


def _summarize(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0] if text else 'no message'}"
