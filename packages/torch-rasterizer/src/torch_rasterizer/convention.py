"""The rules in which rasterizers differ, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Convention:
    """The rules that decide which pixels a triangle covers and which triangle a pixel shows.

    viewport: 'pixel_centres' maps NDC -1 and +1 to the centres of the first and the last pixel; 'pixel_edges' maps them
    to the outer edges of these pixels, as OpenGL, Vulkan and WebGPU do.
    row_zero: the NDC y at row 0 of the image, -1 or +1.
    subpixel_bits: vertices are rounded to multiples of 1/2**bits pixel; None disables rounding.
    fill: 'inclusive' covers every sample whose three barycentrics are in [0, 1]; 'top_left' gives a sample on a shared
    edge to exactly one of the two triangles.
    depth_scale, depth_offset: depth = z / w * scale + offset. Samples with negative depth are not drawn.
    depth_bits: depths are compared as trunc(depth * 2**bits).
    clip: 'none'; 'depth' clips at depth 0 and 1, which also removes everything behind the eye; 'frustum' also clips at
    the four sides.
    cull: 'back' drops triangles that are clockwise in NDC with y up.
    Among samples of equal depth the triangle with the lowest index wins.
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
                "Convention: fill='top_left' and subpixel_bits require each other, as edges are exact only on a grid: "
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
#: GPUs with Vulkan or Direct3D, and Mesa's lavapipe.
WEBGPU = Convention("webgpu", "pixel_edges", 1, 8, "top_left", 1.0, 0.0, 24, "depth", "back")
#: WebGPU of Chromium on the CPU.
SWIFTSHADER = Convention("swiftshader", "pixel_edges", 1, 4, "top_left", 1.0, 0.0, 24, "frustum", "back")
