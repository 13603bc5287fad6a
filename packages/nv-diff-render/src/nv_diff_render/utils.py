"""Conversions from cells to world, clip and screen coordinates."""

from __future__ import annotations

import torch

from nv_diff_render.grid import Grid, Position
from nv_diff_render.mesh_builder import CORNERS


def block_to_world(
    position: Position, grid_size: Position = (64, 48, 64), world_scale: float = 2.0
) -> tuple[float, float, float]:
    """Return the world position of the corner of a block with the smallest coordinates.

    Raises:
        ValueError: if the position is outside the grid.
    """
    return get_face_vertex_world(position, (0, 0, 0), grid_size, world_scale)


def get_face_vertex_world(
    position: Position,
    corner: Position | tuple[int, int],
    grid_size: Position = (64, 48, 64),
    world_scale: float = 2.0,
) -> tuple[float, float, float]:
    """Return the world position of a corner of a block.

    ``corner`` is given by its bits (x, y, z), or by side (0 to 5) and number (0 to 3) on this side.

    Raises:
        ValueError: if the position is outside the grid.
    """
    grid = Grid.of(grid_size, world_scale)
    if not grid.is_in_bounds(position):
        raise ValueError(f"position {tuple(position)} is outside the grid of {grid.size} cells (x, y, z)")
    bits = CORNERS[corner[0]][corner[1]] if len(corner) == 2 else corner
    x, y, z = ((at + bit + first) * world_scale for at, bit, first in zip(position, bits, grid.origin, strict=True))
    return x, y, z


def is_in_bounds(position: Position, grid_size: Position = (64, 48, 64)) -> bool:
    """Return whether a grid of this size has the cell."""
    return Grid.of(grid_size).is_in_bounds(position)


def view_projection(view: torch.Tensor, projection: torch.Tensor) -> torch.Tensor:
    """Return projection @ view, float32 [B, 4, 4], of matrices [4, 4] or [B, 4, 4]; float64 products are rounded once.

    Raises:
        ValueError: if the matrices have the wrong shape, different batch sizes, are not finite, or are singular.
    """
    for name, matrix in (("camera_view", view), ("camera_proj", projection)):
        if matrix.ndim not in (2, 3) or matrix.shape[-2:] != (4, 4):
            raise ValueError(f"{name}: expected [4, 4] or [B, 4, 4], found {list(matrix.shape)}")
        if not bool(matrix.isfinite().all()):
            raise ValueError(f"{name}: expected finite numbers")
        if not bool((torch.linalg.det(matrix.double()) != 0).all()):
            raise ValueError(f"{name}: expected an invertible matrix, found a singular one")
    views, projections = (matrix.detach().double().reshape(-1, 4, 4) for matrix in (view, projection))
    if len(views) != len(projections) and 1 not in (len(views), len(projections)):
        raise ValueError(f"camera_view, camera_proj: found {len(views)} views but {len(projections)} projections")
    return (projections @ views).float()


def world_to_clip(points: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Return points [N, 3] in clip space [N, 4], for a view-projection matrix [4, 4].

    The products are summed from the last column to the first, as GPU compilers do: other orders move some edges by a
    pixel.
    """
    x, y, z = (points[:, axis, None] for axis in range(3))
    return matrix[:, 0] * x + (matrix[:, 1] * y + (matrix[:, 2] * z + matrix[:, 3]))


def clip_to_ndc(clip: torch.Tensor) -> torch.Tensor:
    """Return clip space [N, 4] divided by w: [N, 3] with x and y in [-1, 1], y up."""
    return clip[:, :3] / clip[:, 3:]


def ndc_to_screen(ndc: torch.Tensor, img_h: int, img_w: int) -> torch.Tensor:
    """Return normalized coordinates [N, 2+] in pixels [N, 2]; (0, 0) is the upper left corner of the picture."""
    return torch.stack([(0.5 + 0.5 * ndc[:, 0]) * img_w, (0.5 - 0.5 * ndc[:, 1]) * img_h], dim=1)
