from __future__ import annotations

import torch
from nv_diff_render import TerrainShader, composite_over_sky
from nv_diff_render.shading import NORMALS, as_unorm8


def test_side_lights_equal_the_formula_of_the_shader() -> None:
    """The expected values were computed from the shader's formula and written down with six digits."""
    expected = [
        [0.571123, 0.631347, 0.624286],
        [0.195250, 0.266750, 0.286000],
        [1.090230, 1.220268, 1.224857],
        [0.099000, 0.088000, 0.066000],
        [0.665091, 0.722496, 0.708857],
        [0.195250, 0.266750, 0.286000],
    ]
    torch.testing.assert_close(TerrainShader().side_lights(), torch.tensor(expected), atol=1e-6, rtol=0)


def test_shades_and_composites_over_the_sky() -> None:
    shader = TerrainShader()
    assert (shader.sky() * 255).tolist() == [135, 207, 235]
    # The lit top of snow exceeds 1 and is clamped.
    lit = shader.shade(torch.tensor([[0.92, 0.94, 0.96]]), torch.tensor(NORMALS)[2:3])
    assert lit.tolist() == [[1, 1, 1]]
    coverage = torch.tensor([[[1.0, 0.0]]])
    over = composite_over_sky(torch.zeros(3, 1, 2), coverage, shader.sky())
    assert (over[:, 0] * 255).T.tolist() == [[0, 0, 0], [135, 207, 235]]


def test_unorm8_rounds_to_values_that_survive_truncation() -> None:
    values = torch.linspace(-0.2, 1.2, 100001)
    found = as_unorm8(values)
    assert torch.equal(found, (values.clamp(0, 1) * 255).round() / 255)
    assert torch.equal((found * 255).to(torch.uint8), (values.clamp(0, 1) * 255).round().to(torch.uint8))
    assert torch.equal(as_unorm8(values, quantize=False), values.clamp(0, 1))


def test_gradient_passes_through_clamping() -> None:
    values = torch.tensor([-0.5, 0.3, 1.7], requires_grad=True)
    as_unorm8(values).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [1, 1, 1]
