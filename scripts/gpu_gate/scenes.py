"""Meshes and inputs that the checks draw, exact in float32, so that device and reference see the same."""

from __future__ import annotations

from typing import Any

import numpy as np

from .reference.arrays import Array

SEEDS_TRIANGLE = ((0.0, 0.0, 0.0, 1.0), (1.0, 0.0, 0.0, 1.0), (0.0, 1.0, 0.0, 1.0))


def exact(values: Any) -> Array:
    """The values rounded to float32, as float64."""
    return np.asarray(values, np.float32).astype(np.float64)


def seeds_triangle() -> tuple[Array, Array]:
    """The first thing anyone draws: pos <1,3,4>, tri <1,3>."""
    return exact(SEEDS_TRIANGLE)[None], np.array([[0, 1, 2]])


def tumble(seed: int, count: int, images: int = 1) -> tuple[Array, Array]:
    """Triangles of both windings in perspective, overlapping at many depths, some reaching out of the view.

    pos <images,3*count,4>, tri <count,3>.
    """
    rng = np.random.default_rng(seed)
    w = rng.uniform(0.6, 3, (images, count, 3))
    centre = rng.uniform(-0.9, 0.9, (images, count, 1, 2))
    turn = rng.uniform(0, 2 * np.pi, (images, count, 1)) + np.array([0, 2.1, 4.2]) * rng.choice([-1, 1], (count, 1))
    reach = rng.uniform(0.35, 0.9, (images, count, 3, 1))
    flat = centre + reach * np.stack([np.cos(turn), np.sin(turn)], axis=-1)
    depth = rng.uniform(-0.8, 0.8, (images, count, 1)) + rng.uniform(-0.15, 0.15, (images, count, 3))
    pos = np.concatenate([flat * w[..., None], (depth * w)[..., None], w[..., None]], axis=-1)
    return exact(pos.reshape(images, -1, 4)), np.arange(3 * count).reshape(count, 3)


def through_the_camera(seed: int, count: int) -> tuple[Array, Array]:
    """Triangles with vertices behind the camera and beyond both depth planes: pos <1,3*count,4>, tri <count,3>."""
    rng = np.random.default_rng(seed)
    pos = rng.normal(0, 1.5, (1, 3 * count, 4)) + np.array([0, 0, 0, 0.7])
    return exact(pos), np.arange(3 * count).reshape(count, 3)


def fan(middle: tuple[float, float] = (0.125, -0.1875)) -> tuple[Array, Array]:
    """The whole view in four triangles around a point: pos <1,5,4>, tri <4,3>."""
    corners = [(-1, -1, 0, 1), (1, -1, 0, 1), (1, 1, 0, 1), (-1, 1, 0, 1), (*middle, 0, 1)]
    return exact(corners)[None], np.array([[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]])


def stack(layers: int) -> tuple[Array, Array]:
    """Parallel squares, the later the farther, each turned a little: pos <1,4*layers,4>, tri <2*layers,3>."""
    corners = []
    for layer in range(layers):
        angle = 0.3 * layer + 0.1
        depth = -0.7 + 1.3 * layer / max(layers - 1, 1)
        for step in range(4):
            around = angle + step * np.pi / 2
            corners.append((0.8 * np.cos(around), 0.8 * np.sin(around), depth, 1))
    squares = [[[4 * k, 4 * k + 1, 4 * k + 2], [4 * k, 4 * k + 2, 4 * k + 3]] for k in range(layers)]
    return exact(corners)[None], np.array(squares).reshape(-1, 3)


def cube(turn: float = 0.6, tilt: float = 0.5) -> tuple[Array, Array, Array]:
    """A cube seen in perspective: pos <1,8,4>, tri <12,3>, and its vertices before any projection <8,3>."""
    corners = np.array(list(np.ndindex(2, 2, 2))) * 2.0 - 1
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    tri = np.array([half for a, b, c, d in quads for half in ((a, b, c), (a, c, d))])
    spin = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
    lean = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    seen = corners @ (lean @ spin).T - np.array([0, 0, 5.0])
    near, far, focal = 1.0, 20.0, 2.3
    z = (seen[:, 2] * -(far + near) - 2 * far * near) / (far - near)
    pos = np.stack([seen[:, 0] * focal, seen[:, 1] * focal, z, -seen[:, 2]], axis=1)
    return exact(pos)[None], tri, exact(corners)


def large_triangle() -> tuple[Array, Array]:
    """One triangle over most of the view, in perspective: pos <1,3,4>, tri <1,3>."""
    return exact([[(-0.9537, -0.9113, 0.1, 1.0), (1.3071, -1.1639, 0.2, 1.4), (0.1127, 1.0391, -0.1, 1.1)]]), np.array(
        [[0, 1, 2]]
    )


def whole_view() -> tuple[Array, Array]:
    """One triangle in perspective that hides the whole view, whichever way it is moved a little: pos <1,3,4>, tri."""
    return exact([[(-4.0, -3.0, 0.1, 1.0), (5.2, -3.9, 0.2, 1.3), (0.3, 4.4, -0.1, 1.1)]]), np.array([[0, 1, 2]])


def scatter(seed: int, count: int) -> tuple[Array, Array]:
    """Small triangles all over the view, a thirtieth of it wide: pos <1,3*count,4>, tri <count,3>."""
    rng = np.random.default_rng(seed)
    middle = rng.uniform(-1, 1, (count, 1, 2))
    turn = rng.uniform(0, 2 * np.pi, (count, 1)) + np.array([0, 2.1, 4.2])
    flat = middle + 0.03 * np.stack([np.cos(turn), np.sin(turn)], axis=-1)
    depth = np.broadcast_to(rng.uniform(-0.8, 0.8, (count, 1, 1)), (count, 3, 1))
    pos = np.concatenate([flat, depth, np.ones((count, 3, 1))], axis=-1)
    return exact(pos.reshape(1, -1, 4)), np.arange(3 * count).reshape(count, 3)
