"""The functions of the original's compiled module, in plain PyTorch."""

import torch
from custom_rasterizer import _compiled_original

_compiled_original.refuse_to_shadow()

from torch_rasterizer import PyTorchRasterizer, build_hierarchy, build_hierarchy_with_feat  # noqa: E402
from torch_rasterizer.validation import check_tensor  # noqa: E402

__all__ = ["build_hierarchy", "build_hierarchy_with_feat", "rasterize_image"]


def rasterize_image(
    V: torch.Tensor,  # noqa: N803 - the keyword names of the original
    F: torch.Tensor,  # noqa: N803
    D: torch.Tensor,  # noqa: N803
    width: int,
    height: int,
    occlusion_truncation: float,
    use_depth_prior: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return face + 1 int32 [H, W] and barycentrics [H, W, 3]; see PyTorchRasterizer.rasterize_image."""
    check_tensor("V", V, "[N, 4]", (torch.float32,))
    rasterizer = PyTorchRasterizer(device=V.device)
    return rasterizer.rasterize_image(V, F, D, width, height, occlusion_truncation, use_depth_prior)
