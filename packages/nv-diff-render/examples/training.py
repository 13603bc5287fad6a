"""Learn materials of 25 blocks for a given mean colour of the picture: python training.py [PICTURE].

The picture shows the blocks before training and after 100 steps. No mixture of materials reaches this colour, and the
picture shows much sky, so the loss decreases only to the distance of the nearest possible colour. In
training_to_green.py it decreases further.
"""

import sys

import torch
from nv_diff_render import DifferentiableBlockWorld, create_look_at_matrix, create_perspective_matrix, pictures

torch.manual_seed(0)
view = create_look_at_matrix(eye=(0.0, 20.0, 30.0), center=(0.0, 5.0, 0.0), up=(0.0, 1.0, 0.0))
proj = create_perspective_matrix(fov_y_rad=1.047, aspect=1.0, near=0.1, far=500.0)
world = DifferentiableBlockWorld(device=torch.device("cuda" if torch.cuda.is_available() else "cpu"))

# Place blocks with random initial materials.
for x in range(30, 35):
    for z in range(30, 35):
        world.place_block((x, 5, z))

optimizer = torch.optim.Adam(world.parameters(), lr=0.01)
target_color = torch.tensor([0.5, 0.8, 0.3], device=world.device)
before = world.render(view, proj, img_h=256, img_w=256)

for step in range(100):
    optimizer.zero_grad()
    rgba = world.render(view, proj, img_h=256, img_w=256, temperature=1.0)
    rendered_rgb = rgba[0, :3, :, :]
    loss = ((rendered_rgb.mean(dim=[1, 2]) - target_color) ** 2).sum()
    loss.backward()
    optimizer.step()
    if step % 10 == 0:
        print(f"Step {step}: loss = {loss.item():.4f}")

after = world.render(view, proj, img_h=256, img_w=256)
both = torch.cat([before[0, :3], after[0, :3]], dim=2).detach()
pictures.save_png(sys.argv[1] if len(sys.argv) > 1 else "training.png", both)
