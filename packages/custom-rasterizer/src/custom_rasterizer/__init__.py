"""custom_rasterizer without anything compiled: the names, arguments and results of Hunyuan3D's own module.

``import custom_rasterizer as cr; cr.rasterize(...); cr.interpolate(...)`` work unchanged, on every device that torch
has. A compiled original that is also installed is not shadowed: importing this package then says so.
"""

from custom_rasterizer import _original

_original.refuse_to_shadow()

from custom_rasterizer.render import interpolate, rasterize  # noqa: E402 - only once nothing is shadowed

__version__ = "0.1.0"
# By this torch_rasterizer.RasterizerWrapper tells it from the original.
__torch_rasterizer__ = True
__all__ = ["interpolate", "rasterize"]
