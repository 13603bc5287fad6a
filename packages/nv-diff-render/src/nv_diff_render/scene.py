"""A scene of fixed blocks: their faces, the faces that each camera sees, and pictures for any materials.

Faces and visibility do not depend on materials and are cached. A training step therefore only mixes the colours of the
visible faces and gathers them to pixels.
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

# The number of camera sets in the visibility cache.
_CAMERAS = 64


@dataclass(frozen=True)
class Materials:
    """The conversion of logits to material weights; see mesh_builder.material_weights."""

    temperature: float = 1.0
    hard: bool = False
    exclude_air: bool = False
    gumbel: torch.Generator | None = None


@dataclass(frozen=True)
class RenderOptions:
    """Cameras, picture size and colours of a picture.

    view, projection: matrices [4, 4] or [B, 4, 4]. img_h, img_w: size in pixels. quantize: round colours to k/255.

    Raises:
        ValueError: if the height or width is not a positive integer.
    """

    view: torch.Tensor
    projection: torch.Tensor
    img_h: int
    img_w: int
    materials: Materials = Materials()
    quantize: bool = True

    def __post_init__(self) -> None:
        for name, value in (("img_h", self.img_h), ("img_w", self.img_w)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value!r}: expected an integer >= 1")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.img_h, self.img_w


@dataclass(frozen=True)
class Visibility:
    """The part of a scene that cameras see.

    ``chosen`` int64 [C]: the visible faces. ``pixel`` int64 [B, H, W]: the index into ``chosen`` that a pixel shows, C
    for the sky. ``depth`` float32 [B, H, W]: as in the depth buffer of WebGPU, 0 (near) to 1; 1 for the sky. ``blocks``
    int64 [U]: the distinct blocks of these faces. ``block`` int64 [C]: the index into ``blocks`` of each face.
    """

    chosen: torch.Tensor
    pixel: torch.Tensor
    depth: torch.Tensor
    blocks: torch.Tensor
    block: torch.Tensor


@dataclass(frozen=True)
class Frame:
    """Pictures of B cameras, row 0 at the top.

    ``rgba`` [B, 4, H, W]: colour over the sky, and coverage, 0 for the sky. ``depth`` [B, 1, H, W]: see Visibility.
    ``normals`` [B, 3, H, W]: 0 for the sky. ``block_ids`` int64 [B, H, W]: indices of positions, -1 for the sky.
    """

    rgba: torch.Tensor
    depth: torch.Tensor
    normals: torch.Tensor
    block_ids: torch.Tensor

    @property
    def coverage(self) -> torch.Tensor:
        """1 for blocks and 0 for the sky, [B, 1, H, W]."""
        return self.rgba[:, 3:].detach()


class Scene:
    """The faces of blocks, rasterized by ``backend``."""

    def __init__(self, faces: BlockFaces, backend: Backend) -> None:
        self.faces = faces
        self.backend = backend
        self._visibilities: OrderedDict[tuple[bytes, tuple[int, int]], Visibility] = OrderedDict()

    def render(self, logits: torch.Tensor, options: RenderOptions) -> torch.Tensor:
        """Return the pictures [B, 4, H, W]; see Frame.rgba."""
        check_count(self.faces.positions, logits)
        visible = self.visibility(options)
        device, dtype = logits.device, logits.dtype
        side = self.faces.side[visible.chosen]
        shader = TerrainShader(device, dtype)
        slot = torch.tensor(SLOTS, device=device)[side]
        colors = block_colors(self._weights(logits, visible.blocks, options.materials))[visible.block, slot]
        lit = as_unorm8(colors * shader.side_lights()[side], quantize=options.quantize)
        table = torch.cat([lit, shader.sky()[None]]).T
        rgb = _gather_colors(table, visible.pixel)
        covered = (visible.pixel < len(visible.chosen)).to(dtype)
        return torch.cat([rgb, covered[:, None]], dim=1)

    def frame(self, logits: torch.Tensor, options: RenderOptions) -> Frame:
        """Return the pictures with depth, normals and block ids."""
        rgba = self.render(logits, options)
        visible = self.visibility(options)
        normals = torch.tensor(NORMALS, device=logits.device)[self.faces.side[visible.chosen]]
        block = torch.cat([self.faces.block[visible.chosen], visible.chosen.new_tensor([-1])])
        normals = torch.cat([normals, normals.new_zeros(1, 3)])
        return Frame(rgba, visible.depth[:, None], normals[visible.pixel].permute(0, 3, 1, 2), block[visible.pixel])

    def visibility(self, options: RenderOptions) -> Visibility:
        """Return the part of the scene that the cameras see; results for recent cameras are cached."""
        matrices = view_projection(options.view, options.projection)
        key = (matrices.cpu().numpy().tobytes(), options.size)
        if key not in self._visibilities:
            self._visibilities[key] = self._find_visible(matrices, options.size)
            while len(self._visibilities) > _CAMERAS:
                self._visibilities.popitem(last=False)
        self._visibilities.move_to_end(key)
        return self._visibilities[key]

    def _weights(self, logits: torch.Tensor, blocks: torch.Tensor, materials: Materials) -> torch.Tensor:
        options: dict[str, Any] = vars(materials)
        if materials.gumbel is not None:
            # Sample all blocks, so that the material of a block does not depend on which other blocks are visible.
            return material_weights(logits, **options)[blocks]
        return material_weights(logits[blocks], **options)

    def _find_visible(self, matrices: torch.Tensor, size: tuple[int, int]) -> Visibility:
        """Return the faces that the cameras see, after rasterizing the faces that point towards each of them."""
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
        """Return the visible faces int64 [H, W], len(faces) for the sky, and the depths float32 [H, W]."""
        near = self._faces_towards(matrix)
        if not len(near):
            sky = torch.full(size, len(self.faces), device=near.device)
            return sky, torch.ones(size, device=near.device)
        clip = world_to_clip(self.faces.corners(near).reshape(-1, 3), matrix)
        first = torch.arange(len(near), dtype=torch.int32, device=near.device)[:, None] * 4
        triangles = (first + torch.tensor(TRIANGLES, dtype=torch.int32, device=near.device)).reshape(-1, 3)
        ids, depth = self.backend.rasterize(clip[None], triangles, size)
        face = torch.div(ids[0].long() - 1, 2, rounding_mode="floor")
        return torch.where(face >= 0, near[face.clamp(min=0)], len(self.faces)), depth[0]

    def _faces_towards(self, matrix: torch.Tensor) -> torch.Tensor:
        """Return the faces int64 [F'] whose front points towards the camera, inside or outside the picture."""
        # The centre of projection as (x, y, z, w); w is 0 for an orthographic camera.
        eye = torch.linalg.inv(matrix.double()) @ matrix.new_tensor([0, 0, -1, 0], dtype=torch.float64)
        side = self.faces.side
        normal = torch.tensor(NORMALS, dtype=torch.float64, device=side.device)
        origin = torch.tensor(self.faces.grid.origin, dtype=torch.float64, device=side.device)
        # The plane of a side is at one coordinate of its block, or one cell further.
        axis = torch.tensor([0, 0, 1, 1, 2, 2], device=side.device)
        lower = (self.faces.positions + origin) * self.faces.grid.world_scale
        at = lower[self.faces.block, axis[side]] + (side % 2 == 0) * self.faces.grid.world_scale
        toward = (normal @ eye[:3])[side] - eye[3] * at * normal.sum(1)[side]
        return (toward > -1e-6 * float(eye.abs().max())).nonzero().squeeze(1)


def _gather_colors(table: torch.Tensor, pixel: torch.Tensor) -> torch.Tensor:
    """Return the colours [3, C] of the table at the pixels [B, H, W], [B, 3, H, W]."""
    result: torch.Tensor = _Gather.apply(table, pixel)
    return result


class _Gather(torch.autograd.Function):
    """Indexing with a gradient that is summed per channel, several times faster than the derivative of torch."""

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
