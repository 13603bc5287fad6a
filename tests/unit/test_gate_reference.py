"""The gate's reference against closed forms: what it computes must be right before a device is held against it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripts.gpu_gate import reference
from scripts.gpu_gate.reference import Lookup, cube, sampling
from scripts.gpu_gate.reference.coverage import fragments

Array = np.ndarray[Any, Any]
EXACT = 1e-9
few = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**32 - 1)
sizes = st.tuples(st.integers(1, 33), st.integers(1, 33))


def pixel_centres(height: int, width: int) -> Array:
    """x, y of every pixel <H,W,2> in [-1,1], row 0 at the bottom."""
    row, column = np.mgrid[0:height, 0:width]
    return np.stack([(column + 0.5) * 2 / width - 1, (row + 0.5) * 2 / height - 1], axis=-1)


def flat_triangles(points: Any) -> Array:
    """Points <V,2 or 3> as positions <1,V,4> with w = 1."""
    given_points = np.asarray(points, float)
    padded = np.zeros((1, len(given_points), 4))
    padded[0, :, : given_points.shape[1]] = given_points
    padded[0, :, 3] = 1
    return padded


def fan(middle: Any) -> tuple[Array, Array]:
    """The whole view cut into four triangles around a point."""
    return flat_triangles([(-1, -1), (1, -1), (1, 1), (-1, 1), middle]), np.array(
        [[0, 1, 4], [1, 2, 4], [3, 2, 4], [3, 0, 4]]
    )


@few
@given(sizes, st.floats(-0.99, 0.99), st.floats(-0.99, 0.99))
def test_triangles_around_a_point_cover_every_pixel_once(size: tuple[int, int], x: float, y: float) -> None:
    pos, tri = fan((x, y))
    found = fragments(pos, tri, size)
    assert sorted(zip(found.row.tolist(), found.column.tolist(), strict=True)) == list(np.ndindex(size))


@few
@given(seeds)
def test_any_triangulated_grid_covers_every_pixel_once_even_with_vertices_on_pixel_centres(seed: int) -> None:
    rng = np.random.default_rng(seed)
    grid = np.mgrid[-1:1:5j, -1:1:5j].transpose(1, 2, 0)[..., ::-1].copy()
    # Inner vertices move by whole half pixels: many lie on centres, many edges pass through centres.
    grid[1:4, 1:4] += rng.integers(-2, 3, (3, 3, 2)) / 16
    tri = []
    for row, column in np.ndindex(4, 4):
        a, b, c, d = (row * 5 + column + step for step in (0, 1, 5, 6))
        tri += [[a, b, d], [a, c, d]] if rng.random() < 0.5 else [[a, b, c], [d, b, c]]
    found = fragments(flat_triangles(grid.reshape(-1, 2)), np.array(tri), (16, 16))
    assert sorted(zip(found.row.tolist(), found.column.tolist(), strict=True)) == list(np.ndindex(16, 16))


@few
@given(st.integers(0, 12), st.integers(0, 9), st.integers(1, 12), st.integers(1, 9))
def test_a_rectangle_covers_its_area_in_pixels(left: int, low: int, width: int, height: int) -> None:
    right, top = min(left + width, 12), min(low + height, 9)
    xs, ys = np.array([left, right]) / 6 - 1, np.array([low, top]) / 4.5 - 1
    pos = flat_triangles([(xs[0], ys[0]), (xs[1], ys[0]), (xs[1], ys[1]), (xs[0], ys[1])])
    rast, _ = reference.rasterize(pos, [[0, 1, 2], [0, 2, 3]], (9, 12))
    drawn = rast[0, :, :, 3] > 0
    assert drawn.sum() == (right - left) * (top - low)
    assert drawn[low:top, left:right].all()


def test_left_and_lower_edges_are_drawn_and_right_and_upper_ones_not() -> None:
    """A square from pixel centre to pixel centre, in both windings."""
    pos = flat_triangles([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])
    for tri in ([[0, 1, 2], [0, 2, 3]], [[2, 1, 0], [3, 2, 0]]):
        rast, _ = reference.rasterize(pos, tri, (2, 2))
        np.testing.assert_array_equal(rast[0, :, :, 3] > 0, [[True, False], [False, False]])


def test_the_triangle_that_the_seeds_draw() -> None:
    """(0,0), (1,0), (0,1): in the upper right quarter (row 0 is the bottom), u + v falling away from the origin."""
    rast, slopes = reference.rasterize(flat_triangles([(0, 0), (1, 0), (0, 1)]), [[0, 1, 2]], (8, 8))
    ids = np.zeros((8, 8))
    for row in range(4, 8):
        ids[row, 4 : 11 - row] = 1
    np.testing.assert_array_equal(rast[0, :, :, 3], ids)
    x, y = pixel_centres(8, 8)[4, 4]
    np.testing.assert_allclose(rast[0, 4, 4], [1 - x - y, x, 0, 1], atol=EXACT)
    np.testing.assert_allclose(slopes[0, 4, 4], [-0.25, -0.25, 0.25, 0], atol=EXACT)


def perspective_triangle(rng: np.random.Generator) -> Array:
    """A triangle that covers the middle of the view, with very different w's."""
    w = rng.uniform(0.5, 4, 3)
    angles = rng.uniform(0, 2 * np.pi) + np.array([0, 2.1, 4.2])
    radius = rng.uniform(0.5, 1, 3)
    x, y = radius * np.cos(angles), radius * np.sin(angles)
    return np.stack([x * w, y * w, rng.uniform(-0.9, 0.9, 3) * w, w], axis=1)[None]


@few
@given(seeds)
def test_barycentrics_depth_and_slopes_solve_the_ray_equation(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pos = perspective_triangle(rng)
    rast, slopes = reference.rasterize(pos, [[0, 1, 2]], (11, 14))
    rows = np.nonzero(rast[0, :, :, 3])

    def solved(shift_x: float, shift_y: float) -> Array:
        """Weights of the vertices at shifted pixels, from (x, y, w) of the vertices mixed being (x, y, 1) * any."""
        centres = pixel_centres(11, 14)[rows] + np.array([shift_x * 2 / 14, shift_y * 2 / 11])
        mixed = np.linalg.solve(pos[0][:, [0, 1, 3]].T, np.column_stack([centres, np.ones(len(centres))]).T).T
        weights: Array = mixed / mixed.sum(axis=1, keepdims=True)
        return weights

    weights = solved(0, 0)
    inside = np.all((weights > 0) & (weights < 1), axis=1)
    np.testing.assert_allclose(rast[0][rows][inside, :2], weights[inside, :2], atol=EXACT)
    depth = (weights @ pos[0, :, 2]) / (weights @ pos[0, :, 3])
    np.testing.assert_allclose(rast[0][rows][inside, 2], depth[inside], atol=EXACT)
    by_x, by_y = (solved(1e-5, 0) - solved(-1e-5, 0)) / 2e-5, (solved(0, 1e-5) - solved(0, -1e-5)) / 2e-5
    expected = np.stack([by_x[:, 0], by_y[:, 0], by_x[:, 1], by_y[:, 1]], axis=1)
    np.testing.assert_allclose(slopes[0][rows], expected, rtol=1e-6, atol=1e-7)


@few
@given(seeds)
def test_interpolated_positions_project_back_onto_their_pixels(seed: int) -> None:
    """The linear attribute that needs perspective to be right: the clip position itself."""
    pos = perspective_triangle(np.random.default_rng(seed))
    tri = [[0, 1, 2]]
    rast, slopes = reference.rasterize(pos, tri, (12, 12))
    values, by_pixel = reference.interpolate(pos, rast, tri, slopes, "all")
    inside = (rast[..., 3] > 0) & (rast[..., :2].min(axis=-1) > 1e-6) & (rast[..., :2].sum(axis=-1) < 1 - 1e-6)
    x, y, _, w = values[inside].T
    centres = pixel_centres(12, 12)[inside[0]]
    np.testing.assert_allclose(np.stack([x / w, y / w], axis=1), centres, atol=EXACT)
    # x/w grows by 2/W a pixel to the right and by nothing upwards.
    x_by_x, x_by_y, _, _, _, _, w_by_x, w_by_y = by_pixel[inside].T
    np.testing.assert_allclose((x_by_x * w - x * w_by_x) / w**2, 2 / 12, atol=EXACT)
    np.testing.assert_allclose((x_by_y * w - x * w_by_y) / w**2, 0, atol=EXACT)
    assert np.all(values[rast[..., 3] == 0] == 0)


@few
@given(seeds)
def test_a_triangle_through_the_camera_covers_what_the_rays_say(seed: int) -> None:
    """With vertices behind the camera and beyond both depth planes, clipping decides; rays need no clipping."""
    rng = np.random.default_rng(seed)
    pos = rng.normal(0, 2, (1, 3, 4))
    rast, _ = reference.rasterize(pos, [[0, 1, 2]], (13, 17))
    centres = pixel_centres(13, 17).reshape(-1, 2)
    mixed = np.linalg.solve(pos[0][:, [0, 1, 3]].T, np.column_stack([centres, np.ones(len(centres))]).T).T
    size = mixed.sum(axis=1)
    # Every vertex's weight positive for a point with w = 1, so w > 0; and z/w = z within the range.
    z = mixed @ pos[0, :, 2]
    margin = np.minimum(mixed.min(axis=1) / np.abs(mixed).max(axis=1), 1 - np.abs(z))
    drawn = rast[0, :, :, 3].reshape(-1) > 0
    assert np.all(drawn[margin > 0.05])
    assert not np.any(drawn[margin < -0.05])
    clearly = drawn & (margin > 0.05)
    weights = (mixed / size[:, None])[clearly]
    np.testing.assert_allclose(rast[0].reshape(-1, 4)[clearly, :2], weights[:, :2], atol=1e-7)


def test_clipping_keeps_a_floor_that_runs_under_the_camera() -> None:
    """The plane y = -1 seen from the origin, reaching behind the camera: drawn below the horizon, not above."""
    near, far = 0.1, 100.0
    points = [(-50, -50.0), (50, -50.0), (0, 80.0)]
    pos = np.array([[[x, -1, (z * (far + near) - 2 * far * near) / (far - near), z] for x, z in points]])
    rast, _ = reference.rasterize(pos, [[0, 1, 2]], (32, 32))
    drawn = rast[0, :, :, 3] > 0
    assert drawn[:15].all()
    assert not drawn[16:].any()


def test_the_nearer_triangle_wins_and_equal_depths_go_to_the_later() -> None:
    square = [(-1, -1), (1, -1), (1, 1), (-1, 1)]
    pos = flat_triangles([(x, y, z) for z in (0.5, -0.5, 0.5) for x, y in square])
    tri = [[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7], [8, 9, 10], [8, 10, 11]]
    layers = reference.peel(pos, tri, (4, 4), 3)
    assert set(np.unique(layers[0][0][..., 3])) == {3, 4}
    assert set(np.unique(layers[1][0][..., 3])) == {5, 6}
    assert not layers[2][0].any()


def test_a_range_draws_what_the_cut_out_triangles_draw_and_keeps_their_numbers() -> None:
    rng = np.random.default_rng(5)
    vertices = rng.uniform(-1, 1, (9, 4)) * [1, 1, 0.5, 0] + [0, 0, 0, 1]
    tri = rng.permutation(9).reshape(3, 3)
    rast, slopes = reference.rasterize(vertices, tri, (9, 9), ranges=[[1, 2], [0, 1]])
    for image, part, offset in ((0, tri[1:], 1), (1, tri[:1], 0)):
        alone, alone_slopes = reference.rasterize(vertices[None], part, (9, 9))
        alone[..., 3] += offset * (alone[..., 3] > 0)
        np.testing.assert_array_equal(rast[image], alone[0])
        np.testing.assert_array_equal(slopes[image], alone_slopes[0])


@few
@given(st.one_of(st.integers(0, 2**24 + 2), st.integers(2**24 - 2, 889192447 - 1)))
def test_triangle_numbers_survive_as_floats(number: int) -> None:
    as_float = reference.id_to_float(np.array([number])).astype(np.float32)
    assert reference.float_to_id(as_float).tolist() == [number]
    assert np.isfinite(as_float).all()


def ramp(height: int, width: int) -> Array:
    """A texture whose value is its own coordinate: (u, v) <1,H,W,2>."""
    return (pixel_centres(height, width)[None] + 1) / 2


@few
@given(seeds, st.sampled_from(["wrap", "clamp", "zero"]))
def test_a_ramp_reads_back_its_coordinate_between_the_outer_texel_centres(seed: int, boundary: str) -> None:
    rng = np.random.default_rng(seed)
    uv = rng.uniform([0.5 / 8, 0.5 / 16], [1 - 0.5 / 8, 1 - 0.5 / 16], (1, 5, 6, 2))
    found = reference.texture(ramp(16, 8), Lookup(uv, filter_mode="linear", boundary_mode=boundary))
    np.testing.assert_allclose(found, uv, atol=EXACT)


@few
@given(seeds, st.floats(0, 2.4))
def test_a_ramp_reads_back_its_coordinate_at_every_mip_level(seed: int, level: float) -> None:
    rng = np.random.default_rng(seed)
    uv = rng.uniform(0.25, 0.75, (1, 4, 3, 2))
    lookup = Lookup(uv, bias=np.full((1, 4, 3), level), boundary_mode="clamp")
    np.testing.assert_allclose(reference.texture(ramp(16, 16), lookup), uv, atol=EXACT)


@few
@given(st.floats(-3, 3), st.floats(-3, 3))
def test_boundary_modes_beyond_the_texture(u: float, v: float) -> None:
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


def test_wrap_mixes_the_first_and_the_last_texel_and_zero_fades_out() -> None:
    tex = np.array([[[[1.0], [3.0], [5.0], [9.0]]]])
    at = np.array([[[[0.0, 0.5], [1.0, 0.5], [-0.125, 0.5], [0.0625, 0.5]]]])
    wrapped = reference.texture(tex, Lookup(at, filter_mode="linear"))
    np.testing.assert_allclose(wrapped[0, 0, :, 0], [5, 5, 9, 3], atol=EXACT)
    faded = reference.texture(tex, Lookup(at, filter_mode="linear", boundary_mode="zero"))
    np.testing.assert_allclose(faded[0, 0, :, 0], [0.5, 4.5, 0, 0.75], atol=EXACT)


@few
@given(seeds)
def test_the_mip_level_is_the_log_of_the_larger_singular_value(seed: int) -> None:
    rng = np.random.default_rng(seed)
    slopes = rng.normal(0, 0.2, (1, 1, 1, 4))
    in_texels = slopes.reshape(2, 2) * [[32], [64]]
    expected = np.log2(np.linalg.svd(in_texels, compute_uv=False)[0]) + 0.25
    lookup = Lookup(np.zeros((1, 1, 1, 2)), slopes, np.full((1, 1, 1), 0.25))
    found = sampling.mip_level(lookup, (64, 32), 7)
    np.testing.assert_allclose(found, np.clip(expected, 0, 6), atol=EXACT)


def test_mip_levels_are_box_averages_and_odd_extents_are_refused() -> None:
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
    """A cube map whose texels hold their own direction, scaled to the cube's surface <1,6,S,S,3>."""
    steps = (np.arange(size) + 0.5) * 2 / size - 1
    tc, sc = np.meshgrid(steps, steps, indexing="ij")
    one = np.ones_like(sc)
    # +x, -x, +y, -y, +z, -z of the OpenGL specification, table 8.19.
    faces = [(one, -tc, -sc), (-one, -tc, sc), (sc, one, tc), (sc, -one, -tc), (sc, -tc, one), (-sc, -tc, -one)]
    return np.stack([np.stack(face, axis=-1) for face in faces])[None]


@few
@given(seeds)
def test_a_cube_of_directions_reads_back_the_direction(seed: int) -> None:
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
def test_a_cube_has_no_seams(seed: int) -> None:
    """Both sides of every edge give the same, and so do the three sides of every corner."""
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


def test_at_a_corner_of_the_cube_three_texels_count_a_third_each() -> None:
    tex = np.zeros((1, 6, 4, 4, 6))
    for face in range(6):
        tex[0, face, ..., face] = 1
    corner = Lookup(np.array([[[[1.0, -1.0, 1.0]]]]), filter_mode="linear", boundary_mode="cube")
    found = reference.texture(tex, corner)[0, 0, 0]
    np.testing.assert_allclose(found, [1 / 3, 0, 0, 1 / 3, 1 / 3, 0], atol=EXACT)
    nowhere = Lookup(np.zeros((1, 1, 1, 3)), filter_mode="linear", boundary_mode="cube")
    assert not reference.texture(tex, nowhere).any()


@few
@given(seeds)
def test_cube_slopes_are_the_derivatives_of_the_place(seed: int) -> None:
    rng = np.random.default_rng(seed)
    direction, by_pixel = rng.normal(size=(4, 3)), rng.normal(size=(4, 6))
    face = cube.face_of(direction)
    for axis in range(2):
        moved = by_pixel[:, axis::2] * 1e-6
        change = (cube.place_on(face, direction + moved) - cube.place_on(face, direction - moved)) / 2e-6
        slopes = cube.slopes_on(face, direction, by_pixel)
        np.testing.assert_allclose(slopes[:, axis::2], change, rtol=1e-5, atol=1e-6)


@few
@given(st.floats(3.0, 13.0), st.floats(3.0, 13.0), st.booleans())
def test_a_straight_silhouette_becomes_the_covered_share_of_its_pixels(edge: float, top: float, flip: bool) -> None:
    """White right of (or below, if flipped) an upright edge on black: each pixel's value is its covered area."""
    x = edge / 8 - 1
    corners = [(x, -1.5), (1.5, -1.5), (1.5, 1.5), (x, 1.5)]
    pos = flat_triangles([(c[1], c[0]) if flip else c for c in corners])
    tri = [[0, 1, 2], [0, 2, 3]]
    rast, _ = reference.rasterize(pos, tri, (16, 16))
    smooth = reference.antialias((rast[..., 3:] > 0) * 1.0, rast, pos, tri)[0, :, :, 0]
    share = np.clip(np.arange(16) + 1 - edge, 0, 1)
    expected = np.broadcast_to(share[:, None] if flip else share, (16, 16))
    snapped_away = np.abs(edge % 1 - 0.5) < 1 / 32
    if not snapped_away:
        np.testing.assert_allclose(smooth, expected, atol=EXACT)


def test_edges_between_triangles_of_one_surface_are_left_alone() -> None:
    pos, tri = fan((0.13, -0.21))
    rast, _ = reference.rasterize(pos, tri, (9, 9))
    color = np.random.default_rng(0).random((1, 9, 9, 2))
    np.testing.assert_array_equal(reference.antialias(color, rast, pos, tri), color)


@few
@given(st.floats(4.05, 4.45), st.floats(-0.4, 0.4))
def test_a_slanted_silhouette_moves_by_what_it_crosses(base: float, lean: float) -> None:
    """An edge that leans by less than a pixel blends, in every row, where it crosses the row's centre line."""
    low, high = base / 4 - 1, (base + lean) / 4 - 1
    pos = flat_triangles([(low, -1), (2, -1), (2, 1), (high, 1)])
    tri = [[0, 1, 2], [0, 2, 3]]
    rast, _ = reference.rasterize(pos, tri, (8, 8))
    smooth = reference.antialias((rast[..., 3:] > 0) * 1.0, rast, pos, tri)[0, :, :, 0]
    crossing = base + lean * (np.arange(8) + 0.5) / 8
    clear = np.abs(crossing % 1 - 0.5) > 1 / 16
    np.testing.assert_allclose(smooth.sum(axis=1)[clear], (8 - crossing)[clear], atol=EXACT)


def differences(loss: Any, values: Array, step: float = 1e-6) -> Array:
    """Central differences of a loss by every entry."""
    result = np.zeros(values.shape)
    for place in np.ndindex(values.shape):
        moved = values.copy()
        moved[place] += step
        above = loss(moved)
        moved[place] -= 2 * step
        result[place] = (above - loss(moved)) / (2 * step)
    return result


def test_gradients_of_rasterize_are_its_differences() -> None:
    rng = np.random.default_rng(3)
    pos, tri = perspective_triangle(rng), np.array([[0, 1, 2]])
    rast, _ = reference.rasterize(pos, tri, (9, 10))
    ids = (rast[..., 3] * (rast[..., :2].min(axis=-1) > 0.02) * (rast[..., :2].sum(axis=-1) < 0.98)).astype(int)
    d_rast, d_slopes = rng.normal(size=rast.shape) * [1, 1, 0, 0], rng.normal(size=rast.shape)

    def loss(moved: Array) -> float:
        found, slopes = reference.shade(moved, tri, ids)
        return float(np.sum(found * d_rast) + np.sum(slopes * d_slopes))

    found = reference.raster.gradient(pos, tri, ids, d_rast, d_slopes)
    np.testing.assert_allclose(found, differences(loss, pos), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batched", [True, False])
def test_gradients_of_interpolate_are_its_differences(batched: bool) -> None:
    rng = np.random.default_rng(4)
    pos, tri = fan((0.1, 0.2))
    pos = np.concatenate([pos, pos * [1, 0.5, 1, 1]])
    rast, slopes = reference.rasterize(pos, tri, (5, 6))
    attr = rng.normal(size=(2, 5, 3) if batched else (5, 3))
    chosen = [2, -3]
    d_values, d_pairs = rng.normal(size=(2, 5, 6, 3)), rng.normal(size=(2, 5, 6, 4))

    def loss(attr: Array = attr, rast: Array = rast, slopes: Array = slopes) -> float:
        values, pairs = reference.interpolate(attr, rast, tri, slopes, chosen)
        return float(np.sum(values * d_values) + np.sum(pairs * d_pairs))

    d_attr, d_rast, d_slopes = reference.attributes.gradients(
        attr, rast, tri, d_values, slopes=slopes, chosen=chosen, d_pairs=d_pairs
    )
    np.testing.assert_allclose(d_attr, differences(lambda moved: loss(attr=moved), attr), atol=1e-6)
    by_rast = differences(lambda uv: loss(rast=np.concatenate([uv, rast[..., 2:]], axis=-1)), rast[..., :2].copy())
    np.testing.assert_allclose(d_rast[..., :2], by_rast, atol=1e-6)
    np.testing.assert_allclose(d_slopes, differences(lambda moved: loss(slopes=moved), slopes), atol=1e-6)


@pytest.mark.parametrize("boundary", sampling.BOUNDARY_MODES)
@pytest.mark.parametrize("mode", sampling.FILTER_MODES)
def test_gradients_of_texture_are_its_differences(mode: str, boundary: str) -> None:
    rng = np.random.default_rng(6)
    is_cube = boundary == "cube"
    tex = rng.normal(size=(1, 6, 4, 4, 2) if is_cube else (1, 4, 8, 2))
    uv = rng.normal(size=(1, 3, 4, 3)) if is_cube else rng.uniform(-0.3, 1.3, (1, 3, 4, 2))
    mips = "mipmap" in mode
    uv_da = rng.normal(0, 0.3, (1, 3, 4, uv.shape[-1] * 2)) if mips else None
    bias = rng.uniform(-0.2, 0.2, (1, 3, 4)) if mips else None
    d_out = rng.normal(size=(1, 3, 4, 2))
    lookup = Lookup(uv, uv_da, bias, mode, boundary)

    def loss(**changed: Any) -> float:
        texels = changed.pop("tex", tex)
        return float(np.sum(reference.texture(texels, Lookup(**{**vars(lookup), **changed})) * d_out))

    found = sampling.gradients(tex, lookup, d_out)
    np.testing.assert_allclose(found.tex, differences(lambda moved: loss(tex=moved), tex), atol=1e-6)
    for name in ("uv", "uv_da", "bias"):
        part = getattr(found, name)
        assert (part is None) == (mode == "nearest" if name == "uv" else mode != "linear-mipmap-linear")
        if part is not None:
            by = differences(lambda moved, name=name: loss(**{name: moved}), getattr(lookup, name))
            np.testing.assert_allclose(part, by, rtol=1e-4, atol=1e-4)


def test_gradients_of_antialias_are_its_differences() -> None:
    rng = np.random.default_rng(8)
    pos = perspective_triangle(rng)
    tri = np.array([[0, 1, 2]])
    rast, _ = reference.rasterize(pos, tri, (12, 12))
    color, d_out = rng.normal(size=(1, 12, 12, 3)), rng.normal(size=(1, 12, 12, 3))

    def loss(color: Array = color, pos: Array = pos) -> float:
        return float(np.sum(reference.antialias(color, rast, pos, tri) * d_out))

    d_color, d_pos = reference.edges.gradients(color, rast, pos, tri, d_out)
    assert len(reference.edges.blends(rast, pos, tri).alpha) > 8
    np.testing.assert_allclose(d_color, differences(lambda moved: loss(color=moved), color), atol=1e-6)
    np.testing.assert_allclose(d_pos, differences(lambda moved: loss(pos=moved), pos), rtol=1e-5, atol=1e-5)
