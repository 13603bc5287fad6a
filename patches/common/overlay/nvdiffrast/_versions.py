"""Compares versions of torch and CUDA and the compute capabilities of GPUs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any


def torch_line(version: Any) -> str | None:
    """Return "2.14" for torch "2.14.1+cu130", or None if ``version`` is not a version."""
    found = re.match(r"\d+\.\d+", str(version or ""), re.ASCII)
    return found[0] if found else None


def cuda_major(version: Any) -> str:
    """Return "13" for CUDA "13.0"."""
    return str(version).partition(".")[0]


def cuda_tag(version: Any) -> str | None:
    """Return "cu130" for CUDA "13.0", or None if ``version`` is not a CUDA version."""
    text = str(version)
    return "cu" + text.replace(".", "") if re.fullmatch(r"\d+\.\d+", text, re.ASCII) else None


def numbers(text: Any) -> tuple[int, ...]:
    """Return the numbers in a version: (13, 2, 51) for "13.2.51"; (0,) if there is no number."""
    return tuple(map(int, re.findall(r"\d+", str(text)))) or (0,)


def has_kernels(sass: Iterable[Any], capability: Any) -> bool:
    """Return whether compiled kernels run on a GPU: kernels for the same or an older GPU of its generation do.

    sass: the compute capabilities of the kernels ("9.0"); capability: the compute capability of the GPU.
    """
    gpu = numbers(capability)
    return any(kernel[0] == gpu[0] and kernel <= gpu for kernel in map(numbers, sass))


def has_ptx(ptx: Iterable[Any], capability: Any) -> bool:
    """Return whether a driver can compile one of the PTX versions for a GPU: PTX for the same or any older GPU."""
    gpu = numbers(capability)
    return any(numbers(version) <= gpu for version in ptx)
