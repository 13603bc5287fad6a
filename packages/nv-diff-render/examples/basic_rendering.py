"""Draw three blocks: python basic_rendering.py [PICTURE]."""

import sys

import torch
from nv_diff_render import (
    DifferentiableBlockRenderer,
    create_look_at_matrix,
    create_perspective_matrix,
    material_name_to_index,
    pictures,
)

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
renderer = DifferentiableBlockRenderer(grid_size=(64, 48, 64), world_scale=2.0, device=device)

positions = [(32, 5, 32), (33, 5, 32), (32, 6, 32)]
material_logits = torch.zeros((3, 8), device=device)
material_logits[0, material_name_to_index("Stone")] = 10.0
material_logits[1, material_name_to_index("Grass")] = 10.0
material_logits[2, material_name_to_index("Dirt")] = 10.0

view = create_look_at_matrix(eye=(0.0, 20.0, 30.0), center=(0.0, 5.0, 0.0), up=(0.0, 1.0, 0.0)).to(device)
proj = create_perspective_matrix(fov_y_rad=1.047, aspect=1.0, near=0.1, far=500.0).to(device)

rgba = renderer.render(positions, material_logits, view, proj, img_h=512, img_w=512)
pictures.save_png(sys.argv[1] if len(sys.argv) > 1 else "basic_rendering.png", rgba[0, :3])
