"""Meshes that the checks draw. Positions are exact in float32, so the device and the reference get equal input."""

from __future__ import annotations

from typing import Any

import numpy as np

from .reference.arrays import Array

RIGHT_TRIANGLE = ((0.0, 0.0, 0.0, 1.0), (1.0, 0.0, 0.0, 1.0), (0.0, 1.0, 0.0, 1.0))


def exact(values: Any) -> Array:
    """Round values to float32 and return them as float64."""
    return np.asarray(values, np.float32).astype(np.float64)


def right_triangle() -> tuple[Array, Array]:
    """Return one right triangle in the upper right quarter of the view: pos [1, 3, 4], tri [1, 3]."""
    return exact(RIGHT_TRIANGLE)[None], np.array([[0, 1, 2]])


def random_triangles(seed: int, count: int, images: int = 1) -> tuple[Array, Array]:
    """Return random triangles of both windings, in perspective, overlapping, some of them partly outside the view.

    pos [images, 3*count, 4], tri [count, 3].
    """
    rng = np.random.default_rng(seed)
    w = rng.uniform(0.6, 3, (images, count, 3))
    center = rng.uniform(-0.9, 0.9, (images, count, 1, 2))
    angle = rng.uniform(0, 2 * np.pi, (images, count, 1)) + np.array([0, 2.1, 4.2]) * rng.choice([-1, 1], (count, 1))
    radius = rng.uniform(0.35, 0.9, (images, count, 3, 1))
    xy = center + radius * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    depth = rng.uniform(-0.8, 0.8, (images, count, 1)) + rng.uniform(-0.15, 0.15, (images, count, 3))
    pos = np.concatenate([xy * w[..., None], (depth * w)[..., None], w[..., None]], axis=-1)
    return exact(pos.reshape(images, -1, 4)), np.arange(3 * count).reshape(count, 3)


def triangles_to_clip(seed: int, count: int) -> tuple[Array, Array]:
    """Return triangles with vertices behind the camera and beyond the near and far planes.

    pos [1, 3*count, 4], tri [count, 3].
    """
    rng = np.random.default_rng(seed)
    pos = rng.normal(0, 1.5, (1, 3 * count, 4)) + np.array([0, 0, 0, 0.7])
    return exact(pos), np.arange(3 * count).reshape(count, 3)


def fan(center: tuple[float, float] = (0.125, -0.1875)) -> tuple[Array, Array]:
    """Return four triangles around a point that cover the whole view: pos [1, 5, 4], tri [4, 3]."""
    corners = [(-1, -1, 0, 1), (1, -1, 0, 1), (1, 1, 0, 1), (-1, 1, 0, 1), (*center, 0, 1)]
    return exact(corners)[None], np.array([[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]])


def stacked_squares(layers: int) -> tuple[Array, Array]:
    """Return parallel squares, nearest first, each rotated a little more: pos [1, 4*layers, 4], tri [2*layers, 3]."""
    corners = []
    for layer in range(layers):
        angle = 0.3 * layer + 0.1
        depth = -0.7 + 1.3 * layer / max(layers - 1, 1)
        for step in range(4):
            corner_angle = angle + step * np.pi / 2
            corners.append((0.8 * np.cos(corner_angle), 0.8 * np.sin(corner_angle), depth, 1))
    squares = [[[4 * k, 4 * k + 1, 4 * k + 2], [4 * k, 4 * k + 2, 4 * k + 3]] for k in range(layers)]
    return exact(corners)[None], np.array(squares).reshape(-1, 3)


def cube(yaw: float = 0.6, pitch: float = 0.5) -> tuple[Array, Array]:
    """Return a cube in perspective: pos [1, 8, 4] and tri [12, 3]."""
    corners = np.array(list(np.ndindex(2, 2, 2))) * 2.0 - 1
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    tri = np.array([half for a, b, c, d in quads for half in ((a, b, c), (a, c, d))])
    yaw_matrix = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    pitch_matrix = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    camera = corners @ (pitch_matrix @ yaw_matrix).T - np.array([0, 0, 5.0])
    near, far, focal = 1.0, 20.0, 2.3
    z = (camera[:, 2] * -(far + near) - 2 * far * near) / (far - near)
    pos = np.stack([camera[:, 0] * focal, camera[:, 1] * focal, z, -camera[:, 2]], axis=1)
    return exact(pos)[None], tri


def large_triangle() -> tuple[Array, Array]:
    """Return one triangle in perspective that covers most of the view: pos [1, 3, 4], tri [1, 3]."""
    pos = [(-0.9537, -0.9113, 0.1, 1.0), (1.3071, -1.1639, 0.2, 1.4), (0.1127, 1.0391, -0.1, 1.1)]
    return exact(pos)[None], np.array([[0, 1, 2]])


def silhouette_meshes() -> list[tuple[Array, Array, int]]:
    """Return meshes (pos, tri) with silhouettes, and the number of color channels to antialias, for images of 64x64."""
    first, tri = cube()
    second, _ = cube(yaw=-0.35, pitch=0.8)
    return [(np.concatenate([first, second]), tri, 3), (*large_triangle(), 5)]


def view_covering_triangle() -> tuple[Array, Array]:
    """Return one triangle in perspective that covers the whole view with a wide margin: pos [1, 3, 4], tri [1, 3]."""
    pos = [(-4.0, -3.0, 0.1, 1.0), (5.2, -3.9, 0.2, 1.3), (0.3, 4.4, -0.1, 1.1)]
    return exact(pos)[None], np.array([[0, 1, 2]])


def small_triangles(seed: int, count: int) -> tuple[Array, Array]:
    """Return small triangles at random places, with a radius of 0.03: pos [1, 3*count, 4], tri [count, 3]."""
    rng = np.random.default_rng(seed)
    center = rng.uniform(-1, 1, (count, 1, 2))
    angle = rng.uniform(0, 2 * np.pi, (count, 1)) + np.array([0, 2.1, 4.2])
    xy = center + 0.03 * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    depth = np.broadcast_to(rng.uniform(-0.8, 0.8, (count, 1, 1)), (count, 3, 1))
    pos = np.concatenate([xy, depth, np.ones((count, 3, 1))], axis=-1)
    return exact(pos.reshape(1, -1, 4)), np.arange(3 * count).reshape(count, 3)
