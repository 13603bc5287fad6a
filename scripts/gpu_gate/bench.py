"""What a check of the GPU gate gets, and what it gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

State = Literal["passed", "failed", "untested", "known"]
Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Bench:
    """What checks work with.

    ``dr`` is nvdiffrast.torch, or what stands in for it in tests; ``device`` is torch's name of where to compute;
    ``context`` makes a rasterizer's context; ``release`` is upstream's version; ``known_faults`` are the names of
    checks that this release is known to fail, which then count as "known".
    """

    dr: Any
    torch: Any
    device: str
    context: Callable[[], Any]
    release: str
    known_faults: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Outcome:
    """What came out: figures to keep, and small images uint8 <H,W,3> for people to look at."""

    state: State
    detail: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)
    images: Mapping[str, Image] = field(default_factory=dict)


@dataclass(frozen=True)
class Check:
    """One thing that must hold; an exception that ``run`` lets out counts as failed."""

    name: str
    run: Callable[[Bench], Outcome]
    needs_gpu: bool = True
