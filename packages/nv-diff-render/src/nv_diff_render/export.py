"""A world as a mesh for other programs: OBJ and GLB, by trimesh."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from nv_diff_render.diff_world import DifferentiableBlockWorld
from nv_diff_render.files import write_whole
from nv_diff_render.materials import MATERIALS
from nv_diff_render.mesh_builder import SLOTS, TRIANGLES, block_colors, material_weights

_FORMATS = (".obj", ".glb")


def export_mesh(world: DifferentiableBlockWorld, path: Path | str) -> None:
    """Write the faces that can be seen, each block in the colours of its likeliest material, without light.

    Args:
        world: at least one block.
        path: its ending says the format, .obj or .glb; colours are those of the corners.

    Raises:
        ValueError: the world is empty, or the ending is another one.
        ImportError: trimesh is not installed.
    """
    path = Path(path)
    if path.suffix.lower() not in _FORMATS:
        raise ValueError(f"{path}: expected a name that ends in {' or '.join(_FORMATS)}")
    if not len(world):
        raise ValueError("the world holds no block: there is nothing to export")
    content: str | bytes = _mesh(world).export(file_type=path.suffix.lower()[1:])
    write_whole(path, content.encode() if isinstance(content, str) else content)


def _mesh(world: DifferentiableBlockWorld) -> Any:
    try:
        import trimesh  # noqa: PLC0415 - only who exports needs it
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
