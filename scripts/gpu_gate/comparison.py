"""Comparison of a device's results with the reference: tolerances, ambiguous pixels, and the findings of a check."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import pictures, reference
from .bench import Bench, Outcome, State
from .reference import coverage, raster
from .reference.arrays import Array

# The largest relative error of one float32 operation.
UNIT_ROUNDOFF = 2.0**-24
# How many rounding errors, relative to the size of its terms, a sum may accumulate on the device.
MAX_ROUNDINGS = 32
# The rasterizer snaps vertices to 1/16 pixel: within this distance of an edge, in pixels, coverage is ambiguous.
EDGE_MARGIN = 1 / 16 + 1e-3
# The allowed error of a gradient, relative to the largest value in the same tensor: the device sums thousands of terms.
GRADIENT_TOLERANCE = 2e-4
# Two depths (z/w) are ambiguous if they differ by less than this, plus what snapping a vertex can change.
DEPTH_MARGIN = 1e-4


@dataclass
class Findings:
    """What a check has found so far.

    Attributes:
        figures: Measured numbers for the record.
        images: Images for the contact sheet.
        problems: Problems that fail the check.
        known_problems: Problems that the release is known to have.
        detail: The text that is shown if there are no problems.
    """

    figures: dict[str, float] = field(default_factory=dict)
    images: dict[str, Array] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    known_problems: list[str] = field(default_factory=list)
    detail: str = ""

    def require(self, condition: bool, problem: str) -> None:
        """Add the problem if the condition is false."""
        if not condition:
            self.problems.append(problem)

    def keep_maximum(self, name: str, value: Any) -> None:
        """Store a figure; of several values with the same name, the largest is kept."""
        self.figures[name] = max(float(value), self.figures.get(name, 0.0))

    def require_close(
        self, name: str, actual: Array, expected: Array, tolerance: Any, where: Array | None = None
    ) -> Array:
        """Require |actual - expected| <= tolerance, at the positions in ``where`` (default: everywhere).

        Stores the largest error as a figure, and returns a mask of the wrong values in the shape of ``expected``.
        """
        if actual.shape != expected.shape:
            self.problems.append(f"{name}: shape {actual.shape} instead of {expected.shape}")
            return np.zeros(expected.shape, bool)
        compared = np.broadcast_to(True if where is None else where, expected.shape)
        error = np.abs(actual - expected)
        wrong: Array = compared & ~(error <= tolerance)
        self.keep_maximum(f"{name} error", np.max(np.where(compared, error, 0), initial=0))
        if wrong.any():
            first = tuple(int(axis[0]) for axis in np.nonzero(wrong))
            self.problems.append(
                f"{name}: {int(wrong.sum())} of {int(compared.sum())} values are wrong, first at {first}: "
                f"{actual[first]:.9g} instead of {expected[first]:.9g}"
            )
        return wrong

    def require_gradient(self, name: str, actual: Any, expected: Array) -> None:
        """Require a gradient, a tensor or None, to match the reference."""
        if actual is None:
            self.problems.append(f"{name}: no gradient")
            return
        tolerance = GRADIENT_TOLERANCE * np.max(np.abs(expected), initial=1e-30)
        self.require_close(name, array(actual), expected, tolerance)

    def accept_known_fault(self, bench: Bench, fault: str) -> None:
        """Turn all problems so far into known problems if the release has that fault."""
        if fault in bench.known_faults and self.problems:
            self.known_problems.extend(f"{fault}: {problem}" for problem in self.problems)
            self.problems.clear()

    def outcome(self) -> Outcome:
        """Return the outcome: "failed" if there are problems, else "known" if there are known ones, else "passed"."""
        state: State = "failed" if self.problems else "known" if self.known_problems else "passed"
        detail = "; ".join((self.problems or self.known_problems)[:3]) or self.detail
        return Outcome(state, detail, self.figures, self.images)


def tensor(bench: Bench, values: Any, dtype: str = "float32", *, grad: bool = False) -> Any:
    """Return a contiguous tensor on the bench's device."""
    on_cpu = bench.torch.tensor(np.array(values), dtype=getattr(bench.torch, dtype))
    return on_cpu.to(bench.device).contiguous().requires_grad_(grad)


def array(values: Any) -> Array:
    """Return a tensor's values as float64."""
    return np.array(values.detach().cpu().numpy(), np.float64)


@dataclass(frozen=True)
class Draw:
    """The arguments of a rasterize() call: pos, tri, (height, width) and ranges."""

    pos: Array
    tri: Array
    resolution: tuple[int, int]
    ranges: Array | None = None

    @property
    def image_count(self) -> int:
        """The number of images that the call returns."""
        return len(self.pos) if self.pos.ndim == 3 else len(np.asarray(self.ranges))

    def rasterize(
        self, bench: Bench, *, grad: bool = False, grad_db: bool = True, context: Any = None
    ) -> tuple[Any, ...]:
        """Call rasterize() on the device and return the tensors pos, rast and rast_db."""
        pos = tensor(bench, self.pos, grad=grad)
        options: dict[str, Any] = {} if grad_db else {"grad_db": False}
        if self.ranges is not None:
            # nvdiffrast expects ranges on the CPU.
            options["ranges"] = bench.torch.tensor(np.array(self.ranges), dtype=bench.torch.int32)
        tri = tensor(bench, self.tri, "int32")
        rast, rast_db = bench.dr.rasterize(context or bench.context(), pos, tri, self.resolution, **options)
        return pos, rast, rast_db


def compare_raster(findings: Findings, draw: Draw, actual: tuple[Array, Array], layer: int = 0) -> None:
    """Compare (rast, rast_db) of a draw, or of one layer of depth peeling, with the reference."""
    rast, rast_db = actual
    expected, _ = reference.peel(draw.pos, draw.tri, draw.resolution, layer + 1, draw.ranges)[layer]
    if rast.shape != expected.shape:
        findings.problems.append(f"rast: shape {rast.shape} instead of {expected.shape}")
        return
    ids, expected_ids = reference.float_to_id(rast[..., 3]), reference.float_to_id(expected[..., 3])
    ambiguous = ambiguous_pixels(draw)
    different = ids != expected_ids
    wrong = different & ~ambiguous
    tolerated = different & ambiguous
    findings.keep_maximum("wrong pixels", wrong.sum())
    findings.keep_maximum("differing near edges", tolerated.sum())
    findings.keep_maximum("open share", ambiguous.mean())
    if wrong.any():
        image, row, column = (int(axis[0]) for axis in np.nonzero(wrong))
        findings.problems.append(
            f"{int(wrong.sum())} pixels show another triangle, first at image {image}, row {row}, column {column}: "
            f"id {ids[image, row, column]} instead of {expected_ids[image, row, column]}"
        )
    wrong = wrong | compare_values(findings, draw, rast, rast_db)
    findings.images.setdefault("barycentrics", pictures.barycentrics(rast[0]))
    findings.images.setdefault("errors", pictures.errors(ids[0] > 0, wrong[0], tolerated[0]))


def compare_values(findings: Findings, draw: Draw, rast: Array, rast_db: Array) -> Array:
    """Compare u, v, z/w and their derivatives with those of the triangle that the device drew at each pixel.

    Returns a mask [N, H, W] of the wrong pixels.
    """
    ids = reference.float_to_id(rast[..., 3])
    drawn = (ids > 0) & (ids <= len(draw.tri))
    findings.require(bool(np.all(drawn | (ids == 0))), f"triangle ids up to {ids.max()} of {len(draw.tri)}")
    image, row, column = np.nonzero(drawn)
    vertices = draw.tri[ids[drawn] - 1]
    corners = draw.pos[image[:, None], vertices] if draw.pos.ndim == 3 else draw.pos[vertices]
    uv, uv_db = raster.barycentrics(corners, row, column, draw.resolution)
    uv_tolerance, depth_tolerance, db_tolerance = tolerances(corners, uv, row, column, draw.resolution)
    weights = np.column_stack([uv, 1 - uv.sum(axis=1)])
    # Outside the unsnapped triangle the values are clamped, so they are not compared there.
    inside = weights.min(axis=1) >= 0
    found = rast[drawn]
    findings.keep_maximum("widest tolerance", np.max(uv_tolerance[inside], initial=0))
    wrong = findings.require_close("u, v", found[:, :2], uv, uv_tolerance[:, None], inside[:, None]).any(axis=1)
    wrong |= findings.require_close("u, v limits", np.clip(found[:, :2], 0, 1), found[:, :2], 0).any(axis=1)
    depth = np.sum(weights * corners[:, :, 2], axis=1) / np.sum(weights * corners[:, :, 3], axis=1)
    wrong |= findings.require_close("z/w", found[:, 2], np.clip(depth, -1, 1), depth_tolerance, inside)
    if rast_db.shape[-1]:
        compared = (rast_db[drawn], uv_db, db_tolerance[:, None], inside[:, None])
        wrong |= findings.require_close("derivatives", *compared).any(axis=1)
        findings.require(not rast_db[~drawn].any(), "derivatives in the background are not 0")
    findings.require(not rast[~drawn][:, :3].any(), "u, v, z/w in the background are not 0")
    result = np.zeros(ids.shape, bool)
    result[drawn] = wrong
    return result


def tolerances(
    corners: Array, uv: Array, row: Array, column: Array, resolution: tuple[int, int]
) -> tuple[Array, Array, Array]:
    """Return the allowed float32 errors of u and v, of z/w, and of the derivatives, [K] each.

    They are MAX_ROUNDINGS rounding errors of the terms that raster.barycentrics() adds up, for corners [K, 3, 4] at
    pixels [K].
    """
    height, width = resolution
    x, y = (2 * column + 1) / width - 1, (2 * row + 1) / height - 1
    w = corners[:, :, 3]
    px, py = corners[:, :, 0] - x[:, None] * w, corners[:, :, 1] - y[:, None] * w
    size_x = np.abs(corners[:, :, 0]) + np.abs(x[:, None] * w)
    size_y = np.abs(corners[:, :, 1]) + np.abs(y[:, None] * w)
    following = [1, 2, 0]
    total = np.abs(np.sum(px * py[:, following] - py * px[:, following], axis=1))
    terms = np.sum(size_x * size_y[:, following] + size_y * size_x[:, following], axis=1)
    size, size_w = size_x + size_y, np.abs(w)
    db_terms = np.sum(size_w * size[:, following] + size * size_w[:, following], axis=1)
    uv_tolerance = MAX_ROUNDINGS * UNIT_ROUNDOFF * (1 + terms / total)
    interpolated_w = np.abs(np.sum(np.column_stack([uv, 1 - uv.sum(axis=1)]) * w, axis=1))
    depth_tolerance = uv_tolerance * np.sum(np.abs(corners[:, :, 2]) + size_w, axis=1) / interpolated_w
    db_tolerance = (2 / min(height, width)) * 2 * uv_tolerance * db_terms / total
    return uv_tolerance, depth_tolerance, db_tolerance


def ambiguous_pixels(draw: Draw) -> Array:
    """Return a mask [N, H, W] of the pixels where rounding decides which triangle is drawn.

    These are the pixels within EDGE_MARGIN of an edge, and those where two surfaces have almost the same depth.
    """
    result = np.zeros((draw.image_count, *draw.resolution), bool)
    for image, polygon in coverage.visible_polygons(draw.pos, draw.tri, draw.resolution, draw.ranges):
        result[image] |= _near_edges(polygon, draw.resolution)
    found = coverage.fragments(draw.pos, draw.tri, draw.resolution, draw.ranges)
    order = np.lexsort((found.depth, found.column, found.row, found.image))
    pixel = np.stack([found.image, found.row, found.column])[:, order]
    slope = found.slope[order]
    # Compare each fragment with the next nearer one of the same pixel.
    margin = DEPTH_MARGIN + EDGE_MARGIN * (slope[1:] + slope[:-1])
    close = np.all(pixel[:, 1:] == pixel[:, :-1], axis=0) & (np.diff(found.depth[order]) < margin)
    result[tuple(pixel[:, 1:][:, close])] = True
    return result


def _near_edges(polygon: Array, resolution: tuple[int, int]) -> Array:
    """Return a mask [H, W] of the pixel centers within EDGE_MARGIN of the edges of a polygon [K, 2], in pixels."""
    result = np.zeros(resolution, bool)
    limits = np.array(resolution[::-1])
    for start, end in zip(np.roll(polygon, 1, axis=0), polygon, strict=True):
        low = np.clip(np.floor(np.minimum(start, end)) - 1, 0, limits).astype(int)
        high = np.clip(np.ceil(np.maximum(start, end)) + 1, 0, limits).astype(int)
        row, column = np.mgrid[low[1] : high[1], low[0] : high[0]]
        from_start, edge = np.stack([column, row], axis=-1) + 0.5 - start, end - start
        # The nearest point of the edge, as a fraction of its length.
        fraction = np.clip(from_start @ edge / max(float(edge @ edge), 1e-30), 0, 1)
        distance = np.linalg.norm(from_start - fraction[..., None] * edge, axis=-1)
        result[low[1] : high[1], low[0] : high[0]] |= distance <= EDGE_MARGIN
    return result
