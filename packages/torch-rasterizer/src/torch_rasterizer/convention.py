"""What distinguishes one rasterizer's pixels from another's, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Convention:
    """The rules that decide which pixels a triangle covers and which triangle a pixel shows.

    viewport: 'pixel_centres' puts NDC -1 and +1 on the centres of the first and the last pixel; 'pixel_edges' puts them
    on the outer edges of those pixels, as OpenGL, Vulkan and WebGPU do.
    row_zero: the NDC y that row 0 of the image is nearest to, -1 or +1.
    subpixel_bits: vertices are rounded to 1/2**bits pixel; None keeps them as they are.
    fill: 'inclusive' covers every sample whose three barycentrics are in [0, 1]; 'top_left' gives a sample on an edge
    to one of the two triangles that share the edge.
    depth_scale, depth_offset: depth = z / w * scale + offset; depth_bits: it is compared as trunc(depth * 2**bits).
    Samples of negative depth are not drawn.
    clip: 'none'; 'depth' cuts triangles where depth is 0 and 1, which also removes what is behind the eye; 'frustum'
    cuts them at the four sides as well.
    cull: 'back' drops triangles that are clockwise in NDC with y up.
    Among samples of equal depth the triangle of the lowest index wins.
    """

    name: str
    viewport: Literal["pixel_centres", "pixel_edges"]
    row_zero: Literal[-1, 1]
    subpixel_bits: int | None
    fill: Literal["inclusive", "top_left"]
    depth_scale: float
    depth_offset: float
    depth_bits: int
    clip: Literal["none", "depth", "frustum"] = "none"
    cull: Literal["none", "back"] = "none"

    def __post_init__(self) -> None:
        if (self.fill == "top_left") != (self.subpixel_bits is not None):
            raise ValueError(
                "Convention: fill='top_left' and subpixel_bits go together, since only a grid makes edges exact: "
                f"found fill={self.fill!r}, subpixel_bits={self.subpixel_bits}"
            )
        if not 1 <= self.depth_bits <= 24:
            raise ValueError(f"Convention: depth_bits: expected 1 to 24, found {self.depth_bits}")

    @property
    def exact(self) -> bool:
        """Whether coverage is decided by exact arithmetic on a grid, which needs float64."""
        return self.subpixel_bits is not None


CUSTOM_RASTERIZER = Convention("custom_rasterizer", "pixel_centres", -1, None, "inclusive", 0.49999, 0.5, 18)
NVDIFFRAST = Convention("nvdiffrast", "pixel_edges", -1, 4, "top_left", 0.5, 0.5, 24, "depth")
#: Vulkan's and Direct3D's GPUs, and Mesa's lavapipe.
WEBGPU = Convention("webgpu", "pixel_edges", 1, 8, "top_left", 1.0, 0.0, 24, "depth", "back")
#: Chromium's WebGPU on the CPU.
SWIFTSHADER = Convention("swiftshader", "pixel_edges", 1, 4, "top_left", 1.0, 0.0, 24, "frustum", "back")
