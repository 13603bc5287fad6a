"""Coverage of samples by triangles, and the barycentrics of the samples."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Samples:
    """Barycentrics of samples. inside: >= 0 where the triangle covers the sample; a NaN means not covered."""

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
    has_float64: bool = True,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return alpha, beta and gamma at (x0 + dx, y0 + dy) for edges as in triangles.Edges.

    beta = S(v0, p, v2) * inverse and gamma = S(v0, v1, p) * inverse, with every operation rounded in the same order as
    in custom_rasterizer, where S(a, b, c) = (cx - ax)(by - ay) - (bx - ax)(cy - ay). alpha = 1 - beta - gamma in
    float64, rounded once. has_float64: whether the device supports float64.
    """
    # New tensors are modified in place: memory traffic takes half the time of a large picture.
    beta = (dx * -e2y).add_(e2x * dy).mul_(inverse)
    gamma = (dx * e1y).sub_(e1x * dy).mul_(inverse)
    if has_float64:
        return torch.rsub(beta.double(), 1.0).sub_(gamma).to(beta.dtype), beta, gamma
    return _one_minus(beta, gamma), beta, gamma


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
    """Return alpha, beta and gamma like rounded_barycentrics, for triangles with vertices on the subpixel grid."""
    opposite1, opposite2 = e2x * dy - dx * e2y, dx * e1y - e1x * dy
    return ((area - opposite1) - opposite2) * inverse, opposite1 * inverse, opposite2 * inverse


def _one_minus(beta: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
    """Return 1 - beta - gamma, adding the rounding errors of both subtractions last (Knuth's TwoSum)."""
    first, error = _two_difference(torch.ones_like(beta), beta)
    second, error2 = _two_difference(first, gamma)
    return second + (error + error2)


def _two_difference(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    difference = a - b
    shadow = difference - a
    return difference, (a - (difference - shadow)) - (b + shadow)


def sample_rounded(dx: torch.Tensor, dy: torch.Tensor, values: list[torch.Tensor], *, has_float64: bool) -> Samples:
    """Cover every sample whose three rounded barycentrics are in [0, 1]; none exceeds 1 if all are >= 0."""
    alpha, beta, gamma = rounded_barycentrics(dx, dy, *values, has_float64=has_float64)
    return Samples(alpha, beta, gamma, torch.minimum(torch.minimum(alpha, beta), gamma))


def sample_exact(dx: torch.Tensor, dy: torch.Tensor, values: list[torch.Tensor]) -> Samples:
    """Cover samples inside the triangle or on an edge it owns, exactly: float64 holds edge functions without
    rounding.
    """
    e1x, e1y, e2x, e2y, inverse, area, tie0, tie1, tie2 = values
    opposite1, opposite2 = e2x * dy - dx * e2y, dx * e1y - e1x * dy
    opposite0 = (area - opposite1) - opposite2
    sign = torch.sign(inverse)
    inside = torch.minimum(torch.minimum(opposite0 * sign - tie0, opposite1 * sign - tie1), opposite2 * sign - tie2)
    return Samples(opposite0 * inverse, opposite1 * inverse, opposite2 * inverse, inside)
