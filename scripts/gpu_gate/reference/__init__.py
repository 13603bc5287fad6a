"""What nvdiffrast computes, written from its documented definitions: NumPy, float64, small and slow.

It takes no code from upstream and no shortcuts, so that a device's results can be held against it. Positions, colours
and coordinates may be complex: then results carry derivatives (see arrays.py).
"""

from __future__ import annotations

from . import attributes, edges, raster, sampling
from .attributes import interpolate
from .edges import antialias
from .mipmaps import construct_mip
from .raster import float_to_id, id_to_float, peel, rasterize, shade
from .sampling import BOUNDARY_MODES, FILTER_MODES, Lookup, texture

__all__ = [
    "BOUNDARY_MODES",
    "FILTER_MODES",
    "Lookup",
    "antialias",
    "attributes",
    "construct_mip",
    "edges",
    "float_to_id",
    "id_to_float",
    "interpolate",
    "peel",
    "raster",
    "rasterize",
    "sampling",
    "shade",
    "texture",
]
