"""Which samples a triangle covers, and the barycentrics there."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Samples:
    """Barycentrics of samples, and inside: not negative where the triangle covers them (NaN: not covered)."""

    alpha: torch.Tensor
    beta: torch.Tensor
    gamma: torch.Tensor
    inside: torch.Tensor


def rounded_barycentrics(
    dx: torch.Tensor,
    dy: torch.Tensor,
    e1x: torch.Tensor,
    e1y: torch.Tensor,
    e2x: torch.Tensor,
    e2y: torch.Tensor,
    inverse: torch.Tensor,
    *,
    doubles: bool = True,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """alpha, beta, gamma at (x0 + dx, y0 + dy), of edges as in triangles.Edges.

    beta = S(v0, p, v2) * inverse and gamma = S(v0, v1, p) * inverse, rounded operation for operation as the original's
    S(a, b, c) = (cx - ax)(by - ay) - (bx - ax)(cy - ay) is; alpha = 1 - beta - gamma in float64, rounded once.
    doubles: whether the device has float64.
    """
    # In place where a tensor is new: half the time of a large picture is spent on memory.
    beta = (dx * -e2y).add_(e2x * dy).mul_(inverse)
    gamma = (dx * e1y).sub_(e1x * dy).mul_(inverse)
    if doubles:
        return torch.rsub(beta.double(), 1.0).sub_(gamma).to(beta.dtype), beta, gamma
    return _rest(beta, gamma), beta, gamma


def exact_barycentrics(
    dx: torch.Tensor,
    dy: torch.Tensor,
    e1x: torch.Tensor,
    e1y: torch.Tensor,
    e2x: torch.Tensor,
    e2y: torch.Tensor,
    inverse: torch.Tensor,
    area: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As rounded_barycentrics, of triangles on a grid."""
    opposite1, opposite2 = e2x * dy - dx * e2y, dx * e1y - e1x * dy
    return ((area - opposite1) - opposite2) * inverse, opposite1 * inverse, opposite2 * inverse


def _rest(beta: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
    """1 - beta - gamma with the rounding errors of both steps added last (Knuth's TwoSum)."""
    first, error = _two_difference(torch.ones_like(beta), beta)
    second, error2 = _two_difference(first, gamma)
    return second + (error + error2)


def _two_difference(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    difference = a - b
    shadow = difference - a
    return difference, (a - (difference - shadow)) - (b + shadow)


def rounded(dx: torch.Tensor, dy: torch.Tensor, values: list[torch.Tensor], *, doubles: bool) -> Samples:
    """Every sample whose three rounded barycentrics are in [0, 1]: if none is negative, none is above 1."""
    alpha, beta, gamma = rounded_barycentrics(dx, dy, *values, doubles=doubles)
    return Samples(alpha, beta, gamma, torch.minimum(torch.minimum(alpha, beta), gamma))


def exact(dx: torch.Tensor, dy: torch.Tensor, values: list[torch.Tensor]) -> Samples:
    """Samples inside or on an owned edge, of triangles on a grid: float64 holds their edge functions exactly.

    values: those of exact_barycentrics, then for each corner how far inside of the edge opposite a sample must be.
    """
    e1x, e1y, e2x, e2y, inverse, area, tie0, tie1, tie2 = values
    opposite1, opposite2 = e2x * dy - dx * e2y, dx * e1y - e1x * dy
    opposite0 = (area - opposite1) - opposite2
    sign = torch.sign(inverse)
    inside = torch.minimum(torch.minimum(opposite0 * sign - tie0, opposite1 * sign - tie1), opposite2 * sign - tie2)
    return Samples(opposite0 * inverse, opposite1 * inverse, opposite2 * inverse, inside)
