from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nv_diff_render import DifferentiableBlockWorld, get_material_palette
from nv_diff_render.export import export_mesh

trimesh = pytest.importorskip("trimesh", reason="needs trimesh: pip install trimesh")


@pytest.mark.parametrize("ending", [".obj", ".glb"])
def test_exports_faces_and_colours(ending: str, tmp_path: Path) -> None:
    world = DifferentiableBlockWorld((4, 4, 4))
    world.fill((0, 0, 0), (1, 1, 1), "Sand")
    path = tmp_path / f"world{ending}"
    export_mesh(world, path)
    mesh = trimesh.load(path, force="mesh", process=True)
    assert len(mesh.faces) == 24 * 2
    assert mesh.bounds.tolist() == [[-4, 0, -4], [0, 4, 0]]
    colors = {tuple(color) for color in mesh.visual.vertex_colors[:, :3].tolist()}
    assert colors <= {tuple(np.rint(row * 255).astype(int).tolist()) for row in get_material_palette()[6].numpy()}


def test_rejects_empty_worlds_and_unknown_formats(tmp_path: Path) -> None:
    world = DifferentiableBlockWorld((4, 4, 4))
    with pytest.raises(ValueError, match="has no blocks"):
        export_mesh(world, tmp_path / "world.glb")
    with pytest.raises(ValueError, match=r"ends with \.obj or \.glb"):
        export_mesh(world, tmp_path / "world.stl")
    assert not list(tmp_path.iterdir())
