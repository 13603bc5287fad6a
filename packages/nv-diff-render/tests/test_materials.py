from __future__ import annotations

import pytest
import torch
from nv_diff_render import (
    MATERIALS,
    get_material_densities,
    get_material_palette,
    material_index_to_name,
    material_name_to_index,
)


def test_converts_names_and_indices() -> None:
    assert [material_name_to_index(name) for name in MATERIALS] == list(range(8))
    assert [material_index_to_name(index) for index in range(8)] == MATERIALS
    assert (material_name_to_index("Stone"), material_name_to_index("water")) == (3, 7)


def test_suggests_the_most_similar_name() -> None:
    with pytest.raises(ValueError, match="unknown material 'Stoen'; did you mean 'Stone'"):
        material_name_to_index("Stoen")
    with pytest.raises(ValueError, match="unknown material index 8: expected 0 to 7"):
        material_index_to_name(8)
    with pytest.raises(ValueError, match="-1"):
        material_index_to_name(-1)


def test_returns_palette_and_densities() -> None:
    palette = get_material_palette()
    assert palette.shape == (8, 3, 3)
    assert not palette[0].any()
    torch.testing.assert_close(palette[3, 2], torch.tensor([0.56, 0.58, 0.62]))
    torch.testing.assert_close(palette[1, 0], torch.tensor([0.34, 0.68, 0.36]))
    assert get_material_palette(dtype=torch.float64).dtype == torch.float64
    assert get_material_densities().tolist() == [0, 20, 22, 30, 15, 10, 18, 2]
