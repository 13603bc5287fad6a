"""The grid of cells that hold blocks, and its place in the world.

A grid has [X, Y, Z] cells with y up. It is centred on the x and z axes of the world and stands on y = 0. A cell's edge
is ``world_scale`` world units long. Cells are ordered by y, then z, then x.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

Position = tuple[int, int, int]
Positions: TypeAlias = "Sequence[Position] | torch.Tensor"


@dataclass(frozen=True)
class Grid:
    """The number of cells along x, y and z, and the edge length of a cell in world units."""

    size: Position = (64, 48, 64)
    world_scale: float = 2.0

    def __post_init__(self) -> None:
        if len(self.size) != 3 or any(not isinstance(count, int) or count < 1 for count in self.size):
            raise ValueError(f"grid_size is {self.size!r}: expected three positive integers (x, y, z)")
        if not self.world_scale > 0:
            raise ValueError(f"world_scale is {self.world_scale}: expected a length > 0")

    @classmethod
    def of(cls, size: Sequence[int], world_scale: float = 2.0) -> Grid:
        """Return a grid with a size given as any sequence of three integers.

        Raises:
            ValueError: if the size is not three positive integers, or the scale is not positive.
        """
        found: Any = tuple(size)
        return cls(found, world_scale)

    @property
    def origin(self) -> tuple[float, float, float]:
        """The corner of cell (0, 0, 0), in cells."""
        return -self.size[0] / 2, 0.0, -self.size[2] / 2

    def positions(self, positions: Positions, device: torch.device | str | None = None) -> torch.Tensor:
        """Return the positions as int64 [N, 3] after checking that they are inside the grid and distinct.

        Raises:
            TypeError: if they are not integers.
            ValueError: if they are not [N, 3], or one is outside or occurs twice; the message names it.
        """
        found = _as_integers(positions, device)
        outside = ((found < 0) | (found >= found.new_tensor(self.size))).any(dim=1)
        if bool(outside.any()):
            at = int(outside.nonzero()[0])
            raise ValueError(
                f"positions[{at}] is {tuple(found[at].tolist())}: outside the grid of {self.size} cells (x, y, z)"
            )
        ordered, order = self.cells(found).sort(stable=True)
        same = (ordered[1:] == ordered[:-1]).nonzero()
        if len(same):
            first, second = (int(order[same[0, 0] + step]) for step in (0, 1))
            place = tuple(found[first].tolist())
            raise ValueError(f"positions[{first}] and positions[{second}] are both {place}: a cell holds one block")
        return found

    def cells(self, positions: torch.Tensor) -> torch.Tensor:
        """Return the number of each position's cell, int64 [N]."""
        x, y, z = positions.unbind(1)
        return (y * self.size[2] + z) * self.size[0] + x

    def is_in_bounds(self, position: Position) -> bool:
        """Return whether the grid has a cell at the position."""
        return all(0 <= at < count for at, count in zip(position, self.size, strict=True))


def _as_integers(positions: Positions, device: torch.device | str | None) -> torch.Tensor:
    try:
        found = torch.as_tensor(positions, device=device)
    except (TypeError, ValueError) as error:
        raise TypeError(f"positions: expected integers [N, 3], found {type(positions).__name__}: {error}") from error
    if not found.numel():
        return torch.zeros((0, 3), dtype=torch.int64, device=found.device)
    if found.is_floating_point() or found.is_complex() or found.dtype == torch.bool:
        raise TypeError(f"positions: expected integers, found {found.dtype}")
    if found.ndim != 2 or found.shape[1] != 3:
        raise ValueError(f"positions: expected [N, 3], found {list(found.shape)}")
    return found.long()
