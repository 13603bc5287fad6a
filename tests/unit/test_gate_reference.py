"""The gate's reference agrees with closed-form results and with finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scripts.gpu_gate import reference
from scripts.gpu_gate.reference import Lookup, cube, sampling
from scripts.gpu_gate.reference.coverage import fragments

Array = np.ndarray[Any, Any]
EXACT = 1e-9
few = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**32 - 1)
sizes = st.tuples(st.integers(1, 33), st.integers(1, 33))


def pixel_centers(height: int, width: int) -> Array:
    """Return x and y of the pixel centers, [H, W, 2], in [-1, 1], row 0 at the bottom."""
    row, column = np.mgrid[0:height, 0:width]
    return np.stack([(column + 0.5) * 2 / width - 1, (row + 0.5) * 2 / height - 1], axis=-1)


def flat_triangles(points: Any) -> Array:
    """Return points [V, 2] or [V, 3] as positions [1, V, 4] with w = 1."""
    given_points = np.asarray(points, float)
    padded = np.zeros((1, len(given_points), 4))
    padded[0, :, : given_points.shape[1]] = given_points
    padded[0, :, 3] = 1
    return padded


def fan(center: Any) -> tuple[Array, Array]:
    """Return four triangles around a point that cover the whole view."""
    pos = flat_triangles([(-1, -1), (1, -1), (1, 1), (-1, 1), center])
    return pos, np.array([[0, 1, 4], [1, 2, 4], [3, 2, 4], [3, 0, 4]])


@few
@given(sizes, st.floats(-0.99, 0.99), st.floats(-0.99, 0.99))
def test_triangles_around_a_point_cover_every_pixel_once(size: tuple[int, int], x: float, y: float) -> None:
    pos, tri = fan((x, y))
    found = fragments(pos, tri, size)
    assert sorted(zip(found.row.tolist(), found.column.tolist(), strict=True)) == list(np.ndindex(size))


@few
@given(seeds)
def test_triangulated_grid_covers_every_pixel_once_with_vertices_on_pixel_centers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    grid = np.mgrid[-1:1:5j, -1:1:5j].transpose(1, 2, 0)[..., ::-1].copy()
    # Inner vertices move by multiples of half a pixel, so many vertices and edges are on pixel centers.
    grid[1:4, 1:4] += rng.integers(-2, 3, (3, 3, 2)) / 16
    tri = []
    for row, column in np.ndindex(4, 4):
        a, b, c, d = (row * 5 + column + step for step in (0, 1, 5, 6))
        tri += [[a, b, d], [a, c, d]] if rng.random() < 0.5 else [[a, b, c], [d, b, c]]
    found = fragments(flat_triangles(grid.reshape(-1, 2)), np.array(tri), (16, 16))
    assert sorted(zip(found.row.tolist(), found.column.tolist(), strict=True)) == list(np.ndindex(16, 16))


@few
@given(st.integers(0, 12), st.integers(0, 9), st.integers(1, 12), st.integers(1, 9))
def test_rectangle_covers_its_area_in_pixels(left: int, low: int, width: int, height: int) -> None:
    right, top = min(left + width, 12), min(low + height, 9)
    xs, ys = np.array([left, right]) / 6 - 1, np.array([low, top]) / 4.5 - 1
    pos = flat_triangles([(xs[0], ys[0]), (xs[1], ys[0]), (xs[1], ys[1]), (xs[0], ys[1])])
    rast, _ = reference.rasterize(pos, [[0, 1, 2], [0, 2, 3]], (9, 12))
    drawn = rast[0, :, :, 3] > 0
    assert drawn.sum() == (right - left) * (top - low)
    assert drawn[low:top, left:right].all()


def test_pixels_on_left_and_lower_edges_are_drawn_and_on_right_and_upper_edges_are_not() -> None:
    """The corners of the square are pixel centers; both windings are tested."""
    pos = flat_triangles([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])
    for tri in ([[0, 1, 2], [0, 2, 3]], [[2, 1, 0], [3, 2, 0]]):
        rast, _ = reference.rasterize(pos, tri, (2, 2))
        np.testing.assert_array_equal(rast[0, :, :, 3] > 0, [[True, False], [False, False]])


def test_draws_a_right_triangle_in_the_upper_right_quarter() -> None:
    """The corners are (0, 0), (1, 0) and (0, 1); row 0 is at the bottom."""
    rast, rast_db = reference.rasterize(flat_triangles([(0, 0), (1, 0), (0, 1)]), [[0, 1, 2]], (8, 8))
    ids = np.zeros((8, 8))
    for row in range(4, 8):
        ids[row, 4 : 11 - row] = 1
    np.testing.assert_array_equal(rast[0, :, :, 3], ids)
    x, y = pixel_centers(8, 8)[4, 4]
    np.testing.assert_allclose(rast[0, 4, 4], [1 - x - y, x, 0, 1], atol=EXACT)
    np.testing.assert_allclose(rast_db[0, 4, 4], [-0.25, -0.25, 0.25, 0], atol=EXACT)


def perspective_triangle(rng: np.random.Generator) -> Array:
    """Return a triangle [1, 3, 4] that covers the center of the view, with very different w."""
    w = rng.uniform(0.5, 4, 3)
    angles = rng.uniform(0, 2 * np.pi) + np.array([0, 2.1, 4.2])
    radius = rng.uniform(0.5, 1, 3)
    x, y = radius * np.cos(angles), radius * np.sin(angles)
    return np.stack([x * w, y * w, rng.uniform(-0.9, 0.9, 3) * w, w], axis=1)[None]


@few
@given(seeds)
def test_barycentrics_depth_and_derivatives_solve_the_ray_equation(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pos = perspective_triangle(rng)
    rast, rast_db = reference.rasterize(pos, [[0, 1, 2]], (11, 14))
    rows = np.nonzero(rast[0, :, :, 3])

    def solved(shift_x: float, shift_y: float) -> Array:
        """Return the vertex weights with which (x, y, w) is a multiple of (x, y, 1) at the shifted pixel centers."""
        centers = pixel_centers(11, 14)[rows] + np.array([shift_x * 2 / 14, shift_y * 2 / 11])
        mixed = np.linalg.solve(pos[0][:, [0, 1, 3]].T, np.column_stack([centers, np.ones(len(centers))]).T).T
        weights: Array = mixed / mixed.sum(axis=1, keepdims=True)
        return weights

    weights = solved(0, 0)
    inside = np.all((weights > 0) & (weights < 1), axis=1)
    np.testing.assert_allclose(rast[0][rows][inside, :2], weights[inside, :2], atol=EXACT)
    depth = (weights @ pos[0, :, 2]) / (weights @ pos[0, :, 3])
    np.testing.assert_allclose(rast[0][rows][inside, 2], depth[inside], atol=EXACT)
    by_x, by_y = (solved(1e-5, 0) - solved(-1e-5, 0)) / 2e-5, (solved(0, 1e-5) - solved(0, -1e-5)) / 2e-5
    expected = np.stack([by_x[:, 0], by_y[:, 0], by_x[:, 1], by_y[:, 1]], axis=1)
    np.testing.assert_allclose(rast_db[0][rows], expected, rtol=1e-6, atol=1e-7)


@few
@given(seeds)
def test_interpolated_positions_project_onto_their_pixels(seed: int) -> None:
    """The clip-space position is an attribute that is only correct with perspective interpolation."""
    pos = perspective_triangle(np.random.default_rng(seed))
    tri = [[0, 1, 2]]
    rast, rast_db = reference.rasterize(pos, tri, (12, 12))
    values, attr_da = reference.interpolate(pos, rast, tri, rast_db, "all")
    inside = (rast[..., 3] > 0) & (rast[..., :2].min(axis=-1) > 1e-6) & (rast[..., :2].sum(axis=-1) < 1 - 1e-6)
    x, y, _, w = values[inside].T
    centers = pixel_centers(12, 12)[inside[0]]
    np.testing.assert_allclose(np.stack([x / w, y / w], axis=1), centers, atol=EXACT)
    # x/w increases by 2/W per pixel to the right, and does not change upwards.
    x_by_x, x_by_y, _, _, _, _, w_by_x, w_by_y = attr_da[inside].T
    np.testing.assert_allclose((x_by_x * w - x * w_by_x) / w**2, 2 / 12, atol=EXACT)
    np.testing.assert_allclose((x_by_y * w - x * w_by_y) / w**2, 0, atol=EXACT)
    assert np.all(values[rast[..., 3] == 0] == 0)


@few
@given(seeds)
# Here a pixel center is closer than 1/16 pixel to an edge.
@example(8103269)
def test_triangle_behind_the_camera_covers_the_pixels_whose_rays_hit_it(seed: int) -> None:
    """Vertices are behind the camera or beyond the near and far planes; intersecting rays needs no clipping."""
    rng = np.random.default_rng(seed)
    pos = rng.normal(0, 2, (1, 3, 4))
    rast, _ = reference.rasterize(pos, [[0, 1, 2]], (13, 17))
    drawn = rast[0, :, :, 3].reshape(-1) > 0
    # The vertex weights of the point with w = 1, and its z, are linear in the pixel position: (x, y, 1) times a matrix.
    to_weights = np.linalg.inv(pos[0][:, [0, 1, 3]])
    to_z = to_weights @ pos[0, :, 2]
    # A pixel is covered if all weights are positive, and z is in [-1, 1].
    to_limits = np.column_stack([to_weights, -to_z, to_z])
    centers = np.column_stack([pixel_centers(13, 17).reshape(-1, 2), np.ones(13 * 17)])
    limits = centers @ to_limits + np.array([0, 0, 0, 1, 1])
    # What 1/16 pixel changes: snapping decides there.
    margins = (np.abs(to_limits[0]) * 2 / 17 + np.abs(to_limits[1]) * 2 / 13) / 16
    inside = np.all(limits > margins, axis=1)
    assert np.all(drawn[inside])
    assert not np.any(drawn[np.any(limits < -margins, axis=1)])
    weights = limits[inside, :3] / limits[inside, :3].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(rast[0].reshape(-1, 4)[inside, :2], weights[:, :2], atol=1e-7)


def test_clipping_keeps_the_visible_part_of_a_floor_below_the_camera() -> None:
    """The plane y = -1, seen from the origin, reaches behind the camera; it is drawn below the horizon only."""
    near, far = 0.1, 100.0
    points = [(-50, -50.0), (50, -50.0), (0, 80.0)]
    pos = np.array([[[x, -1, (z * (far + near) - 2 * far * near) / (far - near), z] for x, z in points]])
    rast, _ = reference.rasterize(pos, [[0, 1, 2]], (32, 32))
    drawn = rast[0, :, :, 3] > 0
    assert drawn[:15].all()
    assert not drawn[16:].any()


def test_draws_the_nearest_triangle_and_the_later_one_of_equal_depths() -> None:
    square = [(-1, -1), (1, -1), (1, 1), (-1, 1)]
    pos = flat_triangles([(x, y, z) for z in (0.5, -0.5, 0.5) for x, y in square])
    tri = [[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7], [8, 9, 10], [8, 10, 11]]
    layers = reference.peel(pos, tri, (4, 4), 3)
    assert set(np.unique(layers[0][0][..., 3])) == {3, 4}
    assert set(np.unique(layers[1][0][..., 3])) == {5, 6}
    assert not layers[2][0].any()


def test_range_draws_only_its_triangles_with_their_ids() -> None:
    rng = np.random.default_rng(5)
    vertices = rng.uniform(-1, 1, (9, 4)) * [1, 1, 0.5, 0] + [0, 0, 0, 1]
    tri = rng.permutation(9).reshape(3, 3)
    rast, rast_db = reference.rasterize(vertices, tri, (9, 9), ranges=[[1, 2], [0, 1]])
    for image, part, offset in ((0, tri[1:], 1), (1, tri[:1], 0)):
        alone, alone_slopes = reference.rasterize(vertices[None], part, (9, 9))
        alone[..., 3] += offset * (alone[..., 3] > 0)
        np.testing.assert_array_equal(rast[image], alone[0])
        np.testing.assert_array_equal(rast_db[image], alone_slopes[0])


@few
@given(st.one_of(st.integers(0, 2**24 + 2), st.integers(2**24 - 2, 889192447 - 1)))
def test_ids_are_restored_from_floats(number: int) -> None:
    as_float = reference.id_to_float(np.array([number])).astype(np.float32)
    assert reference.float_to_id(as_float).tolist() == [number]
    assert np.isfinite(as_float).all()


def ramp(height: int, width: int) -> Array:
    """Return a texture [1, H, W, 2] whose value is its own coordinate (u, v)."""
    return (pixel_centers(height, width)[None] + 1) / 2


@few
@given(seeds, st.sampled_from(["wrap", "clamp", "zero"]))
def test_ramp_texture_returns_the_coordinate_between_the_outer_texel_centers(seed: int, boundary: str) -> None:
    rng = np.random.default_rng(seed)
    uv = rng.uniform([0.5 / 8, 0.5 / 16], [1 - 0.5 / 8, 1 - 0.5 / 16], (1, 5, 6, 2))
    found = reference.texture(ramp(16, 8), Lookup(uv, filter_mode="linear", boundary_mode=boundary))
    np.testing.assert_allclose(found, uv, atol=EXACT)


@few
@given(seeds, st.floats(0, 2.4))
def test_ramp_texture_returns_the_coordinate_at_every_mip_level(seed: int, level: float) -> None:
    rng = np.random.default_rng(seed)
    uv = rng.uniform(0.25, 0.75, (1, 4, 3, 2))
    lookup = Lookup(uv, bias=np.full((1, 4, 3), level), boundary_mode="clamp")
    np.testing.assert_allclose(reference.texture(ramp(16, 16), lookup), uv, atol=EXACT)


@few
@given(st.floats(-3, 3), st.floats(-3, 3))
def test_boundary_modes_outside_the_texture(u: float, v: float) -> None:
    uv, tex = np.array([[[[u, v]]]]), ramp(8, 4)

    def look(boundary: str, mode: str = "linear", at: Array = uv) -> Array:
        found: Array = reference.texture(tex, Lookup(at, filter_mode=mode, boundary_mode=boundary))[0, 0, 0]
        return found

    half = np.array([0.5 / 4, 0.5 / 8])
    np.testing.assert_allclose(look("clamp"), np.clip([u, v], half, 1 - half), atol=EXACT)
    np.testing.assert_allclose(look("wrap"), look("wrap", at=uv + np.array([2.0, -3.0])), atol=1e-7)
    nearest = np.floor((np.array([u, v]) % 1.0) * [4, 8])
    np.testing.assert_allclose(look("wrap", "nearest"), (np.minimum(nearest, [3, 7]) + 0.5) / [4, 8], atol=EXACT)
    if np.any(np.array([u, v]) < -half) or np.any(np.array([u, v]) > 1 + half):
        np.testing.assert_array_equal(look("zero"), 0)
    if np.any(np.array([u, v]) < 0) or np.any(np.array([u, v]) > 1):
        np.testing.assert_array_equal(look("zero", "nearest"), 0)


def test_wrap_interpolates_between_last_and_first_texel_and_zero_between_texel_and_0() -> None:
    tex = np.array([[[[1.0], [3.0], [5.0], [9.0]]]])
    at = np.array([[[[0.0, 0.5], [1.0, 0.5], [-0.125, 0.5], [0.0625, 0.5]]]])
    wrapped = reference.texture(tex, Lookup(at, filter_mode="linear"))
    np.testing.assert_allclose(wrapped[0, 0, :, 0], [5, 5, 9, 3], atol=EXACT)
    faded = reference.texture(tex, Lookup(at, filter_mode="linear", boundary_mode="zero"))
    np.testing.assert_allclose(faded[0, 0, :, 0], [0.5, 4.5, 0, 0.75], atol=EXACT)


@few
@given(seeds)
def test_mip_level_is_the_logarithm_of_the_larger_singular_value(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rast_db = rng.normal(0, 0.2, (1, 1, 1, 4))
    in_texels = rast_db.reshape(2, 2) * [[32], [64]]
    expected = np.log2(np.linalg.svd(in_texels, compute_uv=False)[0]) + 0.25
    lookup = Lookup(np.zeros((1, 1, 1, 2)), rast_db, np.full((1, 1, 1), 0.25))
    found = sampling.mip_level(lookup, (64, 32), 7)
    np.testing.assert_allclose(found, np.clip(expected, 0, 6), atol=EXACT)


def test_mip_levels_are_box_averages_and_odd_sizes_are_rejected() -> None:
    rng = np.random.default_rng(2)
    tex = rng.random((2, 4, 8, 3))
    levels = reference.construct_mip(tex)
    assert [level.shape[1:3] for level in levels] == [(4, 8), (2, 4), (1, 2), (1, 1)]
    np.testing.assert_allclose(levels[1][1, 1, 2], tex[1, 2:4, 4:6].mean(axis=(0, 1)), atol=EXACT)
    np.testing.assert_allclose(levels[-1][:, 0, 0], tex.mean(axis=(1, 2)), atol=EXACT)
    assert len(reference.construct_mip(tex, 1)) == 2
    with pytest.raises(ValueError, match="3x6"):
        reference.construct_mip(np.zeros((1, 6, 12, 1)))
    nearest = Lookup(np.full((1, 1, 1, 2), 0.5), bias=np.full((1, 1, 1), 1.9), filter_mode="linear-mipmap-nearest")
    expected = reference.texture(levels[1], Lookup(nearest.uv, filter_mode="linear"))[:1]
    np.testing.assert_allclose(reference.texture(tex[:1], nearest), expected[:1], atol=EXACT)


def direction_cube(size: int) -> Array:
    """Return a cube map [1, 6, S, S, 3] whose texels contain their own direction, scaled to the surface of the cube."""
    steps = (np.arange(size) + 0.5) * 2 / size - 1
    tc, sc = np.meshgrid(steps, steps, indexing="ij")
    one = np.ones_like(sc)
    # The faces +x, -x, +y, -y, +z, -z of the OpenGL specification, table 8.19.
    faces = [(one, -tc, -sc), (-one, -tc, sc), (sc, one, tc), (sc, -one, -tc), (sc, -tc, one), (-sc, -tc, -one)]
    return np.stack([np.stack(face, axis=-1) for face in faces])[None]


@few
@given(seeds)
def test_cube_map_of_directions_returns_the_direction(seed: int) -> None:
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=(1, 6, 6, 3))
    surface = direction / np.abs(direction).max(axis=-1, keepdims=True)
    found = reference.texture(direction_cube(8), Lookup(direction, filter_mode="linear", boundary_mode="cube"))
    inside = np.sort(np.abs(surface), axis=-1)[..., 1] <= 1 - 1 / 8
    np.testing.assert_allclose(found[inside], surface[inside], atol=EXACT)
    np.testing.assert_allclose(found, surface, atol=1 / 8)
    nearest = reference.texture(direction_cube(8), Lookup(direction, filter_mode="nearest", boundary_mode="cube"))
    np.testing.assert_allclose(nearest, surface, atol=1 / 8 + EXACT)


@few
@given(seeds)
def test_cube_map_has_no_seams(seed: int) -> None:
    """Samples on both sides of an edge of the cube are equal."""
    rng = np.random.default_rng(seed)
    tex = rng.random((1, 6, 4, 4, 2))
    along = rng.uniform(-1, 1)
    for zero, one, other in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        for signs in np.ndindex(2, 2):
            point = np.zeros((1, 1, 2, 3))
            point[..., zero] = along
            point[..., one] = (signs[0] * 2 - 1) * np.array([1, 1 - 1e-9])
            point[..., other] = (signs[1] * 2 - 1) * np.array([1 - 1e-9, 1])
            found = reference.texture(tex, Lookup(point, filter_mode="linear", boundary_mode="cube"))[0, 0]
            np.testing.assert_allclose(found[0], found[1], atol=1e-7)


def test_three_texels_have_equal_weights_at_a_corner_of_the_cube() -> None:
    tex = np.zeros((1, 6, 4, 4, 6))
    for face in range(6):
        tex[0, face, ..., face] = 1
    corner = Lookup(np.array([[[[1.0, -1.0, 1.0]]]]), filter_mode="linear", boundary_mode="cube")
    found = reference.texture(tex, corner)[0, 0, 0]
    np.testing.assert_allclose(found, [1 / 3, 0, 0, 1 / 3, 1 / 3, 0], atol=EXACT)
    zero_vector = Lookup(np.zeros((1, 1, 1, 3)), filter_mode="linear", boundary_mode="cube")
    assert not reference.texture(tex, zero_vector).any()


@few
@given(seeds)
def test_cube_face_derivatives_match_finite_differences(seed: int) -> None:
    rng = np.random.default_rng(seed)
    direction, direction_da = rng.normal(size=(4, 3)), rng.normal(size=(4, 6))
    face = cube.face_index(direction)
    for axis in range(2):
        moved = direction_da[:, axis::2] * 1e-6
        change = (
            cube.face_coordinates(face, direction + moved) - cube.face_coordinates(face, direction - moved)
        ) / 2e-6
        derivatives = cube.face_derivatives(face, direction, direction_da)
        np.testing.assert_allclose(derivatives[:, axis::2], change, rtol=1e-5, atol=1e-6)


@few
@given(st.floats(3.0, 13.0), st.floats(3.0, 13.0), st.booleans())
def test_antialiased_axis_aligned_edge_shows_the_coverage_of_its_pixels(edge: float, top: float, flip: bool) -> None:
    """A white rectangle on black has a vertical edge, or a horizontal one if flipped."""
    x = edge / 8 - 1
    corners = [(x, -1.5), (1.5, -1.5), (1.5, 1.5), (x, 1.5)]
    pos = flat_triangles([(c[1], c[0]) if flip else c for c in corners])
    tri = [[0, 1, 2], [0, 2, 3]]
    rast, _ = reference.rasterize(pos, tri, (16, 16))
    smooth = reference.antialias((rast[..., 3:] > 0) * 1.0, rast, pos, tri)[0, :, :, 0]
    coverage = np.clip(np.arange(16) + 1 - edge, 0, 1)
    expected = np.broadcast_to(coverage[:, None] if flip else coverage, (16, 16))
    ambiguous = np.abs(edge % 1 - 0.5) < 1 / 32
    if not ambiguous:
        np.testing.assert_allclose(smooth, expected, atol=EXACT)


def test_antialias_does_not_change_edges_inside_a_surface() -> None:
    pos, tri = fan((0.13, -0.21))
    rast, _ = reference.rasterize(pos, tri, (9, 9))
    color = np.random.default_rng(0).random((1, 9, 9, 2))
    np.testing.assert_array_equal(reference.antialias(color, rast, pos, tri), color)


@few
@given(st.floats(4.05, 4.45), st.floats(-0.4, 0.4))
def test_antialiased_slanted_edge_blends_where_it_crosses_each_row(base: float, slant: float) -> None:
    """An edge that is slanted by less than one pixel blends, in every row, where it crosses the row's center line."""
    low, high = base / 4 - 1, (base + slant) / 4 - 1
    pos = flat_triangles([(low, -1), (2, -1), (2, 1), (high, 1)])
    tri = [[0, 1, 2], [0, 2, 3]]
    rast, _ = reference.rasterize(pos, tri, (8, 8))
    smooth = reference.antialias((rast[..., 3:] > 0) * 1.0, rast, pos, tri)[0, :, :, 0]
    crossing = base + slant * (np.arange(8) + 0.5) / 8
    clear = np.abs(crossing % 1 - 0.5) > 1 / 16
    np.testing.assert_allclose(smooth.sum(axis=1)[clear], (8 - crossing)[clear], atol=EXACT)


def central_differences(loss: Any, values: Array, step: float = 1e-6) -> Array:
    """Return the central differences of a loss by every value."""
    result = np.zeros(values.shape)
    for index in np.ndindex(values.shape):
        moved = values.copy()
        moved[index] += step
        above = loss(moved)
        moved[index] -= 2 * step
        result[index] = (above - loss(moved)) / (2 * step)
    return result


def test_gradients_of_rasterize_match_finite_differences() -> None:
    rng = np.random.default_rng(3)
    pos, tri = perspective_triangle(rng), np.array([[0, 1, 2]])
    rast, _ = reference.rasterize(pos, tri, (9, 10))
    ids = (rast[..., 3] * (rast[..., :2].min(axis=-1) > 0.02) * (rast[..., :2].sum(axis=-1) < 0.98)).astype(int)
    grad_rast, grad_rast_db = rng.normal(size=rast.shape) * [1, 1, 0, 0], rng.normal(size=rast.shape)

    def loss(moved: Array) -> float:
        found, rast_db = reference.rasterize_ids(moved, tri, ids)
        return float(np.sum(found * grad_rast) + np.sum(rast_db * grad_rast_db))

    found = reference.raster.gradient(pos, tri, ids, grad_rast, grad_rast_db)
    np.testing.assert_allclose(found, central_differences(loss, pos), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batched", [True, False])
def test_gradients_of_interpolate_match_finite_differences(batched: bool) -> None:
    rng = np.random.default_rng(4)
    pos, tri = fan((0.1, 0.2))
    pos = np.concatenate([pos, pos * [1, 0.5, 1, 1]])
    rast, rast_db = reference.rasterize(pos, tri, (5, 6))
    attr = rng.normal(size=(2, 5, 3) if batched else (5, 3))
    diff_attrs = [2, -3]
    grad_out, grad_attr_da = rng.normal(size=(2, 5, 6, 3)), rng.normal(size=(2, 5, 6, 4))

    def loss(attr: Array = attr, rast: Array = rast, rast_db: Array = rast_db) -> float:
        values, attr_da = reference.interpolate(attr, rast, tri, rast_db, diff_attrs)
        return float(np.sum(values * grad_out) + np.sum(attr_da * grad_attr_da))

    grad_attr, grad_rast, grad_rast_db = reference.attributes.gradients(
        attr, rast, tri, grad_out, rast_db=rast_db, diff_attrs=diff_attrs, grad_attr_da=grad_attr_da
    )
    np.testing.assert_allclose(grad_attr, central_differences(lambda moved: loss(attr=moved), attr), atol=1e-6)
    expected = central_differences(
        lambda uv: loss(rast=np.concatenate([uv, rast[..., 2:]], axis=-1)), rast[..., :2].copy()
    )
    np.testing.assert_allclose(grad_rast[..., :2], expected, atol=1e-6)
    np.testing.assert_allclose(grad_rast_db, central_differences(lambda moved: loss(rast_db=moved), rast_db), atol=1e-6)


@pytest.mark.parametrize("boundary", sampling.BOUNDARY_MODES)
@pytest.mark.parametrize("mode", sampling.FILTER_MODES)
def test_gradients_of_texture_match_finite_differences(mode: str, boundary: str) -> None:
    rng = np.random.default_rng(6)
    is_cube = boundary == "cube"
    tex = rng.normal(size=(1, 6, 4, 4, 2) if is_cube else (1, 4, 8, 2))
    uv = rng.normal(size=(1, 3, 4, 3)) if is_cube else rng.uniform(-0.3, 1.3, (1, 3, 4, 2))
    mips = "mipmap" in mode
    uv_da = rng.normal(0, 0.3, (1, 3, 4, uv.shape[-1] * 2)) if mips else None
    bias = rng.uniform(-0.2, 0.2, (1, 3, 4)) if mips else None
    grad_out = rng.normal(size=(1, 3, 4, 2))
    lookup = Lookup(uv, uv_da, bias, mode, boundary)

    def loss(**changed: Any) -> float:
        texels = changed.pop("tex", tex)
        return float(np.sum(reference.texture(texels, Lookup(**{**vars(lookup), **changed})) * grad_out))

    found = sampling.gradients(tex, lookup, grad_out)
    np.testing.assert_allclose(found.tex, central_differences(lambda moved: loss(tex=moved), tex), atol=1e-6)
    for name in ("uv", "uv_da", "bias"):
        part = getattr(found, name)
        assert (part is None) == (mode == "nearest" if name == "uv" else mode != "linear-mipmap-linear")
        if part is not None:
            expected = central_differences(lambda moved, name=name: loss(**{name: moved}), getattr(lookup, name))
            np.testing.assert_allclose(part, expected, rtol=1e-4, atol=1e-4)


def test_gradients_of_antialias_match_finite_differences() -> None:
    rng = np.random.default_rng(8)
    pos = perspective_triangle(rng)
    tri = np.array([[0, 1, 2]])
    rast, _ = reference.rasterize(pos, tri, (12, 12))
    color, grad_out = rng.normal(size=(1, 12, 12, 3)), rng.normal(size=(1, 12, 12, 3))

    def loss(color: Array = color, pos: Array = pos) -> float:
        return float(np.sum(reference.antialias(color, rast, pos, tri) * grad_out))

    grad_color, grad_pos = reference.edges.gradients(color, rast, pos, tri, grad_out)
    assert len(reference.edges.blends(rast, pos, tri).alpha) > 8
    np.testing.assert_allclose(grad_color, central_differences(lambda moved: loss(color=moved), color), atol=1e-6)
    np.testing.assert_allclose(grad_pos, central_differences(lambda moved: loss(pos=moved), pos), rtol=1e-5, atol=1e-5)
