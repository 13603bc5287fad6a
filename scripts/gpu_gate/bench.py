"""What a check is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

# "known": it went wrong in the way that the release is known for, which does not fail a wheel.
State = Literal["passed", "failed", "untested", "known"]
STATES: tuple[State, ...] = ("passed", "failed", "untested", "known")


@dataclass(frozen=True)
class Bench:
    """The place where checks are made.

    ``dr`` is nvdiffrast.torch (or something that behaves so), ``torch`` the torch beside it, ``device`` what tensors
    are made on ("cuda:0"). ``context`` makes a new rasterizer context. ``release`` is upstream's ("0.3.3.1"), and
    ``known_faults`` names what that release is known to do wrong (see faults.py).
    """

    dr: Any
    torch: Any
    device: str
    context: Callable[[], Any]
    release: str = ""
    known_faults: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Outcome:
    """What a check found.

    ``detail`` is a line for people, ``figures`` numbers for the record, ``images`` small pictures for the contact
    sheet: <H,W,3> uint8, the top row first.
    """

    state: State
    detail: str = ""
    figures: dict[str, float] = field(default_factory=dict)
    images: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Check:
    """A named check; one that raises has failed.

    ``needs_gpu``: without a GPU it is untested, not run. ``optional``: it may be untested on a GPU as well, where the
    release or the machine lacks what it is about, and the wheel passes none the less.
    """

    name: str
    run: Callable[[Bench], Outcome]
    needs_gpu: bool = True
    optional: bool = False
