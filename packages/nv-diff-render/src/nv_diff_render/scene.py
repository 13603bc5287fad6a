"""Blocks that stay where they are: their faces, which of them each camera sees, and their picture for any materials.

Neither the faces nor what a camera sees depend on materials, so both are kept; what is left of a step of learning is to
mix colours for the faces in sight and to hand them to pixels.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch

from nv_diff_render.backends import Backend
from nv_diff_render.mesh_builder import SLOTS, TRIANGLES, BlockFaces, block_colors, check_count, material_weights
from nv_diff_render.shading import NORMALS, TerrainShader, as_unorm8
from nv_diff_render.utils import view_projection, world_to_clip

# How many cameras' visibility is kept.
_CAMERAS = 64


@dataclass(frozen=True)
class Materials:
    """How logits become the weights of materials; see mesh_builder.material_weights."""

    temperature: float = 1.0
    hard: bool = False
    exclude_air: bool = False
    gumbel: torch.Generator | None = None


@dataclass(frozen=True)
class Visibility:
    """What cameras see of a scene.

    ``chosen`` int64 <C>: the faces that any pixel shows. ``pixel`` int64 <B,H,W>: which of them, C for the sky.
    ``depth`` float32 <B,H,W>: as WebGPU's depth buffer, 0 (near) to 1, 1 for the sky. ``blocks`` int64 <U>: the blocks
    of those faces, each once; ``block`` int64 <C>: which of them a face belongs to.
    """

    chosen: torch.Tensor
    pixel: torch.Tensor
    depth: torch.Tensor
    blocks: torch.Tensor
    block: torch.Tensor


@dataclass(frozen=True)
class Frame:
    """Pictures of B cameras, row 0 at the top.

    ``rgba`` <B,4,H,W>: colour over the sky, and coverage, 0 for the sky. ``depth`` <B,1,H,W>: see Visibility.
    ``normals`` <B,3,H,W>: 0 for the sky. ``block_ids`` int64 <B,H,W>: indices of positions, -1 for the sky.
    """

    rgba: torch.Tensor
    depth: torch.Tensor
    normals: torch.Tensor
    block_ids: torch.Tensor

    @property
    def coverage(self) -> torch.Tensor:
        """1 where a block is, 0 where the sky is, <B,1,H,W>."""
        return self.rgba[:, 3:].detach()


class Scene:
    """Pictures of ``faces``, as ``backend`` rasterizes them."""

    def __init__(self, faces: BlockFaces, backend: Backend) -> None:
        self.faces = faces
        self.backend = backend
        self._seen: OrderedDict[tuple[bytes, tuple[int, int]], Visibility] = OrderedDict()

    def render(
        self,
        logits: torch.Tensor,
        view: torch.Tensor,
        projection: torch.Tensor,
        size: tuple[int, int],
        materials: Materials,
        *,
        quantize: bool = True,
    ) -> torch.Tensor:
        """The pictures <B,4,H,W> of cameras <4,4> or <B,4,4>, ``size`` is height and width; see Frame."""
        check_count(self.faces.positions, logits)
        seen = self.visibility(view, projection, size)
        device, dtype = logits.device, logits.dtype
        side = self.faces.side[seen.chosen]
        shader = TerrainShader(device, dtype)
        slot = torch.tensor(SLOTS, device=device)[side]
        colors = block_colors(self._weights(logits, seen.blocks, materials))[seen.block, slot]
        lit = as_unorm8(colors * shader.side_lights()[side], quantize=quantize)
        table = torch.cat([lit, shader.sky()[None]]).T
        rgb = _to_pixels(table, seen.pixel)
        covered = (seen.pixel < len(seen.chosen)).to(dtype)
        return torch.cat([rgb, covered[:, None]], dim=1)

    def frame(
        self,
        logits: torch.Tensor,
        view: torch.Tensor,
        projection: torch.Tensor,
        size: tuple[int, int],
        materials: Materials,
        *,
        quantize: bool = True,
    ) -> Frame:
        """The pictures, and what else there is to know of every pixel."""
        rgba = self.render(logits, view, projection, size, materials, quantize=quantize)
        seen = self.visibility(view, projection, size)
        normals = torch.tensor(NORMALS, device=logits.device)[self.faces.side[seen.chosen]]
        block = torch.cat([self.faces.block[seen.chosen], seen.chosen.new_tensor([-1])])
        normals = torch.cat([normals, normals.new_zeros(1, 3)])
        return Frame(rgba, seen.depth[:, None], normals[seen.pixel].permute(0, 3, 1, 2), block[seen.pixel])

    def visibility(self, view: torch.Tensor, projection: torch.Tensor, size: tuple[int, int]) -> Visibility:
        """What cameras see; that of the last cameras is kept."""
        matrices = view_projection(view, projection)
        key = (matrices.cpu().numpy().tobytes(), size)
        if key not in self._seen:
            self._seen[key] = self._look(matrices, size)
            while len(self._seen) > _CAMERAS:
                self._seen.popitem(last=False)
        self._seen.move_to_end(key)
        return self._seen[key]

    def _weights(self, logits: torch.Tensor, blocks: torch.Tensor, materials: Materials) -> torch.Tensor:
        options: dict[str, Any] = vars(materials)
        if materials.gumbel is not None:
            # Drawn for all blocks, so that what a block is does not depend on which others are in sight.
            return material_weights(logits, **options)[blocks]
        return material_weights(logits[blocks], **options)

    def _look(self, matrices: torch.Tensor, size: tuple[int, int]) -> Visibility:
        """Rasterize for every camera the faces that are turned towards it."""
        device = self.faces.block.device
        pictures = [self._rasterize(matrix, size) for matrix in matrices.to(device)]
        shown = torch.stack([face for face, _ in pictures])
        depth = torch.stack([depth for _, depth in pictures])
        mark = torch.zeros(len(self.faces) + 1, dtype=torch.bool, device=device)
        mark[shown.reshape(-1)] = True
        chosen = mark[:-1].nonzero().squeeze(1)
        row = torch.full((len(mark),), len(chosen), device=device)
        row[chosen] = torch.arange(len(chosen), device=device)
        blocks, block = self.faces.block[chosen].unique(return_inverse=True)
        return Visibility(chosen, row[shown], depth, blocks, block)

    def _rasterize(self, matrix: torch.Tensor, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        """The faces int64 <H,W> that a camera sees, their count for the sky, and the depths float32 <H,W>."""
        near = self._facing(matrix)
        if not len(near):
            sky = torch.full(size, len(self.faces), device=near.device)
            return sky, torch.ones(size, device=near.device)
        clip = world_to_clip(self.faces.corners(near).reshape(-1, 3), matrix)
        first = torch.arange(len(near), dtype=torch.int32, device=near.device)[:, None] * 4
        triangles = (first + torch.tensor(TRIANGLES, dtype=torch.int32, device=near.device)).reshape(-1, 3)
        ids, depth = self.backend.rasterize(clip[None], triangles, size)
        face = torch.div(ids[0].long() - 1, 2, rounding_mode="floor")
        return torch.where(face >= 0, near[face.clamp(min=0)], len(self.faces)), depth[0]

    def _facing(self, matrix: torch.Tensor) -> torch.Tensor:
        """The faces int64 <F'> whose outside the camera may see; which corners are in the picture is not asked."""
        # Where all lines of sight meet, as (x, y, z, w); at infinity, w = 0, for an orthographic camera.
        eye = torch.linalg.inv(matrix.double()) @ matrix.new_tensor([0, 0, -1, 0], dtype=torch.float64)
        side = self.faces.side
        normal = torch.tensor(NORMALS, dtype=torch.float64, device=side.device)
        origin = torch.tensor(self.faces.grid.origin, dtype=torch.float64, device=side.device)
        # A side's plane is one coordinate of its block: that of the block, or one more.
        axis = torch.tensor([0, 0, 1, 1, 2, 2], device=side.device)
        lower = (self.faces.positions + origin) * self.faces.grid.world_scale
        at = lower[self.faces.block, axis[side]] + (side % 2 == 0) * self.faces.grid.world_scale
        toward = (normal @ eye[:3])[side] - eye[3] * at * normal.sum(1)[side]
        return (toward > -1e-6 * float(eye.abs().max())).nonzero().squeeze(1)


def _to_pixels(table: torch.Tensor, pixel: torch.Tensor) -> torch.Tensor:
    """Colours <3,C> to the pixels <B,H,W> that show them: <B,3,H,W>."""
    result: torch.Tensor = _Gather.apply(table, pixel)
    return result


class _Gather(torch.autograd.Function):
    """Indexing whose gradient is summed channel by channel, several times as fast as what torch derives."""

    @staticmethod
    def forward(context: Any, table: torch.Tensor, pixel: torch.Tensor) -> torch.Tensor:
        context.save_for_backward(pixel)
        context.size = table.shape[1]
        flat = pixel.reshape(-1)
        rows = [channel.index_select(0, flat).reshape(pixel.shape) for channel in table.contiguous()]
        return torch.stack(rows, dim=1)

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (pixel,) = context.saved_tensors
        flat = pixel.reshape(-1)
        sums = (channel.reshape(-1) for channel in gradients[0].unbind(1))
        rows = [channel.new_zeros(context.size).index_add_(0, flat, channel) for channel in sums]
        return torch.stack(rows), None
