"""Export of a world as a mesh in OBJ or GLB format, with trimesh."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from nv_diff_render.diff_world import DifferentiableBlockWorld
from nv_diff_render.files import write_atomic
from nv_diff_render.materials import MATERIALS
from nv_diff_render.mesh_builder import SLOTS, TRIANGLES, block_colors, material_weights

_FORMATS = (".obj", ".glb")


def export_mesh(world: DifferentiableBlockWorld, path: Path | str) -> None:
    """Write the visible faces, each block in the unlit colours of its most likely material.

    Args:
        world: a world with at least one block.
        path: the output file; its suffix selects the format, .obj or .glb. Colours are stored per vertex.

    Raises:
        ValueError: if the world is empty or the suffix is not supported.
        ImportError: if trimesh is not installed.
    """
    path = Path(path)
    if path.suffix.lower() not in _FORMATS:
        raise ValueError(f"{path}: expected a name that ends with {' or '.join(_FORMATS)}")
    if not len(world):
        raise ValueError("the world has no blocks: place at least one before the export")
    content: str | bytes = _mesh(world).export(file_type=path.suffix.lower()[1:])
    write_atomic(path, content.encode() if isinstance(content, str) else content)


def _mesh(world: DifferentiableBlockWorld) -> Any:
    try:
        import trimesh  # noqa: PLC0415 - trimesh is optional
    except ImportError as error:
        raise ImportError("exporting needs trimesh: pip install 'nv-diff-render[export]'") from error
    faces = world.scene.faces
    weights = material_weights(world.logits.detach(), hard=True)
    slot = torch.tensor(SLOTS, device=faces.side.device)[faces.side]
    colors = block_colors(weights)[faces.block, slot].repeat_interleave(4, dim=0)
    first = torch.arange(len(faces), device=faces.side.device)[:, None] * 4
    triangles = (first + first.new_tensor(TRIANGLES)).reshape(-1, 3)
    return trimesh.Trimesh(
        vertices=faces.corners().reshape(-1, 3).cpu().numpy(),
        faces=triangles.cpu().numpy(),
        vertex_colors=np.rint(colors.cpu().numpy() * 255).astype(np.uint8),
        metadata={"materials": MATERIALS},
        process=False,
    )
