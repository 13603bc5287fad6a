"""Per triangle: its edges, its box of pixels, and the lines that bound the spans of pixels it can cover."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from torch_rasterizer.convention import Convention
from torch_rasterizer.screen import Screen

#: Beyond this many pixels the loops of the original do not end; such triangles draw nothing.
REACH = 2.0**31


@dataclass(frozen=True)
class Window:
    """The pixels to draw: rows top <= row < bottom, columns left <= column < right."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        """Rows."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Columns."""
        return self.right - self.left


@dataclass(frozen=True)
class Edges:
    """What the barycentrics of a sample are made of; each <T> (or one value a fragment).

    e1 = v1 - v0, e2 = v2 - v0, inverse = 1 / area, area twice the signed one.
    """

    x0: torch.Tensor
    y0: torch.Tensor
    e1x: torch.Tensor
    e1y: torch.Tensor
    e2x: torch.Tensor
    e2y: torch.Tensor
    area: torch.Tensor
    inverse: torch.Tensor


@dataclass(frozen=True)
class Triangles:
    """Triangles of a mesh, ready to be cut into spans; tensors of <T>, or of <R,T> for R values each.

    first_row, rows: int32, the rows to visit (0 rows: nothing to draw).
    bounds <10,T>: y0, then a slope and an offset for the left, the right, and the third line (offset from below, offset
    from above), then the first and the last column. A line bounds a sample's x - 0.5 by slope * (y - y0) + offset.
    values <R,T>: x0, y0, the depths of the corners, and what coverage takes.
    """

    first_row: torch.Tensor
    rows: torch.Tensor
    bounds: torch.Tensor
    values: torch.Tensor


def corners(screen: Screen, faces: torch.Tensor) -> list[list[torch.Tensor]]:
    """x, y and z of the three corners of faces <T,3>."""
    index = faces.T.contiguous()
    return [[component.index_select(0, i) for i in index] for component in (screen.x, screen.y, screen.z)]


def edges_of(x: list[torch.Tensor], y: list[torch.Tensor]) -> Edges:
    """Edges of triangles from their corners; area is S(v0, v1, v2), operation for operation."""
    e1x, e1y, e2x, e2y = x[1] - x[0], y[1] - y[0], x[2] - x[0], y[2] - y[0]
    area = e2x * e1y - e1x * e2y
    return Edges(x[0], y[0], e1x, e1y, e2x, e2y, area, 1.0 / area)


def prepare(screen: Screen, faces: torch.Tensor, window: Window, convention: Convention) -> Triangles:
    """Set up faces <T,3> int; triangles that can cover nothing in the window get 0 rows."""
    x, y, z = corners(screen, faces)
    edges = edges_of(x, y)
    left, right = _least(x), _greatest(x)
    top, bottom = _least(y), _greatest(y)
    lines, pad, odd = _lines(edges, x, y, right - left, bottom - top)
    # Samples farther outside than the padding are not covered whatever was rounded; and the original itself visits no
    # rows but those from trunc(top) while < bottom + 1.
    pad = torch.where(odd, torch.inf, pad)
    first = torch.maximum(torch.ceil(top - pad - 0.5), top.trunc()).clamp_(window.top, window.bottom)
    end = torch.minimum(torch.floor(bottom + pad + 0.5), torch.ceil(bottom) + 1).clamp_(window.top, window.bottom)
    drawn = (left >= -REACH) & (top >= -REACH) & (right < REACH) & (bottom < REACH) & _turned(edges, convention)
    drawn &= (right + 1 > window.left) & (left < window.right)
    first_row = first.nan_to_num_(0.0).to(torch.int32)
    rows = end.nan_to_num_(0.0).to(torch.int32).sub_(first_row).clamp_(min=0).mul_(drawn)
    box = left.clamp(window.left, window.right).trunc_(), torch.ceil(right).clamp_(window.left, window.right - 1)
    values = [edges.x0, edges.y0, *z, edges.e1x, edges.e1y, edges.e2x, edges.e2y, edges.inverse]
    if convention.exact:
        values += [edges.area, *_ties(edges, convention)]
    return Triangles(first_row, rows, torch.stack([edges.y0, *lines, *box]), torch.stack(values))


def touching(screen: Screen, faces: torch.Tensor, window: Window) -> torch.Tensor:
    """Indices int64 of the faces <M,3> whose boxes touch the window."""
    index = faces.T.contiguous()
    x, y = ([component.index_select(0, i) for i in index] for component in (screen.x, screen.y))
    across = (_greatest(x) + 1 > window.left) & (_least(x) < window.right)
    return (across & (_greatest(y) + 1 > window.top) & (_least(y) < window.bottom)).nonzero().squeeze(1)


def _least(values: list[torch.Tensor]) -> torch.Tensor:
    return torch.minimum(torch.minimum(values[0], values[1]), values[2])


def _greatest(values: list[torch.Tensor]) -> torch.Tensor:
    return torch.maximum(torch.maximum(values[0], values[1]), values[2])


def _turned(edges: Edges, convention: Convention) -> torch.Tensor:
    """Whether a triangle has an area (infinite coordinates have none) and faces the way that is drawn."""
    finite = edges.inverse.abs() < torch.inf
    if convention.cull == "none":
        return finite
    # A positive area is counter-clockwise as seen, with row 0 on top.
    return finite & (edges.inverse * convention.row_zero > 0)


def _ties(edges: Edges, convention: Convention) -> list[torch.Tensor]:
    """How far inside of the edges opposite v0, v1 and v2 a sample must be: 0 of top and left ones, else half a step.

    In the units of the edge functions, which are multiples of 1 / 4**bits.
    """
    step = 0.5 / 4.0 ** (convention.subpixel_bits or 0)
    e3x, e3y = edges.e2x - edges.e1x, edges.e2y - edges.e1y
    # A positive area goes round counter-clockwise as seen: left edges go down the rows, top edges to the left.
    sign = torch.where(edges.inverse > 0, 1.0, -1.0)
    found = []
    for dx, dy in ((e3x, e3y), (-edges.e2x, -edges.e2y), (edges.e1x, edges.e1y)):
        down, across = dy * sign, dx * sign
        owned = (down > 0) | ((down == 0) & (across < 0))
        found.append(torch.where(owned, 0.0, step).to(dx))
    return found


def _lines(
    edges: Edges, x: list[torch.Tensor], y: list[torch.Tensor], width: torch.Tensor, height: torch.Tensor
) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    """The seven rows of Triangles.bounds, the padding in y, and which triangles are beyond these bounds.

    With u = 2**-24: rounding moves beta = 0 and gamma = 0 by a few u * width from the lines through v0; alpha, which is
    rounded after them, is wrong by at most 4u * spread / |area|. By |b| >= d / (2 height) for one barycentric b of a
    sample that is d above or below the triangle the same holds for rows. The factor used is 32u. It says nothing of
    huge, tiny and denormal numbers: there every sample of the box is tested.
    """
    factor = 2.0**-19
    e3x, e3y = edges.e2x - edges.e1x, edges.e2y - edges.e1y
    spread = edges.area.abs() + (width + 2) * (edges.e1y.abs() + edges.e2y.abs())
    near = factor * (width + x[0].abs() + 2)
    margin = near + factor * spread / e3y.abs()
    base = x[0] - 0.5
    negative = edges.inverse < 0
    # A line from below has x on its right.
    sides = [
        _side(edges.e2x / edges.e2y, base, near, edges.e2y != 0, (edges.e2y > 0) == negative),
        _side(edges.e1x / edges.e1y, base, near, edges.e1y != 0, (edges.e1y < 0) == negative),
        _side(e3x / e3y, base - edges.area / e3y, margin, e3y != 0, (e3y < 0) == negative),
    ]
    pad = factor * (height * (1 + spread / edges.area.abs()) + y[0].abs() + 2)
    odd = _beyond(edges, x, y)
    return _arrange(sides, odd), pad, odd


@dataclass(frozen=True)
class _Line:
    slope: torch.Tensor
    below: torch.Tensor
    above: torch.Tensor


def _side(
    slope: torch.Tensor, offset: torch.Tensor, margin: torch.Tensor, there: torch.Tensor, is_below: torch.Tensor
) -> _Line:
    """A line that bounds from below or from above, or not at all."""
    return _Line(
        torch.where(there, slope, 0.0),
        torch.where(there & is_below, offset - margin, -torch.inf),
        torch.where(there & ~is_below, offset + margin, torch.inf),
    )


def _arrange(lines: list[_Line], odd: torch.Tensor) -> list[torch.Tensor]:
    """A left line, a right line, and the third with both its offsets."""
    a, b, c = lines
    rows = [a.slope, a.below, b.slope, b.above, c.slope, c.below, c.above]
    # beta and gamma may bound from the same side; then alpha, if it is there, bounds from the other.
    swap_left = torch.isinf(a.below) & ~torch.isinf(b.below)
    rows[0], rows[1] = torch.where(swap_left, b.slope, a.slope), torch.where(swap_left, b.below, a.below)
    rows[2], rows[3] = torch.where(swap_left, a.slope, b.slope), torch.where(swap_left, a.above, b.above)
    both_left = ~torch.isinf(a.below) & ~torch.isinf(b.below)
    both_right = ~torch.isinf(a.above) & ~torch.isinf(b.above)
    # Two from the left: the second moves to the third place, the third line is the right one; and the other way round.
    third = [torch.where(both_left, b.slope, torch.where(both_right, a.slope, c.slope))]
    third += [torch.where(both_left, b.below, torch.where(both_right, -torch.inf, c.below))]
    third += [torch.where(both_left, torch.inf, torch.where(both_right, a.above, c.above))]
    left = [torch.where(both_right, c.slope, rows[0]), torch.where(both_right, c.below, rows[1])]
    right = [torch.where(both_left, c.slope, rows[2]), torch.where(both_left, c.above, rows[3])]
    found = [*left, *right, *third]
    for row, value in zip(found, (0.0, -torch.inf, 0.0, torch.inf, 0.0, -torch.inf, torch.inf), strict=True):
        row.masked_fill_(odd, value)
    return found


def _beyond(edges: Edges, x: list[torch.Tensor], y: list[torch.Tensor]) -> torch.Tensor:
    """Triangles with numbers so large or small that the error bounds of _lines do not hold."""
    largest = torch.stack([t.abs() for t in (*x, *y)]).amax(0)
    sides = torch.stack(
        [edges.e1x, edges.e1y, edges.e2x, edges.e2y, edges.e2x - edges.e1x, edges.e2y - edges.e1y]
    ).abs_()
    smallest = sides.masked_fill_(sides == 0, torch.inf).amin(0)
    return ~((largest < 2.0**24) & (smallest > 2.0**-40) & (edges.area.abs() > 2.0**-40))
