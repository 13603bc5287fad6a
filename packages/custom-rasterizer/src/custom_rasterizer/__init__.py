"""Hunyuan3D's module custom_rasterizer without compiled code, with the same names, arguments and results.

``import custom_rasterizer as cr; cr.rasterize(...); cr.interpolate(...)`` works unchanged, on every torch device.
Importing this package raises ImportError if a compiled original is installed as well.
"""

from custom_rasterizer import _compiled_original

_compiled_original.refuse_to_shadow()

from custom_rasterizer.render import interpolate, rasterize  # noqa: E402 - after the check

__version__ = "0.1.0"
# torch_rasterizer.RasterizerWrapper recognizes this package by this attribute.
__torch_rasterizer__ = True
__all__ = ["interpolate", "rasterize"]
