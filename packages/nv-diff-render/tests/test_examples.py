"""Tests of the examples: the pictures they draw and the losses they reach."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from nv_diff_render import (
    DifferentiableBlockWorld,
    create_look_at_matrix,
    create_perspective_matrix,
)
from PIL import Image

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize(
    ("target", "rate", "factor"),
    # No mixture of materials in this light reaches the bright green of the first example: the remaining loss is the
    # distance to the nearest possible colour. The green of grass lit from above can be reached.
    [((0.5, 0.8, 0.3), 0.01, 2.0), ((0.5, 0.8, 0.3), 0.05, 4.0), ((0.38, 0.80, 0.44), 0.05, 10.0)],
)
def test_training_reduces_the_loss(target: tuple[float, float, float], rate: float, factor: float) -> None:
    torch.manual_seed(0)
    world = DifferentiableBlockWorld(device=torch.device("cpu"))
    for x in range(30, 35):
        for z in range(30, 35):
            world.place_block((x, 5, z))
    # The camera is above the blocks and so close that the picture shows only blocks.
    view = create_look_at_matrix(eye=(1.0, 16.0, 1.0), center=(1.0, 12.0, 1.0), up=(0.0, 0.0, -1.0))
    proj = create_perspective_matrix(fov_y_rad=1.047, aspect=1.0)
    optimizer = torch.optim.Adam(world.parameters(), lr=rate)
    target_color = torch.tensor(target, device=world.device)

    losses = []
    for _step in range(100):
        optimizer.zero_grad()
        rgba = world.render(view, proj, img_h=256, img_w=256, temperature=1.0)
        rendered_rgb = rgba[0, :3, :, :]
        loss = ((rendered_rgb.mean(dim=[1, 2]) - target_color) ** 2).sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] * factor <= losses[0]


@pytest.mark.parametrize(
    ("name", "size"), [("basic_rendering", (512, 512)), ("training", (256, 512)), ("training_to_green", (256, 512))]
)
def test_scripts_reproduce_their_pictures(name: str, size: tuple[int, int], tmp_path: Path) -> None:
    """The scripts of examples/ run unchanged and draw the pictures stored beside them."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), "made.png"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made, shown = (np.asarray(Image.open(path)) for path in (tmp_path / "made.png", EXAMPLES / f"{name}.png"))
    assert made.shape == shown.shape == (*size, 3)
    # Another machine may round a learned colour differently.
    assert np.abs(made.astype(int) - shown).max() <= 2
    if name == "basic_rendering":
        _check_blocks(made)
    if name == "training_to_green":
        first, *_, last = (float(line.rpartition(" ")[2]) for line in done.stdout.splitlines())
        assert last * 10 <= first
        green = made[:, 256:].reshape(-1, 3).mean(axis=0) / 255
        assert np.abs(green - (0.38, 0.80, 0.44)).max() < 0.02


def _check_blocks(made: np.ndarray) -> None:
    """Check the colours of the sky, the tops of dirt and grass, and the south sides of stone, grass and dirt."""
    colors, counts = np.unique(made.reshape(-1, 3), axis=0, return_counts=True)
    seen = dict(zip(map(tuple, colors.tolist()), counts.tolist(), strict=True))
    assert seen.pop((135, 207, 235)) > 250000
    # The other materials have a weight of about 1/10000.
    expected = [(117, 100, 62), (95, 212, 112), (95, 107, 112), (76, 107, 54), (68, 55, 33)]
    assert len(seen) == len(expected)
    for color, found in zip(sorted(expected), sorted(seen), strict=True):
        assert max(abs(one - other) for one, other in zip(color, found, strict=True)) <= 1
