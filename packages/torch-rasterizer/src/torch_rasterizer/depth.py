"""The depth minimum: which triangle each pixel shows."""

from __future__ import annotations

from typing import Protocol

import torch

#: The largest float32 that int32 holds: quantised depths saturate here, which means that nothing is drawn.
NOTHING = 2147483520.0
#: Integers are exact in float32 below this.
EXACT = 1 << 24


class DepthBuffer(Protocol):
    """The nearest face of each of <pixels>."""

    def draw(self, pixel: torch.Tensor, depth: torch.Tensor, face: torch.Tensor) -> None:
        """Fragments: pixel int64 <w,n>, depth float <w,n>, to be truncated (NOTHING: none), face + 1 int64 <n>."""
        ...

    def ids(self) -> torch.Tensor:
        """Face + 1 of each pixel as int32, 0 where nothing is."""
        ...


class KeyBuffer:
    """One int64 a pixel: depth above, face + 1 below, so that the minimum also settles ties."""

    def __init__(self, pixels: int, device: torch.device) -> None:
        # Face 0 at the depth of nothing: whatever is not covered stays behind it.
        self.keys = torch.full((pixels,), int(NOTHING) << 32, dtype=torch.int64, device=device)

    def draw(self, pixel: torch.Tensor, depth: torch.Tensor, face: torch.Tensor) -> None:
        """See DepthBuffer."""
        # int32 first: AVX has no conversion of float32 to int64.
        key = depth.to(torch.int32).to(torch.int64).bitwise_left_shift_(32).bitwise_or_(face)
        self.keys.scatter_reduce_(0, pixel.view(-1), key.view(-1), "amin")

    def ids(self) -> torch.Tensor:
        """See DepthBuffer."""
        return self.keys.to(torch.int32)


class PairBuffer:
    """Two float32 a pixel, for devices without int64 minima: first the depth, then the face among equal depths."""

    def __init__(self, pixels: int, device: torch.device) -> None:
        self.nearest = torch.full((pixels,), NOTHING, device=device)
        self.face = torch.zeros(pixels, device=device)

    def draw(self, pixel: torch.Tensor, depth: torch.Tensor, face: torch.Tensor) -> None:
        """See DepthBuffer."""
        at, depth = pixel.reshape(-1), depth.to(torch.float32).trunc_().reshape(-1)
        candidate = face.to(torch.float32).expand(pixel.shape).reshape(-1)
        before = self.nearest.index_select(0, at)
        self.nearest.scatter_reduce_(0, at, depth, "amin")
        now = self.nearest.index_select(0, at)
        # Where a pixel came nearer, the face that was there has no claim: every fragment there writes the same inf.
        kept = self.face.index_select(0, at)
        self.face.scatter_(0, at, torch.where(now < before, torch.inf, kept))
        self.face.scatter_reduce_(0, at, torch.where((depth == now) & (now < NOTHING), candidate, torch.inf), "amin")

    def ids(self) -> torch.Tensor:
        """See DepthBuffer."""
        return self.face.to(torch.int32)
