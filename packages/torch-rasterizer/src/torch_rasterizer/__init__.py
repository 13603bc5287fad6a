"""Rasterization in plain PyTorch, without compiled code: the pixels of custom_rasterizer on CPU, CUDA, ROCm and MPS."""

from torch_rasterizer.hierarchy import build_hierarchy, build_hierarchy_with_feat
from torch_rasterizer.rasterizer import PyTorchRasterizer, create_optimized_rasterizer, rasterize_large_mesh
from torch_rasterizer.wrapper import RasterizerWrapper

__version__ = "0.1.0"
__all__ = [
    "PyTorchRasterizer",
    "RasterizerWrapper",
    "build_hierarchy",
    "build_hierarchy_with_feat",
    "create_optimized_rasterizer",
    "rasterize_large_mesh",
]
