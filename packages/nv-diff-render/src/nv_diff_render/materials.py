"""The materials: names, colours of a block's top, bottom and sides, and densities, read from materials.json."""

from __future__ import annotations

import difflib
import json
from importlib.resources import files

import torch

_DATA = json.loads(files(__package__).joinpath("materials.json").read_text(encoding="utf-8"))

MATERIALS: list[str] = _DATA["names"]
AIR = 0
# Indices of a material's three colours.
TOP, BOTTOM, SIDE = range(3)


def material_name_to_index(name: str) -> int:
    """Return the index of a material, e.g. 3 for "Stone"; upper and lower case are equivalent.

    Raises:
        ValueError: if the material is unknown; the message names the most similar one.
    """
    folded = {known.casefold(): index for index, known in enumerate(MATERIALS)}
    if name.casefold() in folded:
        return folded[name.casefold()]
    near = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.5)
    hint = f"; did you mean {MATERIALS[folded[near[0]]]!r}?" if near else ""
    raise ValueError(f"unknown material {name!r}{hint} (known: {', '.join(MATERIALS)})")


def material_index_to_name(index: int) -> str:
    """Return the name of a material, e.g. "Stone" for 3.

    Raises:
        ValueError: if no material has this index.
    """
    if not 0 <= index < len(MATERIALS):
        raise ValueError(f"unknown material index {index}: expected 0 to {len(MATERIALS) - 1}")
    return MATERIALS[index]


def material_index(material: str | int) -> int:
    """Return the index of a material given by name or index.

    Raises:
        ValueError: if the material is unknown.
    """
    if isinstance(material, str):
        return material_name_to_index(material)
    material_index_to_name(material)
    return material


def get_material_palette(device: torch.device | str | None = None, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return colours in [0, 1], [M, 3, 3]: material, face (top, bottom, side), RGB. Air is black."""
    return torch.tensor(_DATA["palette"], device=device, dtype=dtype)


def get_material_densities(
    device: torch.device | str | None = None, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Return densities [M] for volumetric renderers, in 1 / world unit; this package does not use them."""
    return torch.tensor(_DATA["densities"], device=device, dtype=dtype)
