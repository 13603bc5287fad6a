"""Reference implementation of nvdiffrast's operations in NumPy and float64: small, slow and exact.

It is written from nvdiffrast's documented definitions and contains no upstream code, so that a device's results can be
compared with it. Positions, colors and coordinates may be complex; then the results carry derivatives (see arrays.py).
"""

from __future__ import annotations

from . import attributes, edges, raster, sampling
from .attributes import interpolate
from .edges import antialias
from .mipmaps import construct_mip
from .raster import float_to_id, id_to_float, peel, rasterize, rasterize_ids
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
    "rasterize_ids",
    "sampling",
    "texture",
]
