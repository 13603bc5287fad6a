"""Describes problems of NVIDIA's driver and the GPUs, for the diagnosis and the doctor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from . import _versions
from ._problem import Problem

# The oldest driver that runs the CUDA runtime of each major version.
_OLDEST_DRIVER = {"11": "450", "12": "525", "13": "580"}


def driver_missing() -> Problem:
    """Return the problem that the system has no NVIDIA driver."""
    advice = "Install NVIDIA's driver. Start a container with access to the GPUs (--gpus all)."
    return Problem("driver-missing", "there is no NVIDIA driver", (advice,), "")


def find(
    driver: Mapping[str, Any] | None, devices: Iterable[Mapping[str, Any]], info: Mapping[str, Any] | None
) -> list[Problem]:
    """Return the problems of the driver, or of the GPUs if the driver has no problem.

    driver, devices: as _installation.driver and _installation.devices return them; info: the content of
    build_info.json, or None if it cannot be read.
    """
    if driver is None:
        return [driver_missing()]
    if info is None:
        return []
    built, supported = str(info["cuda"]), driver.get("cuda")
    if supported and int(_versions.cuda_major(supported)) < int(_versions.cuda_major(built)):
        return [_old_driver(driver.get("version"), built, supported)]
    return [problem for device in devices for problem in _find_missing_kernels(device, info, supported)]


def _old_driver(version: Any, built: str, supported: str) -> Problem:
    oldest = _OLDEST_DRIVER.get(_versions.cuda_major(built))
    driver = f"driver {oldest} or newer" if oldest else "a newer driver"
    name = f"the driver {version}" if version else "the driver"
    summary = f"{name} supports CUDA up to {supported}, and the wheel was built for CUDA {built}"
    return Problem("driver-too-old", summary, (f"Install {driver}, or a wheel for CUDA {supported}.",), "")


def _find_missing_kernels(
    device: Mapping[str, Any], info: Mapping[str, Any], supported: str | None
) -> Iterator[Problem]:
    """Find that the wheel cannot run on a GPU; ``supported`` is the newest CUDA that the driver supports."""
    architectures = info.get("architectures")
    if not isinstance(architectures, dict):
        return
    sass, ptx = (architectures.get(kind) or () for kind in ("sass", "ptx"))
    capability = device["capability"]
    if _versions.has_kernels(sass, capability):
        return
    if _versions.has_ptx(ptx, capability):
        yield from _find_untranslatable_ptx(device, info, supported)
        return
    summary = f"the wheel has no kernels for {device['name']}, compute capability {capability}"
    details = (
        f"The wheel has kernels for {_listed(sass)}, and PTX for {_listed(ptx)}; only newer GPUs can use the PTX.",
        f"Install a wheel that is built for {capability}.",
    )
    yield Problem("no-kernel", summary, details, "")


def _find_untranslatable_ptx(
    device: Mapping[str, Any], info: Mapping[str, Any], supported: str | None
) -> Iterator[Problem]:
    """Find that the driver is older than the compiler that wrote the PTX; only then it cannot translate the PTX."""
    compiler = info.get("compiler")
    nvcc = compiler.get("nvcc") if isinstance(compiler, dict) else None
    written = str(nvcc or info["cuda"])
    if supported and _versions.numbers(supported)[:2] < _versions.numbers(written)[:2]:
        summary = (
            f"{device['name']} needs the wheel's PTX, which CUDA {written} wrote; the driver translates PTX of CUDA up "
            f"to {supported}"
        )
        advice = f"Install a newer driver, or a wheel that is built for {device['capability']}."
        yield Problem("driver-too-old", summary, (advice,), "")


def _listed(capabilities: Iterable[Any]) -> str:
    return ", ".join(map(str, capabilities)) or "nothing"
