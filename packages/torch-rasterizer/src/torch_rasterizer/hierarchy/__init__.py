"""The grid hierarchy of the texture pipeline, integer-equal to that of custom_rasterizer.

Three layered views of a surface (along z, x and y) become cells of a grid at several resolutions. Every cell has
neighbours in the view that faces it best, a parent, and flags of a checkerboard of even and odd cells.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from torch_rasterizer.hierarchy.checks import Arrays, check_points, to_arrays
from torch_rasterizer.hierarchy.grid import Floats, Ints, keys_of
from torch_rasterizer.hierarchy.levels import Level, coarser_level, finest_level, number_keys
from torch_rasterizer.hierarchy.neighbours import Links, link_cells
from torch_rasterizer.hierarchy.padding import Padded, pad
from torch_rasterizer.hierarchy.views import View, descend, look_up, make_view

__all__ = ["build_hierarchy", "build_hierarchy_with_feat"]


def build_hierarchy(
    view_layer_positions: Sequence[torch.Tensor],
    view_layer_normals: Sequence[torch.Tensor],
    num_level: int,
    resolution: int,
) -> list[list[torch.Tensor]]:
    """Build the grid hierarchy of three layered views.

    Args:
        view_layer_positions: three float32 [L, H, W, 4]: a point in [-1, 1] and its validity (> 0). View 0 has rows
        along
            +y and columns along +x, view 1 +y and +z, view 2 -z and +x.
        view_layer_normals: three float32 [L, H, W, 3].
        num_level: number of levels; each has half the resolution of the level before.
        resolution: cells along an axis of the finest level.

    Returns:
        [[positions, mask], neighbours, downsample, even, odd], all on the CPU. positions float32 [N0, 3] and mask
        float32 [N0] (1 for points, 0 for padding) belong to the finest level. The others are lists with one tensor per
        level: neighbours int64 [N, 9], row by row from the highest pixel row down, -1 where no cell exists; downsample
        int64 [N], the parent cell in the next level, without a tensor for the last level; even and odd int64 [N], 1 or
        0.

    Raises:
        TypeError, ValueError: if an argument does not match; the message names the argument.
    """
    arrays = to_arrays(view_layer_positions, view_layer_normals, None, num_level, resolution)
    return _build(arrays, num_level, resolution)


def build_hierarchy_with_feat(
    view_layer_positions: Sequence[torch.Tensor],
    view_layer_normals: Sequence[torch.Tensor],
    view_layer_feats: Sequence[torch.Tensor],
    num_level: int,
    resolution: int,
) -> list[list[torch.Tensor]]:
    """Build the grid hierarchy with features of the finest cells.

    view_layer_feats: three float32 [L, H, W, C]. Arguments and result are those of build_hierarchy, with features
    float32 [N0, C] between positions and mask; the features of padding cells are 0.5.
    """
    arrays = to_arrays(view_layer_positions, view_layer_normals, view_layer_feats, num_level, resolution)
    return _build(arrays, num_level, resolution)


def _build(arrays: Arrays, num_level: int, resolution: int) -> list[list[torch.Tensor]]:
    places = [np.flatnonzero(positions[..., 3] > 0) for positions in arrays.positions]
    points = _gather_pixels(arrays.positions, places)[:, :3]
    check_points(points, [len(part) for part in places], resolution)
    numbering = number_keys(keys_of(points, resolution))
    finest = finest_level(points, numbering, _select_pixels(arrays.normals, places, numbering.first), resolution)
    parts = np.split(numbering.ids, np.cumsum([len(part) for part in places])[:-1])
    views_by_level = [[make_view(*view, finest) for view in zip(arrays.positions, places, parts, strict=True)]]
    levels, parents = [finest], []
    regular = _is_regular(points, num_level, resolution)
    for _ in range(num_level - 1):
        level, up = coarser_level(levels[-1])
        views_by_level.append(
            [descend(view, level, up) if regular else look_up(view, level) for view in views_by_level[-1]]
        )
        levels.append(level)
        parents.append(up)
    links, padded = _link_and_pad(levels, parents, views_by_level)
    feats = _select_pixels(arrays.feats, places, numbering.first) if arrays.feats else None
    return [
        _point_cloud(points[numbering.first], feats, padded),
        [_integers(link.neighbours) for link in links],
        [_integers(level.parents) for level in padded],
        [_integers(link.even) for link in links],
        [_integers(link.odd) for link in links],
    ]


def _gather_pixels(images: Sequence[Floats], places: Sequence[Ints]) -> Floats:
    """Return the pixels [n, C] at flat indices of images [L, H, W, C], one view after another."""
    return np.concatenate([_pixels(image)[part] for image, part in zip(images, places, strict=True)])


def _pixels(image: Floats) -> Floats:
    return image.reshape(-1, image.shape[-1]) if image.size else image.reshape(0, image.shape[-1])


def _select_pixels(images: Sequence[Floats], places: Sequence[Ints], chosen: Ints) -> Floats:
    """Return the pixels [m, C] with the ascending indices ``chosen`` into the result of _gather_pixels."""
    ends = np.cumsum([len(part) for part in places])
    cuts = np.split(chosen, np.searchsorted(chosen, ends)[:-1])
    starts = ends - [len(part) for part in places]
    return _gather_pixels(images, [part[cut - start] for part, cut, start in zip(places, cuts, starts, strict=True)])


def _is_regular(points: Floats, num_level: int, resolution: int) -> bool:
    """Return whether the cell of a point at every level is the parent of its cell at the level before.

    This holds if resolutions halve evenly and all points are inside the grid: truncation then commutes with halving,
    and no two cells share a key.
    """
    if resolution % 2 ** (num_level - 1) or resolution**3 > 2**31 or not points.size:
        return False
    low, high = float(points.min()), float(points.max())
    return low >= -1.0 and (high * 0.5 + 0.5) * resolution < resolution


def _link_and_pad(
    levels: list[Level], parents: list[Ints], views_by_level: list[list[View]]
) -> tuple[list[Links], list[Padded]]:
    """Return the links of all levels, finest first, and the padding of all levels except the coarsest."""
    coarse = levels[-1]
    links = [link_cells(coarse, views_by_level[-1])]
    padded: list[Padded] = []
    for level, up, views in zip(levels[-2::-1], parents[::-1], views_by_level[-2::-1], strict=True):
        step = pad(coarse, level, link_cells(level, views), up)
        coarse = step.level
        links.insert(0, step.links)
        padded.insert(0, step)
    return links, padded


def _point_cloud(points: Floats, feats: Floats | None, padded: list[Padded]) -> list[torch.Tensor]:
    """Return positions, features and mask of the finest cells."""
    corners = padded[0].corners if padded else points[:0]
    mask = np.repeat(np.array([1, 0], np.float32), [len(points), len(corners)])
    cloud = [np.concatenate([points, corners]), mask]
    if feats is not None:
        blank = np.full((len(corners), feats.shape[1]), 0.5, np.float32)
        cloud.insert(1, np.concatenate([feats, blank]))
    return [torch.from_numpy(array) for array in cloud]


def _integers(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.astype(np.int64))
