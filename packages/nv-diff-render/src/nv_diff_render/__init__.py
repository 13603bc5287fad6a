"""A differentiable renderer of block worlds whose pictures equal those of WebGPU."""

from nv_diff_render.camera import (
    create_look_at_matrix,
    create_orbit_views,
    create_orthographic_matrix,
    create_perspective_matrix,
    load_camera_matrices_from_metadata,
)
from nv_diff_render.diff_world import DifferentiableBlockWorld
from nv_diff_render.materials import (
    MATERIALS,
    get_material_densities,
    get_material_palette,
    material_index_to_name,
    material_name_to_index,
)
from nv_diff_render.mesh_builder import build_block_mesh, build_mesh_from_grid
from nv_diff_render.renderer import DifferentiableBlockRenderer
from nv_diff_render.scene import Frame, Materials
from nv_diff_render.shading import TerrainShader, composite_over_sky
from nv_diff_render.utils import (
    block_to_world,
    clip_to_ndc,
    get_face_vertex_world,
    is_in_bounds,
    ndc_to_screen,
    world_to_clip,
)

__version__ = "0.1.0"

__all__ = [
    "MATERIALS",
    "DifferentiableBlockRenderer",
    "DifferentiableBlockWorld",
    "Frame",
    "Materials",
    "TerrainShader",
    "block_to_world",
    "build_block_mesh",
    "build_mesh_from_grid",
    "clip_to_ndc",
    "composite_over_sky",
    "create_look_at_matrix",
    "create_orbit_views",
    "create_orthographic_matrix",
    "create_perspective_matrix",
    "get_face_vertex_world",
    "get_material_densities",
    "get_material_palette",
    "is_in_bounds",
    "load_camera_matrices_from_metadata",
    "material_index_to_name",
    "material_name_to_index",
    "ndc_to_screen",
    "world_to_clip",
]
