"""Clip triangles in clip space at the planes of the view volume (Sutherland and Hodgman, 1974)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from torch_rasterizer.convention import Convention

#: Coefficients of (x, y, z, w) whose sum is >= 0 inside the volume; the convention gives the two depth planes.
_SIDES = ((1.0, 0.0, 0.0, 1.0), (-1.0, 0.0, 0.0, 1.0), (0.0, 1.0, 0.0, 1.0), (0.0, -1.0, 0.0, 1.0))


@dataclass(frozen=True)
class Mesh:
    """Triangles after clipping.

    positions: float [N, 4]. faces: int32 [T, 3]. owner: int64 [T], the input face that each triangle is a part of.
    weights: float64 [T, 3, 3], the barycentrics of each triangle's corners in its owner; None if no face was cut.
    """

    positions: torch.Tensor
    faces: torch.Tensor
    owner: torch.Tensor
    weights: torch.Tensor | None
    #: Whether the triangles are exactly the input faces.
    unchanged: bool


@dataclass(frozen=True)
class _LooseTriangles:
    """Triangles without shared vertices: corners [T, 3, 4], their weights in the owner [T, 3, 3], owner [T]."""

    corners: torch.Tensor
    weights: torch.Tensor
    owner: torch.Tensor

    def take(self, index: torch.Tensor) -> _LooseTriangles:
        return _LooseTriangles(self.corners[index], self.weights[index], self.owner[index])


def clip(positions: torch.Tensor, faces: torch.Tensor, convention: Convention) -> Mesh:
    """Clip faces int32 [M, 3] with positions [N, 4] at the planes that the convention names.

    Vertices of faces that need no cut stay unchanged. New vertices are computed in float64, from the inner end of an
    edge to the outer end, and rounded to the dtype of positions: adjacent triangles get identical vertices.
    """
    planes = _planes(convention).to(positions)
    all_faces = torch.arange(len(faces), device=faces.device)
    if not len(planes) or not len(faces):
        return Mesh(positions, faces, all_faces, None, True)
    inside = positions.detach() @ planes.T >= 0
    corners = inside[faces.long()]
    # A triangle with all corners outside one plane is dropped. A corner with a NaN is outside every plane.
    kept, whole = corners.any(dim=1).all(dim=1), corners.all(dim=2).all(dim=1)
    uncut, cut = whole.nonzero().squeeze(1), (kept & ~whole).nonzero().squeeze(1)
    if not len(cut):
        return Mesh(positions, faces[uncut], uncut, None, len(uncut) == len(faces))
    eye = torch.eye(3, dtype=torch.float64, device=faces.device).expand(len(cut), 3, 3)
    loose = _LooseTriangles(positions[faces[cut].long()].double(), eye, cut)
    for plane in planes.double():
        loose = _cut_at_plane(loose, plane)
    return _merge(positions, faces[uncut], uncut, loose)


def _planes(convention: Convention) -> torch.Tensor:
    if convention.clip == "none":
        return torch.zeros(0, 4)
    scale, offset = convention.depth_scale, convention.depth_offset
    depth = ((0.0, 0.0, scale, offset), (0.0, 0.0, -scale, 1 - offset))
    return torch.tensor(depth if convention.clip == "depth" else depth + _SIDES)


def _cut_at_plane(loose: _LooseTriangles, plane: torch.Tensor) -> _LooseTriangles:
    """Return the parts of the triangles on the inner side of a plane."""
    distance = loose.corners @ plane
    inside = distance >= 0
    count = inside.sum(dim=1)
    parts = [loose.take((count == 3).nonzero().squeeze(1))]
    # Reorder the corners: a single inner corner comes first, a pair of inner corners first and second.
    turn = torch.where(count == 1, inside.to(torch.uint8).argmax(dim=1), (inside.to(torch.uint8).argmin(dim=1) + 1) % 3)
    order = (turn[:, None] + torch.arange(3, device=turn.device)) % 3
    turned = _LooseTriangles(_reorder(loose.corners, order), _reorder(loose.weights, order), loose.owner)
    distance = distance.gather(1, order)
    for corners, pairs in ((1, _ONE), (2, _TWO)):
        index = (count == corners).nonzero().squeeze(1)
        if len(index):
            parts += [_make_part(turned.take(index), distance[index], pair) for pair in pairs]
    return _LooseTriangles(
        *(torch.cat([getattr(part, name) for part in parts]) for name in ("corners", "weights", "owner"))
    )


#: Corners of the resulting triangles: (i, i) is corner i, (i, o) the cut point on the edge from corner i to corner o.
_ONE = (((0, 0), (0, 1), (0, 2)),)
_TWO = (((0, 0), (1, 1), (1, 2)), ((0, 0), (1, 2), (0, 2)))


def _reorder(values: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    return values.gather(1, order[:, :, None].expand_as(values))


def _make_part(loose: _LooseTriangles, distance: torch.Tensor, pairs: tuple[tuple[int, int], ...]) -> _LooseTriangles:
    corners, weights = [], []
    for inner, outer in pairs:
        if inner == outer:
            corners.append(loose.corners[:, inner])
            weights.append(loose.weights[:, inner])
            continue
        share = (distance[:, inner] / (distance[:, inner] - distance[:, outer]))[:, None]
        corners.append(loose.corners[:, inner] + (loose.corners[:, outer] - loose.corners[:, inner]) * share)
        weights.append(loose.weights[:, inner] + (loose.weights[:, outer] - loose.weights[:, inner]) * share)
    return _LooseTriangles(torch.stack(corners, dim=1), torch.stack(weights, dim=1), loose.owner)


def _merge(positions: torch.Tensor, faces: torch.Tensor, owner: torch.Tensor, loose: _LooseTriangles) -> Mesh:
    count, first = len(loose.owner), len(positions)
    new_faces = torch.arange(first, first + 3 * count, dtype=torch.int32, device=faces.device).reshape(count, 3)
    eye = torch.eye(3, dtype=torch.float64, device=faces.device).expand(len(faces), 3, 3)
    owners = torch.cat([owner, loose.owner])
    # Keep the order of the faces: among equal depths the first face wins.
    order = torch.argsort(owners, stable=True)
    return Mesh(
        torch.cat([positions, loose.corners.reshape(-1, 4).to(positions.dtype)]),
        torch.cat([faces, new_faces])[order],
        owners[order],
        torch.cat([eye, loose.weights])[order],
        False,
    )
