"""A fake nvdiffrast.torch with the behaviour that the adapter needs: OpenGL viewport, fill rule and output format.

It is slow, computes in float64 and shares no code with torch_rasterizer. Pixel (row, column) samples NDC
(column+.5)/W*2-1 and (row+.5)/H*2-1; samples with z/w outside [-1, 1] are clipped; a sample on an edge that two
triangles share belongs to one of them.
"""

import numpy as np
import torch


class RasterizeCudaContext:
    def __init__(self, device=None):
        self.device = device


def encode(ids):
    """Return face ids in the encoding of the fourth output channel."""
    ids = np.asarray(ids, np.int64)
    return np.where(ids > 2**24, (ids + 0x4A800000).astype(np.int32).view(np.float32), ids.astype(np.float32))


def rasterize(context, pos, tri, resolution, *, grad_db):
    assert isinstance(context, RasterizeCudaContext) and not grad_db
    assert pos.dtype == torch.float32 and tri.dtype == torch.int32 and pos.is_contiguous() and tri.is_contiguous()
    height, width = resolution
    clip = pos[0].detach().numpy().astype(np.float64)
    columns, rows = np.meshgrid((np.arange(width) + 0.5) / width * 2 - 1, (np.arange(height) + 0.5) / height * 2 - 1)
    samples = np.stack([columns, rows, np.ones_like(rows)], axis=-1)
    drawn, nearest = np.zeros((height, width, 4), np.float32), np.full((height, width), np.inf)
    for index, face in enumerate(tri.numpy()):
        corners = clip[face]
        # Homogeneous rasterization: barycentrics divided by w are linear in NDC and sum to 1/w.
        matrix = corners[:, [0, 1, 3]].T
        if abs(np.linalg.det(matrix)) < 1e-12:
            continue
        over_w = samples @ np.linalg.inv(matrix).T
        inverse_w = over_w.sum(axis=-1)
        with np.errstate(all="ignore"):
            weights = over_w / inverse_w[..., None]
            depth = weights @ corners[:, 2] * inverse_w
        inside = _inside(over_w, matrix) & (inverse_w > 0) & (np.abs(depth) <= 1) & (depth < nearest)
        nearest[inside] = depth[inside]
        drawn[inside] = np.stack([weights[..., 0], weights[..., 1], depth, np.zeros_like(depth)], axis=-1)[inside]
        drawn[inside, 3] = encode(index + 1)
    return torch.from_numpy(drawn)[None], torch.zeros(1, height, width, 0)


def _inside(over_w, matrix):
    """Return the samples inside all three edges; a sample on an edge is inside if it is a top or left edge."""
    facing = np.sign(np.linalg.det(matrix))
    gradients = np.linalg.inv(matrix) * facing
    inside = np.ones(over_w.shape[:2], bool)
    for edge in range(3):
        value = over_w[..., edge]
        owned = gradients[edge, 0] > 0 or (gradients[edge, 0] == 0 and gradients[edge, 1] > 0)
        inside &= (value > 0) | ((np.abs(value) < 1e-12) & owned)
    return inside
