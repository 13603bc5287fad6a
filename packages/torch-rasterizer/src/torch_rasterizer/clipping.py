"""Cuts triangles at the planes of the view volume, in clip space (Sutherland and Hodgman, 1974)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from torch_rasterizer.convention import Convention

#: Coefficients of (x, y, z, w) that are not negative inside: the depth planes come from the convention.
_SIDES = ((1.0, 0.0, 0.0, 1.0), (-1.0, 0.0, 0.0, 1.0), (0.0, 1.0, 0.0, 1.0), (0.0, -1.0, 0.0, 1.0))


@dataclass(frozen=True)
class Mesh:
    """Triangles after clipping: positions <N,4>, faces int32 <T,3>, owner <T> int64 (the face each is a part of).

    weights float64 <T,3,3>: for each corner of a triangle its barycentrics in the owner; None if none was cut.
    """

    positions: torch.Tensor
    faces: torch.Tensor
    owner: torch.Tensor
    weights: torch.Tensor | None
    #: Whether the triangles are the faces, all of them.
    whole: bool


@dataclass(frozen=True)
class _Soup:
    """Triangles that share no vertices: corners <T,3,4>, their weights in their owners <T,3,3>, owner <T>."""

    corners: torch.Tensor
    weights: torch.Tensor
    owner: torch.Tensor

    def take(self, index: torch.Tensor) -> _Soup:
        return _Soup(self.corners[index], self.weights[index], self.owner[index])


def clip(positions: torch.Tensor, faces: torch.Tensor, convention: Convention) -> Mesh:
    """Cut the faces int32 <M,3> of positions <N,4> at the planes that the convention names.

    The corners of a mesh that needs no cut are left as they are. New corners are computed in float64 and rounded to
    the dtype of positions, from the inner end of an edge to the outer, so that neighbours get the same point.
    """
    planes = _planes(convention).to(positions)
    everything = torch.arange(len(faces), device=faces.device)
    if not len(planes) or not len(faces):
        return Mesh(positions, faces, everything, None, True)
    inside = positions.detach() @ planes.T >= 0
    corners = inside[faces.long()]
    # A triangle that is outside of one plane as a whole is gone; a NaN is inside of none.
    kept, whole = corners.any(dim=1).all(dim=1), corners.all(dim=2).all(dim=1)
    uncut, cut = whole.nonzero().squeeze(1), (kept & ~whole).nonzero().squeeze(1)
    if not len(cut):
        return Mesh(positions, faces[uncut], uncut, None, len(uncut) == len(faces))
    eye = torch.eye(3, dtype=torch.float64, device=faces.device).expand(len(cut), 3, 3)
    soup = _Soup(positions[faces[cut].long()].double(), eye, cut)
    for plane in planes.double():
        soup = _cut(soup, plane)
    return _merge(positions, faces[uncut], uncut, soup)


def _planes(convention: Convention) -> torch.Tensor:
    if convention.clip == "none":
        return torch.zeros(0, 4)
    scale, offset = convention.depth_scale, convention.depth_offset
    depth = ((0.0, 0.0, scale, offset), (0.0, 0.0, -scale, 1 - offset))
    return torch.tensor(depth if convention.clip == "depth" else depth + _SIDES)


def _cut(soup: _Soup, plane: torch.Tensor) -> _Soup:
    """The parts of triangles on the inner side of a plane."""
    distance = soup.corners @ plane
    inside = distance >= 0
    count = inside.sum(dim=1)
    parts = [soup.take((count == 3).nonzero().squeeze(1))]
    # Turned so that with one corner inside it is the first, and with two they are the first and the second.
    turn = torch.where(count == 1, inside.to(torch.uint8).argmax(dim=1), (inside.to(torch.uint8).argmin(dim=1) + 1) % 3)
    order = (turn[:, None] + torch.arange(3, device=turn.device)) % 3
    turned = _Soup(_turn(soup.corners, order), _turn(soup.weights, order), soup.owner)
    distance = distance.gather(1, order)
    for corners, pairs in ((1, _ONE), (2, _TWO)):
        index = (count == corners).nonzero().squeeze(1)
        if len(index):
            parts += [_part(turned.take(index), distance[index], pair) for pair in pairs]
    return _Soup(*(torch.cat([getattr(part, name) for part in parts]) for name in ("corners", "weights", "owner")))


#: Corners of the parts: (i, i) is corner i, (i, o) the point between inner corner i and outer corner o.
_ONE = (((0, 0), (0, 1), (0, 2)),)
_TWO = (((0, 0), (1, 1), (1, 2)), ((0, 0), (1, 2), (0, 2)))


def _turn(values: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    return values.gather(1, order[:, :, None].expand_as(values))


def _part(soup: _Soup, distance: torch.Tensor, pairs: tuple[tuple[int, int], ...]) -> _Soup:
    corners, weights = [], []
    for inner, outer in pairs:
        if inner == outer:
            corners.append(soup.corners[:, inner])
            weights.append(soup.weights[:, inner])
            continue
        share = (distance[:, inner] / (distance[:, inner] - distance[:, outer]))[:, None]
        corners.append(soup.corners[:, inner] + (soup.corners[:, outer] - soup.corners[:, inner]) * share)
        weights.append(soup.weights[:, inner] + (soup.weights[:, outer] - soup.weights[:, inner]) * share)
    return _Soup(torch.stack(corners, dim=1), torch.stack(weights, dim=1), soup.owner)


def _merge(positions: torch.Tensor, faces: torch.Tensor, owner: torch.Tensor, soup: _Soup) -> Mesh:
    count, first = len(soup.owner), len(positions)
    new_faces = torch.arange(first, first + 3 * count, dtype=torch.int32, device=faces.device).reshape(count, 3)
    eye = torch.eye(3, dtype=torch.float64, device=faces.device).expand(len(faces), 3, 3)
    owners = torch.cat([owner, soup.owner])
    # In the order of the faces, which settles ties of depth.
    order = torch.argsort(owners, stable=True)
    return Mesh(
        torch.cat([positions, soup.corners.reshape(-1, 4).to(positions.dtype)]),
        torch.cat([faces, new_faces])[order],
        owners[order],
        torch.cat([eye, soup.weights])[order],
        False,
    )
