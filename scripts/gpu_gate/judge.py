"""Holding a device's results against the reference: tolerances, doubtful pixels, and the verdict of a check."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import pictures, reference
from .bench import Bench, Outcome, State
from .reference import coverage, raster
from .reference.arrays import Array

# One rounding of a float32.
ROUNDING = 2.0**-24
# Roundings of its terms that a device's sum may be off by.
ROUNDINGS = 32
# The rasterizer snaps to 1/16 pixel: nearer to an edge than this, coverage is open.
NEAR_EDGE = 1 / 16 + 1e-3
# What a device's gradient may be off by, as a share of the greatest one beside it: sums of thousands of terms.
OF_GRADIENT = 2e-4
# Depths (z/w) nearer to each other than this, or than they change by from a vertex snapped otherwise, may come in
# either order.
NEAR_DEPTH = 1e-4


@dataclass
class Verdict:
    """What a check found; the outcome is failed as soon as one complaint is in it."""

    figures: dict[str, float] = field(default_factory=dict)
    images: dict[str, Array] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    said: str = ""

    def require(self, holds: bool, complaint: str) -> None:
        if not holds:
            self.complaints.append(complaint)

    def keep(self, name: str, value: Any) -> None:
        """Note a figure, of several by one name the greatest."""
        self.figures[name] = max(float(value), self.figures.get(name, 0.0))

    def close(self, name: str, got: Array, want: Array, tolerance: Any, where: Array | None = None) -> Array:
        """Require |got - want| <= tolerance where asked; keeps the greatest error, returns where it was not so."""
        if got.shape != want.shape:
            self.complaints.append(f"{name}: shape {got.shape} instead of {want.shape}")
            return np.zeros(want.shape, bool)
        asked = np.broadcast_to(True if where is None else where, want.shape)
        error = np.abs(got - want)
        bad: Array = asked & ~(error <= tolerance)
        self.keep(f"{name} error", np.max(np.where(asked, error, 0), initial=0))
        if bad.any():
            place = tuple(int(axis[0]) for axis in np.nonzero(bad))
            self.complaints.append(
                f"{name}: {int(bad.sum())} of {int(asked.sum())} values off, at {place} {got[place]:.9g} "
                f"instead of {want[place]:.9g}"
            )
        return bad

    def gradient(self, name: str, got: Any, want: Array) -> None:
        """Require a tensor's gradient to be what the reference says."""
        if got is None:
            self.complaints.append(f"{name}: no gradient")
            return
        self.close(name, array(got), want, OF_GRADIENT * np.max(np.abs(want), initial=1e-30))

    def excuse(self, bench: Bench, fault: str) -> None:
        """What has gone wrong so far is known of this release, if it has that fault."""
        if fault in bench.known_faults and self.complaints:
            self.known.extend(f"{fault}: {complaint}" for complaint in self.complaints)
            self.complaints.clear()

    def outcome(self) -> Outcome:
        """Failed with any complaint, else known with anything that the release is known for, else passed."""
        state: State = "failed" if self.complaints else "known" if self.known else "passed"
        detail = "; ".join((self.complaints or self.known)[:3]) or self.said
        return Outcome(state, detail, self.figures, self.images)


def tensor(bench: Bench, values: Any, kind: str = "float32", *, grad: bool = False) -> Any:
    """A tensor on the bench's device."""
    made = bench.torch.tensor(np.array(values), dtype=getattr(bench.torch, kind))
    return made.to(bench.device).contiguous().requires_grad_(grad)


def array(values: Any) -> Array:
    """A tensor's values as float64."""
    return np.array(values.detach().cpu().numpy(), np.float64)


@dataclass(frozen=True)
class Draw:
    """One call of rasterize(): positions, triangles, (height, width), ranges."""

    pos: Array
    tri: Array
    resolution: tuple[int, int]
    ranges: Array | None = None

    def on(self, bench: Bench, *, grad: bool = False, grad_db: bool = True, context: Any = None) -> tuple[Any, ...]:
        """pos, rast and rast_db on the device."""
        pos = tensor(bench, self.pos, grad=grad)
        keywords: dict[str, Any] = {} if grad_db else {"grad_db": False}
        if self.ranges is not None:
            keywords["ranges"] = bench.torch.tensor(np.array(self.ranges), dtype=bench.torch.int32)
        tri = tensor(bench, self.tri, "int32")
        rast, slopes = bench.dr.rasterize(context or bench.context(), pos, tri, self.resolution, **keywords)
        return pos, rast, slopes


def judge_raster(verdict: Verdict, draw: Draw, got: tuple[Array, Array], layer: int = 0) -> None:
    """Hold (rast, rast_db) of a draw, or of one layer of its peeling, against the reference."""
    rast, slopes = got
    want, _ = reference.peel(draw.pos, draw.tri, draw.resolution, layer + 1, draw.ranges)[layer]
    if rast.shape != want.shape:
        verdict.complaints.append(f"rast: shape {rast.shape} instead of {want.shape}")
        return
    ids, ids_wanted = reference.float_to_id(rast[..., 3]), reference.float_to_id(want[..., 3])
    open_ = doubtful(draw)
    differ = ids != ids_wanted
    wrong = differ & ~open_
    figures = {"wrong pixels": wrong.sum(), "differing near edges": (differ & open_).sum(), "open share": open_.mean()}
    for name, value in figures.items():
        verdict.keep(name, value)
    if wrong.any():
        image, row, column = (int(axis[0]) for axis in np.nonzero(wrong))
        verdict.complaints.append(
            f"{int(wrong.sum())} pixels show another triangle, at image {image}, row {row}, column {column} "
            f"id {ids[image, row, column]} instead of {ids_wanted[image, row, column]}"
        )
    off = wrong | judge_values(verdict, draw, rast, slopes)
    verdict.images.setdefault("barycentrics", pictures.barycentrics(rast[0]))
    verdict.images.setdefault("errors", pictures.errors(ids[0] > 0, off[0], (differ & open_)[0]))


def judge_values(verdict: Verdict, draw: Draw, rast: Array, slopes: Array) -> Array:
    """Hold u, v, z/w and the derivatives at every drawn pixel against the device's own triangle there; where off."""
    ids = reference.float_to_id(rast[..., 3])
    off = np.zeros(ids.shape, bool)
    known = (ids > 0) & (ids <= len(draw.tri))
    verdict.require(bool(np.all(known | (ids == 0))), f"triangle ids up to {ids.max()} of {len(draw.tri)}")
    image, row, column = np.nonzero(known)
    vertices = draw.tri[ids[known] - 1]
    corners = draw.pos[image[:, None], vertices] if draw.pos.ndim == 3 else draw.pos[vertices]
    bary, slope = raster.barycentrics(corners, row, column, draw.resolution)
    by_bary, by_depth, by_slope = tolerances(corners, bary, row, column, draw.resolution)
    weights = np.column_stack([bary, 1 - bary.sum(axis=1)])
    inside = weights.min(axis=1) >= 0
    found = rast[known]
    verdict.keep("widest tolerance", np.max(by_bary[inside], initial=0))
    bad = verdict.close("u, v", found[:, :2], bary, by_bary[:, None], inside[:, None]).any(axis=1)
    bad |= verdict.close("u, v limits", np.clip(found[:, :2], 0, 1), found[:, :2], 0).any(axis=1)
    depth = np.sum(weights * corners[:, :, 2], axis=1) / np.sum(weights * corners[:, :, 3], axis=1)
    bad |= verdict.close("z/w", found[:, 2], np.clip(depth, -1, 1), by_depth, inside)
    if slopes.shape[-1]:
        bad |= verdict.close("derivatives", slopes[known], slope, by_slope[:, None], inside[:, None]).any(axis=1)
        verdict.require(not slopes[~known].any(), "derivatives in the background are not 0")
    verdict.require(not rast[~known][:, :3].any(), "u, v, z/w in the background are not 0")
    off[known] = bad
    return off


def tolerances(
    corners: Array, bary: Array, row: Array, column: Array, resolution: tuple[int, int]
) -> tuple[Array, Array, Array]:
    """What float32 allows <K> for u and v, for z/w, and for the derivatives: ROUNDINGS of the summed terms' sizes."""
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
    sides = np.sum(size_w * size[:, following] + size * size_w[:, following], axis=1)
    by_bary = ROUNDINGS * ROUNDING * (1 + terms / total)
    mixed = np.abs(np.sum(np.column_stack([bary, 1 - bary.sum(axis=1)]) * w, axis=1))
    by_depth = by_bary * np.sum(np.abs(corners[:, :, 2]) + size_w, axis=1) / mixed
    by_slope = (2 / min(height, width)) * 2 * by_bary * sides / total
    return by_bary, by_depth, by_slope


def doubtful(draw: Draw) -> Array:
    """Pixels <N,H,W> whose triangle is open: within 1/16 pixel of an edge, or where surfaces meet."""
    images = len(draw.pos) if draw.pos.ndim == 3 else len(np.asarray(draw.ranges))
    result = np.zeros((images, *draw.resolution), bool)
    for image, outline in coverage.outlines(draw.pos, draw.tri, draw.resolution, draw.ranges):
        result[image] |= _near(outline, draw.resolution)
    found = coverage.fragments(draw.pos, draw.tri, draw.resolution, draw.ranges)
    order = np.lexsort((found.depth, found.column, found.row, found.image))
    place = np.stack([found.image, found.row, found.column])[:, order]
    slope = found.slope[order]
    near = NEAR_DEPTH + NEAR_EDGE * (slope[1:] + slope[:-1])
    together = np.all(place[:, 1:] == place[:, :-1], axis=0) & (np.diff(found.depth[order]) < near)
    result[tuple(place[:, 1:][:, together])] = True
    return result


def _near(outline: Array, resolution: tuple[int, int]) -> Array:
    """Pixel centres <H,W> within NEAR_EDGE of a polygon's edges, given in pixels <K,2>."""
    result = np.zeros(resolution, bool)
    limits = np.array(resolution[::-1])
    for start, end in zip(np.roll(outline, 1, axis=0), outline, strict=True):
        low = np.clip(np.floor(np.minimum(start, end)) - 1, 0, limits).astype(int)
        high = np.clip(np.ceil(np.maximum(start, end)) + 1, 0, limits).astype(int)
        row, column = np.mgrid[low[1] : high[1], low[0] : high[0]]
        from_start, along = np.stack([column, row], axis=-1) + 0.5 - start, end - start
        share = np.clip(from_start @ along / max(float(along @ along), 1e-30), 0, 1)
        distance = np.linalg.norm(from_start - share[..., None] * along, axis=-1)
        result[low[1] : high[1], low[0] : high[0]] |= distance <= NEAR_EDGE
    return result
