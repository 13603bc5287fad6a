"""Types shared by all checks: a check, what it runs on, and what it returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

# "known": the check met only faults that the upstream release is known to have. They do not fail a wheel.
State = Literal["passed", "failed", "untested", "known"]
STATES: tuple[State, ...] = ("passed", "failed", "untested", "known")


@dataclass(frozen=True)
class Bench:
    """The test bench: the nvdiffrast module under test, and the torch and device to test it with.

    Attributes:
        dr: nvdiffrast.torch, or an object with the same interface.
        torch: The module torch.
        device: The device that tensors are created on ("cuda:0").
        context: Creates a new rasterizer context.
        release: The upstream release ("0.3.3.1").
        known_faults: The names of the faults that the release is known to have (see faults.py).
    """

    dr: Any
    torch: Any
    device: str
    context: Callable[[], Any]
    release: str = ""
    known_faults: frozenset[str] = frozenset()


def describe_error(error: Exception) -> str:
    """Return the line of an error with the diagnosis of nvdiffrast's loader ("[code] ..."), else its last line."""
    lines = f"{type(error).__name__}: {error}".strip().splitlines()
    return next((line for line in lines if line.startswith("[")), lines[-1])


@dataclass(frozen=True)
class Outcome:
    """What a check returns.

    Attributes:
        state: Whether the check passed.
        detail: One line of text for the reader.
        figures: Measured numbers for the record.
        images: Small images [H, W, 3] uint8 for the contact sheet, top row first.
    """

    state: State
    detail: str = ""
    figures: dict[str, float] = field(default_factory=dict)
    images: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Check:
    """A named check. A check that raises an exception has failed.

    Attributes:
        name: A unique name.
        run: The function that runs the check.
        needs_gpu: If true, the check is reported as untested on a machine without a GPU.
        optional: If true, a wheel passes even if this check is untested on a machine with a GPU, for example because
            the release or the machine lacks a feature.
    """

    name: str
    run: Callable[[Bench], Outcome]
    needs_gpu: bool = True
    optional: bool = False
