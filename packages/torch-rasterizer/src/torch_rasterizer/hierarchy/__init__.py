"""The grid hierarchy of the texture pipeline, integer-equal to custom_rasterizer's.

Three views of a surface (along z, x and y), each of several layers, become cells of a grid at several resolutions, with
neighbours in the view each cell is seen best from, parents, and a checkerboard of even and odd cells.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from torch_rasterizer.hierarchy.checks import Arrays, check_points, checked
from torch_rasterizer.hierarchy.grid import Floats, Ints, keys_of
from torch_rasterizer.hierarchy.levels import Level, coarser, finest_level, number
from torch_rasterizer.hierarchy.neighbours import Links, link
from torch_rasterizer.hierarchy.padding import Padded, pad
from torch_rasterizer.hierarchy.views import View, descend, look_up, view_of

__all__ = ["build_hierarchy", "build_hierarchy_with_feat"]


def build_hierarchy(
    view_layer_positions: Sequence[torch.Tensor],
    view_layer_normals: Sequence[torch.Tensor],
    num_level: int,
    resolution: int,
) -> list[list[torch.Tensor]]:
    """Build the grid hierarchy of three layered views.

    view_layer_positions: three float32 <L,H,W,4>, a point in [-1,1] and whether it is valid (> 0); view 0 has rows
    along +y and columns along +x, view 1 +y and +z, view 2 -z and +x. view_layer_normals: three float32 <L,H,W,3>.
    num_level: levels, each of half the resolution of the one before; resolution: cells along an axis of the finest.

    Returns [[positions float32 <N0,3>, mask float32 <N0> (1 of a point, 0 padding)], neighbours, downsample, even,
    odd]: for each level int64 <N,9> (pixel rows from the highest down, -1 for none), int64 <N> (the cell of the next
    level; no such tensor for the last level), int64 <N> and int64 <N> (1 or 0), all on the CPU.

    Raises TypeError or ValueError, with the argument, what is expected and what was found.
    """
    arrays = checked(view_layer_positions, view_layer_normals, None, num_level, resolution)
    return _build(arrays, num_level, resolution)


def build_hierarchy_with_feat(
    view_layer_positions: Sequence[torch.Tensor],
    view_layer_normals: Sequence[torch.Tensor],
    view_layer_feats: Sequence[torch.Tensor],
    num_level: int,
    resolution: int,
) -> list[list[torch.Tensor]]:
    """Build the grid hierarchy with a feature of each finest cell: view_layer_feats are three float32 <L,H,W,C>.

    As build_hierarchy, with features float32 <N0,C> between positions and mask; a padded cell's are 0.5.
    """
    arrays = checked(view_layer_positions, view_layer_normals, view_layer_feats, num_level, resolution)
    return _build(arrays, num_level, resolution)


def _build(arrays: Arrays, num_level: int, resolution: int) -> list[list[torch.Tensor]]:
    places = [np.flatnonzero(positions[..., 3] > 0) for positions in arrays.positions]
    points = _gather(arrays.positions, places)[:, :3]
    check_points(points, [len(part) for part in places], resolution)
    numbering = number(keys_of(points, resolution))
    finest = finest_level(points, numbering, _pick(arrays.normals, places, numbering.first), resolution)
    parts = np.split(numbering.ids, np.cumsum([len(part) for part in places])[:-1])
    seen = [[view_of(*view, finest) for view in zip(arrays.positions, places, parts, strict=True)]]
    levels, parents = [finest], []
    regular = _is_regular(points, num_level, resolution)
    for _ in range(num_level - 1):
        level, up = coarser(levels[-1])
        seen.append([descend(view, level, up) if regular else look_up(view, level) for view in seen[-1]])
        levels.append(level)
        parents.append(up)
    links, padded = _link_and_pad(levels, parents, seen)
    feats = _pick(arrays.feats, places, numbering.first) if arrays.feats else None
    return [
        _cloud(points[numbering.first], feats, padded),
        [_integers(link.neighbours) for link in links],
        [_integers(level.parents) for level in padded],
        [_integers(link.even) for link in links],
        [_integers(link.odd) for link in links],
    ]


def _gather(images: Sequence[Floats], places: Sequence[Ints]) -> Floats:
    """The pixels <n,C> at flat places of images <L,H,W,C>, one view after another."""
    return np.concatenate([_pixels(image)[part] for image, part in zip(images, places, strict=True)])


def _pixels(image: Floats) -> Floats:
    return image.reshape(-1, image.shape[-1]) if image.size else image.reshape(0, image.shape[-1])


def _pick(images: Sequence[Floats], places: Sequence[Ints], chosen: Ints) -> Floats:
    """The pixels <m,C> that are `chosen`, ascending, of those _gather would give."""
    ends = np.cumsum([len(part) for part in places])
    cuts = np.split(chosen, np.searchsorted(chosen, ends)[:-1])
    starts = ends - [len(part) for part in places]
    return _gather(images, [part[cut - start] for part, cut, start in zip(places, cuts, starts, strict=True)])


def _is_regular(points: Floats, num_level: int, resolution: int) -> bool:
    """Whether a point's cell at every level is the parent of its cell at the level before.

    So it is where resolutions halve evenly and points are inside the grid: truncation then commutes with halving, and
    no two cells share a key.
    """
    if resolution % 2 ** (num_level - 1) or resolution**3 > 2**31 or not points.size:
        return False
    low, high = float(points.min()), float(points.max())
    return low >= -1.0 and (high * 0.5 + 0.5) * resolution < resolution


def _link_and_pad(levels: list[Level], parents: list[Ints], seen: list[list[View]]) -> tuple[list[Links], list[Padded]]:
    """The links of all levels, finest first, and the padding of all but the coarsest."""
    coarse = levels[-1]
    links = [link(coarse, seen[-1])]
    padded: list[Padded] = []
    for level, up, views in zip(levels[-2::-1], parents[::-1], seen[-2::-1], strict=True):
        step = pad(coarse, level, link(level, views), up)
        coarse = step.level
        links.insert(0, step.links)
        padded.insert(0, step)
    return links, padded


def _cloud(points: Floats, feats: Floats | None, padded: list[Padded]) -> list[torch.Tensor]:
    """Positions, features and mask of the finest cells."""
    corners = padded[0].corners if padded else points[:0]
    mask = np.repeat(np.array([1, 0], np.float32), [len(points), len(corners)])
    cloud = [np.concatenate([points, corners]), mask]
    if feats is not None:
        blank = np.full((len(corners), feats.shape[1]), 0.5, np.float32)
        cloud.insert(1, np.concatenate([feats, blank]))
    return [torch.from_numpy(array) for array in cloud]


def _integers(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.astype(np.int64))
