"""Learn materials of 25 blocks for a given colour of the picture: python training_to_green.py [PICTURE].

The picture shows the blocks before training and after 100 steps. The target is the green of grass seen from above,
which a mixture of materials can reach.
"""

import sys

import torch
from nv_diff_render import DifferentiableBlockWorld, create_look_at_matrix, create_perspective_matrix, pictures

torch.manual_seed(0)
world = DifferentiableBlockWorld(device=torch.device("cuda" if torch.cuda.is_available() else "cpu"))
for x in range(30, 35):
    for z in range(30, 35):
        world.place_block((x, 5, z))  # Random initial material.

view = create_look_at_matrix(eye=(1.0, 16.0, 1.0), center=(1.0, 12.0, 1.0), up=(0.0, 0.0, -1.0))
proj = create_perspective_matrix(fov_y_rad=1.047, aspect=1.0)
optimizer = torch.optim.Adam(world.parameters(), lr=0.05)
target_color = torch.tensor([0.38, 0.80, 0.44], device=world.device)
before = world.render(view, proj, img_h=256, img_w=256)

for step in range(100):
    optimizer.zero_grad()
    rgba = world.render(view, proj, img_h=256, img_w=256, temperature=1.0)
    loss = ((rgba[0, :3].mean(dim=[1, 2]) - target_color) ** 2).sum()
    loss.backward()
    optimizer.step()
    if step % 10 == 0:
        print(f"Step {step}: loss = {loss.item():.6f}")

after = world.render(view, proj, img_h=256, img_w=256)
print(f"Done: loss = {loss.item():.6f}")
both = torch.cat([before[0, :3], after[0, :3]], dim=2).detach()
pictures.save_png(sys.argv[1] if len(sys.argv) > 1 else "training_to_green.png", both)
