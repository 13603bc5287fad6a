"""Depth buffers: the nearest triangle of each pixel."""

from __future__ import annotations

from typing import Protocol

import torch

#: The largest float32 that fits into int32. Quantized depths saturate here; such fragments are not drawn.
NOT_DRAWN = 2147483520.0
#: Integers below this are exact in float32.
FLOAT32_EXACT = 1 << 24


class DepthBuffer(Protocol):
    """The nearest face of each of [pixels] pixels."""

    def draw(self, pixel: torch.Tensor, depth: torch.Tensor, face: torch.Tensor) -> None:
        """Draw fragments: pixel int64 [w, n], depth float [w, n] (truncated; NOT_DRAWN skips), face + 1 int64 [n]."""
        ...

    def ids(self) -> torch.Tensor:
        """Return face + 1 of each pixel as int32, 0 for background."""
        ...


class KeyBuffer:
    """One int64 per pixel: depth in the upper 32 bits, face + 1 in the lower, so that the minimum also breaks ties."""

    def __init__(self, pixels: int, device: torch.device) -> None:
        # The initial key is face 0 at depth NOT_DRAWN: a fragment that is not drawn never replaces it.
        self.keys = torch.full((pixels,), int(NOT_DRAWN) << 32, dtype=torch.int64, device=device)

    def draw(self, pixel: torch.Tensor, depth: torch.Tensor, face: torch.Tensor) -> None:
        """Implement DepthBuffer.draw."""
        # Convert to int32 first: AVX has no conversion from float32 to int64.
        key = depth.to(torch.int32).to(torch.int64).bitwise_left_shift_(32).bitwise_or_(face)
        self.keys.scatter_reduce_(0, pixel.view(-1), key.view(-1), "amin")

    def ids(self) -> torch.Tensor:
        """Implement DepthBuffer.ids."""
        return self.keys.to(torch.int32)


class PairBuffer:
    """Two float32 per pixel, for devices without int64 minima: the depth, then the lowest face at this depth."""

    def __init__(self, pixels: int, device: torch.device) -> None:
        self.nearest = torch.full((pixels,), NOT_DRAWN, device=device)
        self.face = torch.zeros(pixels, device=device)

    def draw(self, pixel: torch.Tensor, depth: torch.Tensor, face: torch.Tensor) -> None:
        """Implement DepthBuffer.draw."""
        at, depth = pixel.reshape(-1), depth.to(torch.float32).trunc_().reshape(-1)
        candidate = face.to(torch.float32).expand(pixel.shape).reshape(-1)
        before = self.nearest.index_select(0, at)
        self.nearest.scatter_reduce_(0, at, depth, "amin")
        now = self.nearest.index_select(0, at)
        # Where the depth decreased, the old face is invalid. Every fragment of the pixel writes the same inf.
        kept = self.face.index_select(0, at)
        self.face.scatter_(0, at, torch.where(now < before, torch.inf, kept))
        self.face.scatter_reduce_(0, at, torch.where((depth == now) & (now < NOT_DRAWN), candidate, torch.inf), "amin")

    def ids(self) -> torch.Tensor:
        """Implement DepthBuffer.ids."""
        return self.face.to(torch.int32)
