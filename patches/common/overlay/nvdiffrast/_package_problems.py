"""Describes problems of torch and numpy, for the loader and the doctor."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from . import _hints, _versions
from ._hints import Hint
from ._problem import Facts, Problem, first_line, with_hint

_OTHER_WHEEL = "To keep this torch, install the nvdiffrast wheel that is built for it."


def torch_absent(hint: Hint) -> Problem:
    """Return the problem that torch is not installed; ``hint`` installs it."""
    return with_hint("torch-absent", "torch is not installed", (f"This Python is {sys.executable}.",), hint)


def torch_broken(torch: Mapping[str, Any], hint: Hint) -> Problem:
    """Return the problem that importing torch fails; ``hint`` installs it again.

    ``torch`` is described at _installation.torch_facts.
    """
    summary = f"torch is installed, but its import fails: {first_line(str(torch['error']))}"
    return with_hint("torch-broken", summary, (str(torch.get("path")),), hint)


def numpy_absent(hint: Hint) -> Problem:
    """Return the problem that numpy is not installed; ``hint`` installs it."""
    summary = "numpy is not installed, and nvdiffrast needs it"
    return with_hint("numpy-absent", summary, (f"This Python is {sys.executable}.",), hint)


def is_numpy_installed() -> bool:
    """Return whether this Python finds numpy, without importing it."""
    return importlib.util.find_spec("numpy") is not None


def find_numpy_problem(facts: Facts) -> Iterator[Problem]:
    """Find the reason why numpy could not be imported."""
    if is_numpy_installed():
        summary = f"numpy is installed, but its import fails: {first_line(facts.text)}"
        yield Problem("numpy-broken", summary, (), "pip install --force-reinstall numpy")
    else:
        yield numpy_absent(_hints.rebuild_frozen() if _hints.is_frozen() else Hint("pip install numpy"))


def find_absent_torch(facts: Facts) -> Iterator[Problem]:
    """Find that torch is not installed."""
    if facts.torch is None:
        yield torch_absent(_hints.rebuild_frozen() if _hints.is_frozen() else _hints.install_torch(facts.info))


def find_broken_torch(facts: Facts) -> Iterator[Problem]:
    """Find that torch is installed but cannot be imported."""
    if facts.torch is not None and facts.torch.get("error"):
        yield torch_broken(facts.torch, facts.replace_torch())


def find_other_torch(facts: Facts) -> Iterator[Problem]:
    """Find that torch is not installed, or is not the torch that the wheel was built for."""
    yield from find_absent_torch(facts)
    if facts.torch is None or facts.torch.get("error") or facts.info is None:
        return
    built, installed = str(facts.info["torch"]), str(facts.torch["version"])
    built_cuda, cuda = str(facts.info["cuda"]), facts.torch.get("cuda")
    if _versions.torch_line(built) != _versions.torch_line(installed):
        summary = f"the wheel was built for torch {built}, and torch {installed} is installed"
        yield with_hint("torch-other-version", summary, (_OTHER_WHEEL,), facts.replace_torch())
    elif not cuda:
        target = "ROCm" if facts.torch.get("hip") else "the CPU"
        summary = f"the wheel was built for CUDA {built_cuda}, and the installed torch is for {target}: {installed}"
        yield with_hint("torch-cpu-only", summary, (str(facts.torch["path"]),), facts.replace_torch())
    elif _versions.cuda_major(cuda) != _versions.cuda_major(built_cuda):
        summary = f"the wheel was built for CUDA {built_cuda}, and the installed torch is for CUDA {cuda}"
        yield with_hint("cuda-other-major", summary, (_OTHER_WHEEL,), facts.replace_torch())
