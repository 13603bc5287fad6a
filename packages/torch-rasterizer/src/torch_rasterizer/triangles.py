"""Setup of triangles: edges, pixel boxes, and the lines that bound the spans of pixels they can cover."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from torch_rasterizer.convention import Convention
from torch_rasterizer.screen import Screen

#: Triangles that reach beyond this coordinate are not drawn; the loops of custom_rasterizer would not terminate.
REACH = 2.0**31


@dataclass(frozen=True)
class Window:
    """The pixels to draw: top <= row < bottom, left <= column < right."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        """The number of rows."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """The number of columns."""
        return self.right - self.left


@dataclass(frozen=True)
class Edges:
    """The edge values from which barycentrics are computed; each [T], or one value per fragment.

    e1 = v1 - v0, e2 = v2 - v0, area is twice the signed area, inverse = 1 / area.
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
    """Triangles that are set up for splitting into spans; tensors are [T], or [R, T] for R values per triangle.

    first_row, rows: int32, the rows to visit; 0 rows if there is nothing to draw.
    bounds [10, T]: y0, then slope and offset of the left line, of the right line, and slope, lower offset and upper
    offset of the third line, then the first and the last column. A line bounds x - 0.5 of a sample by
    slope * (y - y0) + offset.
    values [R, T]: x0, y0, the depths of the corners, and the arguments of the coverage functions.
    """

    first_row: torch.Tensor
    rows: torch.Tensor
    bounds: torch.Tensor
    values: torch.Tensor


def corners(screen: Screen, faces: torch.Tensor) -> list[list[torch.Tensor]]:
    """Return x, y and z of the three corners of faces [T, 3]."""
    index = faces.T.contiguous()
    return [[component.index_select(0, i) for i in index] for component in (screen.x, screen.y, screen.z)]


def edges_of(x: list[torch.Tensor], y: list[torch.Tensor]) -> Edges:
    """Return the edges of triangles from their corners; the area is S(v0, v1, v2), operation by operation."""
    e1x, e1y, e2x, e2y = x[1] - x[0], y[1] - y[0], x[2] - x[0], y[2] - y[0]
    area = e2x * e1y - e1x * e2y
    return Edges(x[0], y[0], e1x, e1y, e2x, e2y, area, 1.0 / area)


def prepare(screen: Screen, faces: torch.Tensor, window: Window, convention: Convention) -> Triangles:
    """Set up faces [T, 3] int; triangles that cannot cover a pixel of the window get 0 rows."""
    x, y, z = corners(screen, faces)
    edges = edges_of(x, y)
    left, right = _minimum(x), _maximum(x)
    top, bottom = _minimum(y), _maximum(y)
    lines, pad, unbounded = _bounding_lines(edges, x, y, right - left, bottom - top)
    # Samples farther outside than the padding are not covered, regardless of rounding. custom_rasterizer visits only
    # the rows trunc(top) <= row < bottom + 1.
    pad = torch.where(unbounded, torch.inf, pad)
    first = torch.maximum(torch.ceil(top - pad - 0.5), top.trunc()).clamp_(window.top, window.bottom)
    end = torch.minimum(torch.floor(bottom + pad + 0.5), torch.ceil(bottom) + 1).clamp_(window.top, window.bottom)
    drawn = (left >= -REACH) & (top >= -REACH) & (right < REACH) & (bottom < REACH) & _is_drawable(edges, convention)
    drawn &= (right + 1 > window.left) & (left < window.right)
    first_row = first.nan_to_num_(0.0).to(torch.int32)
    rows = end.nan_to_num_(0.0).to(torch.int32).sub_(first_row).clamp_(min=0).mul_(drawn)
    box = left.clamp(window.left, window.right).trunc_(), torch.ceil(right).clamp_(window.left, window.right - 1)
    values = [edges.x0, edges.y0, *z, edges.e1x, edges.e1y, edges.e2x, edges.e2y, edges.inverse]
    if convention.exact:
        values += [edges.area, *_edge_thresholds(edges, convention)]
    return Triangles(first_row, rows, torch.stack([edges.y0, *lines, *box]), torch.stack(values))


def find_touching(screen: Screen, faces: torch.Tensor, window: Window) -> torch.Tensor:
    """Return the indices int64 of the faces [M, 3] whose boxes touch the window."""
    index = faces.T.contiguous()
    x, y = ([component.index_select(0, i) for i in index] for component in (screen.x, screen.y))
    across = (_maximum(x) + 1 > window.left) & (_minimum(x) < window.right)
    return (across & (_maximum(y) + 1 > window.top) & (_minimum(y) < window.bottom)).nonzero().squeeze(1)


def _minimum(values: list[torch.Tensor]) -> torch.Tensor:
    return torch.minimum(torch.minimum(values[0], values[1]), values[2])


def _maximum(values: list[torch.Tensor]) -> torch.Tensor:
    return torch.maximum(torch.maximum(values[0], values[1]), values[2])


def _is_drawable(edges: Edges, convention: Convention) -> torch.Tensor:
    """Return whether a triangle has an area and faces the viewer; infinite coordinates have no area."""
    finite = edges.inverse.abs() < torch.inf
    if convention.cull == "none":
        return finite
    # With row 0 at the top, a positive area is counter-clockwise on the screen.
    return finite & (edges.inverse * convention.row_zero > 0)


def _edge_thresholds(edges: Edges, convention: Convention) -> list[torch.Tensor]:
    """Return the minimum edge function of a sample, for the edges opposite v0, v1 and v2.

    It is 0 for top and left edges and half a step for the others; edge functions are multiples of 1 / 4**bits.
    """
    step = 0.5 / 4.0 ** (convention.subpixel_bits or 0)
    e3x, e3y = edges.e2x - edges.e1x, edges.e2y - edges.e1y
    # With a positive area, left edges point down the rows and top edges point to the left.
    sign = torch.where(edges.inverse > 0, 1.0, -1.0)
    found = []
    for dx, dy in ((e3x, e3y), (-edges.e2x, -edges.e2y), (edges.e1x, edges.e1y)):
        down, across = dy * sign, dx * sign
        owned = (down > 0) | ((down == 0) & (across < 0))
        found.append(torch.where(owned, 0.0, step).to(dx))
    return found


def _bounding_lines(
    edges: Edges, x: list[torch.Tensor], y: list[torch.Tensor], width: torch.Tensor, height: torch.Tensor
) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    """Return the seven line rows of Triangles.bounds, the padding in y, and which triangles must stay unbounded.

    With u = 2**-24: rounding moves beta = 0 and gamma = 0 by a few u * width from the lines through v0; alpha, which is
    rounded after them, has an error of at most 4u * spread / |area|. For a sample at a distance d above or below the
    triangle, one barycentric b has |b| >= d / (2 height), so that the same bound holds for rows. The code uses 32u. The
    bound does not hold for huge, tiny and denormal numbers: for these every sample of the box is tested.
    """
    factor = 2.0**-19
    e3x, e3y = edges.e2x - edges.e1x, edges.e2y - edges.e1y
    spread = edges.area.abs() + (width + 2) * (edges.e1y.abs() + edges.e2y.abs())
    near = factor * (width + x[0].abs() + 2)
    margin = near + factor * spread / e3y.abs()
    base = x[0] - 0.5
    negative = edges.inverse < 0
    # A line that bounds x from below is on the left.
    sides = [
        _bounding_line(edges.e2x / edges.e2y, base, near, edges.e2y != 0, (edges.e2y > 0) == negative),
        _bounding_line(edges.e1x / edges.e1y, base, near, edges.e1y != 0, (edges.e1y < 0) == negative),
        _bounding_line(e3x / e3y, base - edges.area / e3y, margin, e3y != 0, (e3y < 0) == negative),
    ]
    pad = factor * (height * (1 + spread / edges.area.abs()) + y[0].abs() + 2)
    unbounded = _exceeds_error_bounds(edges, x, y)
    return _order_lines(sides, unbounded), pad, unbounded


@dataclass(frozen=True)
class _Line:
    slope: torch.Tensor
    below: torch.Tensor
    above: torch.Tensor


def _bounding_line(
    slope: torch.Tensor, offset: torch.Tensor, margin: torch.Tensor, exists: torch.Tensor, is_below: torch.Tensor
) -> _Line:
    """Return a line that bounds from below or from above, or no bound where the edge is horizontal."""
    return _Line(
        torch.where(exists, slope, 0.0),
        torch.where(exists & is_below, offset - margin, -torch.inf),
        torch.where(exists & ~is_below, offset + margin, torch.inf),
    )


def _order_lines(lines: list[_Line], unbounded: torch.Tensor) -> list[torch.Tensor]:
    """Return the rows of a left line, a right line, and a third line with both offsets."""
    a, b, c = lines
    rows = [a.slope, a.below, b.slope, b.above, c.slope, c.below, c.above]
    # beta and gamma may bound from the same side; then alpha, if not horizontal, bounds from the other.
    swap_left = torch.isinf(a.below) & ~torch.isinf(b.below)
    rows[0], rows[1] = torch.where(swap_left, b.slope, a.slope), torch.where(swap_left, b.below, a.below)
    rows[2], rows[3] = torch.where(swap_left, a.slope, b.slope), torch.where(swap_left, a.above, b.above)
    both_left = ~torch.isinf(a.below) & ~torch.isinf(b.below)
    both_right = ~torch.isinf(a.above) & ~torch.isinf(b.above)
    # With two left lines, the second becomes the third line and the third the right line; likewise on the right.
    third = [torch.where(both_left, b.slope, torch.where(both_right, a.slope, c.slope))]
    third += [torch.where(both_left, b.below, torch.where(both_right, -torch.inf, c.below))]
    third += [torch.where(both_left, torch.inf, torch.where(both_right, a.above, c.above))]
    left = [torch.where(both_right, c.slope, rows[0]), torch.where(both_right, c.below, rows[1])]
    right = [torch.where(both_left, c.slope, rows[2]), torch.where(both_left, c.above, rows[3])]
    found = [*left, *right, *third]
    for row, value in zip(found, (0.0, -torch.inf, 0.0, torch.inf, 0.0, -torch.inf, torch.inf), strict=True):
        row.masked_fill_(unbounded, value)
    return found


def _exceeds_error_bounds(edges: Edges, x: list[torch.Tensor], y: list[torch.Tensor]) -> torch.Tensor:
    """Return which triangles have coordinates too large or too small for the error bounds of _bounding_lines."""
    largest = torch.stack([t.abs() for t in (*x, *y)]).amax(0)
    sides = torch.stack(
        [edges.e1x, edges.e1y, edges.e2x, edges.e2y, edges.e2x - edges.e1x, edges.e2y - edges.e1y]
    ).abs_()
    smallest = sides.masked_fill_(sides == 0, torch.inf).amin(0)
    return ~((largest < 2.0**24) & (smallest > 2.0**-40) & (edges.area.abs() > 2.0**-40))
