"""A stand-in for nvdiffrast.torch made of the gate's reference, on CPU tensors, with one fault at a time.

It shows of every check that it passes where nothing is wrong, and fails for the fault that it is there for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from scripts.gpu_gate import faults as known_faults
from scripts.gpu_gate import reference
from scripts.gpu_gate.bench import Bench
from scripts.gpu_gate.judge import ROUNDING, Draw, doubtful
from scripts.gpu_gate.reference import Lookup, edges
from scripts.gpu_gate.reference.arrays import Array

Outputs = tuple[Array, ...]
# No fault, but what a device's float32 makes of the same definitions.
ROUNDED = "rounded"


def bench(fault: str = "", release: str = "0.4.0") -> Bench:
    """A bench with the stand-in on it."""
    cuda = Cuda(fault)
    dr = StandIn(fault, release, cuda)
    return Bench(dr, Torch(cuda), "cpu", dr.RasterizeCudaContext, release, known_faults.known(release))


class Torch:
    """torch, with a pretended torch.cuda."""

    def __init__(self, cuda: Cuda) -> None:
        self.cuda = cuda

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


class Stream:
    """A stream: work on it is done at once."""

    def synchronize(self) -> None:
        """Nothing is ever outstanding."""


class Cuda:
    """As much of torch.cuda as the checks use."""

    Stream = Stream

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.default = Stream()
        self.current = self.default
        self.lost = 0

    @contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        before, self.current = self.current, stream
        yield
        self.current = before

    def synchronize(self, device: Any = None) -> None:
        """Nothing is ever outstanding."""

    def empty_cache(self) -> None:
        """Nothing is kept."""

    def _sleep(self, cycles: int) -> None:
        """Work that takes time."""

    def memory_allocated(self, device: Any = None) -> int:
        return self.lost if self.fault == "leaks-tensors" else 0

    def mem_get_info(self, device: Any = None) -> tuple[int, int]:
        total = 1 << 36
        return total - (self.lost if self.fault == "leaks-buffers" else 0), total


class Differentiable(torch.autograd.Function):  # type: ignore[misc]  # mypy sees no torch
    """One call: computed in NumPy, and differentiated there."""

    @staticmethod
    def forward(
        ctx: Any, outputs: Outputs, differentiate: Callable[..., Sequence[Array | None]], *inputs: Any
    ) -> tuple[Any, ...]:
        ctx.differentiate = differentiate
        return tuple(torch.tensor(np.array(output), dtype=torch.float32) for output in outputs)

    @staticmethod
    def backward(ctx: Any, *by_outputs: Any) -> tuple[Any, ...]:
        found = ctx.differentiate(*(given.numpy().astype(np.float64) for given in by_outputs))
        return None, None, *(None if by is None else torch.tensor(np.array(by), dtype=torch.float32) for by in found)


class Context:
    """A rasterizer's context."""

    def __init__(self, device: Any = None) -> None:
        self.by_gl = False


class StandIn:
    """nvdiffrast.torch, by what its documentation promises."""

    def __init__(self, fault: str, release: str, cuda: Cuda) -> None:
        self.fault, self.release, self.cuda = fault, release, cuda
        self.failed_before = False
        self.last: Any = None
        if release.startswith("0.3."):
            self.RasterizeGLContext = self._gl_context

    def RasterizeCudaContext(self, device: Any = None) -> Context:  # noqa: N802  (nvdiffrast's name)
        self.cuda.lost += 8 << 20
        return Context(device)

    def _gl_context(self, output_db: bool = True, mode: str = "automatic", device: Any = None) -> Context:
        made = Context(device)
        made.by_gl = True
        return made

    def _need(self, holds: bool, complaint: str) -> None:
        if not holds:
            self.failed_before = True
            if self.fault != "swallows-errors":
                raise RuntimeError(complaint)

    def rasterize(
        self, glctx: Context, pos: Any, tri: Any, resolution: Any, *, ranges: Any = None, grad_db: bool = True
    ) -> tuple[Any, Any]:
        height, width = resolution
        self._need(pos.dtype == torch.float32 and tri.dtype == torch.int32, "pos must be float32, tri int32")
        self._need(pos.is_contiguous() and tri.is_contiguous(), "pos and tri must be contiguous")
        self._need(height > 0 and width > 0, "resolution must be [>0, >0]")
        self._need(pos.shape[-1] == 4, "pos must have 4 columns")
        self._need(pos.dim() == 3 or ranges is not None, "range mode needs ranges")
        self._refuse(resolution)
        if self.fault == "swallows-errors" and self.failed_before:
            self.failed_before = False
            return torch.zeros(1, 8, 8, 4), torch.zeros(1, 8, 8, 4)
        return self._drawn(glctx, (pos, tri, tuple(resolution), ranges), 0, grad_db)

    def _refuse(self, resolution: Any) -> None:
        if self.release in ("0.3.0", "0.3.1"):
            self._need(not any(extent % 8 for extent in resolution), "resolution must be multiples of 8")
        if self.release in ("0.3.0", "0.3.1", "0.3.2"):
            self._need(max(resolution) <= 2048, "resolution must be at most 2048")

    def _drawn(self, context: Context, call: tuple[Any, ...], layer: int, grad_db: bool) -> tuple[Any, Any]:
        pos, tri, resolution, ranges = call
        draw = Draw(numpy(pos), numpy(tri).astype(np.int64), resolution, None if ranges is None else ranges.numpy())
        if self.fault == "stream-ignored" and self.cuda.current is not self.cuda.default:
            draw = Draw(draw.pos * 0 + [0, 0, 0, 1], *list(vars(draw).values())[1:])
        rast, slopes = _faulty_raster(self.fault, self.release, draw, layer)
        if (self.fault == "gl-blank" and context.by_gl) or self._out_of_order():
            rast, slopes = rast * 0, slopes * 0
        ids = reference.float_to_id(rast[..., 3])

        def differentiate(by_rast: Array, by_slopes: Array) -> list[Array]:
            if not grad_db and self.fault != "grad-db-ignored":
                by_slopes = by_slopes * 0
            by_pos = reference.raster.gradient(draw.pos, draw.tri, ids, by_rast, by_slopes)
            if self.fault == "gradient-z":
                by_pos[..., 2] += 0.5
            return [self._scaled("rasterize", by_pos)]

        result: tuple[Any, Any] = Differentiable.apply((rast, slopes), differentiate, pos)
        if self.fault == "outputs-shared" and self.last is not None and self.last.shape == result[0].shape:
            self.last.detach().copy_(result[0].detach())
        self.last = result[0]
        return result

    def _seen(self, values: Any) -> Any:
        return rounded(values) if self.fault == ROUNDED and values is not None else values

    def _out_of_order(self) -> bool:
        in_thread = threading.current_thread() is not threading.main_thread()
        return (self.fault == "threads" and in_thread) or (self.fault == "broken-by-errors" and self.failed_before)

    def _scaled(self, name: str, gradient: Array, channels: int = 0) -> Array:
        """The gradient, or a wrong one: by a hundredth, or by what a race loses of many channels."""
        gradient = self._seen(gradient)
        if self.fault == f"gradient-{name}":
            return gradient * 1.01
        return gradient * (1 - 1e-3) if self.fault == f"race-{name}" and channels >= 16 else gradient

    def DepthPeeler(self, glctx: Context, pos: Any, tri: Any, resolution: Any) -> Any:  # noqa: N802
        layers = iter(range(100))

        def following() -> tuple[Any, Any]:
            layer = next(layers)
            layer = min(layer, 1) if self.fault == "peels-once" else layer
            return self._drawn(glctx, (pos, tri, resolution, None), layer, True)

        return _managed(SimpleNamespace(rasterize_next_layer=following))

    def interpolate(
        self, attr: Any, rast: Any, tri: Any, rast_db: Any = None, diff_attrs: Any = None
    ) -> tuple[Any, Any]:
        self._need(attr.dtype == torch.float32, "attr must be float32")
        self._need(rast.dim() == 4, "rast must have 4 dimensions")
        given, drawn, faces = numpy(attr), numpy(rast), numpy(tri).astype(np.int64)
        slopes = None if rast_db is None else numpy(rast_db)
        if self.fault == "attributes-of-first-image" and given.ndim == 3:
            given = given[:1]
        outputs = list(reference.interpolate(self._seen(given), drawn, faces, slopes, diff_attrs))
        _break_interpolate(self.fault, outputs, drawn, diff_attrs)

        def differentiate(by_values: Array, by_pairs: Array) -> list[Array | None]:
            by_attr, by_rast, by_slopes = reference.attributes.gradients(
                given, drawn, faces, by_values, slopes=slopes, chosen=diff_attrs, d_pairs=by_pairs
            )
            by_slopes = self._scaled("slopes", by_slopes)
            return [
                self._scaled("attributes", by_attr, attr.shape[-1]),
                self._scaled("barycentrics", by_rast, attr.shape[-1]),
                None if slopes is None else by_slopes,
            ]

        result: tuple[Any, Any] = Differentiable.apply(tuple(outputs), differentiate, attr, rast, rast_db)
        return result

    def texture(
        self,
        tex: Any,
        uv: Any,
        *,
        uv_da: Any = None,
        mip_level_bias: Any = None,
        mip: Any = None,
        filter_mode: str = "auto",
        boundary_mode: str = "wrap",
        max_mip_level: int | None = None,
    ) -> Any:
        self._need(tex.dtype == torch.float32 and uv.dtype == torch.float32, "tex and uv must be float32")
        texels, levels = numpy(tex), None if mip is None else [numpy(level) for level in _as_list(mip)]
        arrays = [numpy(part) if part is not None else None for part in (uv, uv_da, mip_level_bias)]
        lookup = Lookup(arrays[0], arrays[1], arrays[2], filter_mode, boundary_mode, max_mip_level)
        asked, texels, levels = _faulty_lookup(self.fault, lookup, texels, levels)
        seen = replace(asked, uv=self._seen(asked.uv), uv_da=self._seen(asked.uv_da), bias=self._seen(asked.bias))
        out = reference.texture(self._seen(texels), seen, levels)

        def differentiate(by_out: Array) -> list[Array | None]:
            found = reference.sampling.gradients(texels, asked, by_out, levels)
            return [
                self._scaled("texture", found.tex, tex.shape[-1]),
                found.uv if found.uv is None else self._scaled("uv", found.uv, tex.shape[-1]),
                found.uv_da if found.uv_da is None else self._scaled("uv_da", found.uv_da),
                found.bias if found.bias is None else self._scaled("bias", found.bias),
                *([self._scaled("mip", level) for level in found.levels[1:]] if mip is not None else []),
            ]

        return Differentiable.apply((out,), differentiate, tex, uv, uv_da, mip_level_bias, *(_as_list(mip)))[0]

    def texture_construct_mip(self, tex: Any, max_mip_level: int | None = None, cube_mode: bool = False) -> Any:
        levels = reference.construct_mip(numpy(tex), max_mip_level)[1:]
        if self.fault == "mip-corners":
            levels = [numpy(tex)[..., :: 2**k, :: 2**k, :] for k in range(1, len(levels) + 1)]
        return [torch.tensor(level, dtype=torch.float32) for level in levels]

    def antialias_construct_topology_hash(self, tri: Any) -> Any:
        return SimpleNamespace(tri=tri)

    def antialias(
        self, color: Any, rast: Any, pos: Any, tri: Any, *, topology_hash: Any = None, pos_gradient_boost: float = 1.0
    ) -> Any:
        self._need(color.dtype == torch.float32, "color must be float32")
        given = (numpy(color), numpy(rast), numpy(pos), numpy(tri).astype(np.int64))
        out = edges.antialias(*given[:2], self._seen(given[2]), given[3])
        if self.fault == "every-edge" or (self.fault == "hash-ignored" and topology_hash is not None):
            out = edges.antialias(*given[:2], given[2][:, given[3].ravel()], np.arange(given[3].size).reshape(-1, 3))
        if self.fault == "no-antialias":
            out = given[0]
        if self.fault == "antialias-away":
            out = 2 * given[0] - out

        def differentiate(by_out: Array) -> list[Array | None]:
            by_color, by_pos = edges.gradients(*given, by_out)
            boosted = by_pos * (1 if self.fault == "no-boost" else pos_gradient_boost)
            channels = color.shape[-1]
            return [self._scaled("color", by_color), None, self._scaled("silhouettes", boosted, channels)]

        return Differentiable.apply((out,), differentiate, color, rast, pos)[0]


@contextmanager
def _managed(value: Any) -> Iterator[Any]:
    yield value


def rounded(values: Array) -> Array:
    """The values, each off by a few roundings of float32."""
    return values * (1 + np.random.default_rng(0).uniform(-4, 4, values.shape) * ROUNDING)


def numpy(tensor: Any) -> Array:
    """A tensor's values, float64 if they are floats."""
    values: Array = tensor.detach().numpy()
    return values.astype(np.float64) if values.dtype == np.float32 else values


def _as_list(mip: Any) -> list[Any]:
    return [] if mip is None else list(mip)


def _faulty_raster(fault: str, release: str, draw: Draw, layer: int) -> tuple[Array, Array]:
    """rasterize()'s outputs, with faults of what is drawn."""
    pos, tri = draw.pos.copy(), draw.tri
    if fault == ROUNDED:
        # Coverage by other roundings of a vertex to 1/16 pixel, and values by roundings of float32.
        pos[..., 0] += pos[..., 3] * 2 / draw.resolution[1] * 0.02
        ids = reference.peel(pos, tri, draw.resolution, layer + 1, draw.ranges)[layer][0][..., 3]
        rast, slopes = reference.shade(rounded(draw.pos), tri, reference.float_to_id(ids), draw.ranges)
        rast[..., 1] = np.minimum(rast[..., 1], 1 - rast[..., 0])
        return rast, slopes
    if fault == "no-perspective":
        pos = pos / pos[..., 3:]
    if fault == "farthest-first":
        pos[..., 2] *= -1
    if fault == "not-clipped":
        pos[..., 2] /= 16
    if fault == "one-winding":
        turn = np.linalg.det(pos.reshape(-1, 4)[tri][..., [0, 1, 3]])
        tri = np.where((turn > 0)[:, None], tri, 0)
    rast, slopes = reference.peel(pos, tri, draw.resolution, layer + 1, draw.ranges)[layer]
    if fault != "sum-above-1" and release not in known_faults._KNOWN[known_faults.SUM_ABOVE_1]:
        rast[..., 1] = np.minimum(rast[..., 1], 1 - rast[..., 0])
    change = _RASTER_FAULTS.get(fault)
    return change(rast, slopes, draw) if change else (rast, slopes)


def _both(change: Callable[[Array, Draw], Array]) -> Callable[[Array, Array, Draw], tuple[Array, Array]]:
    return lambda rast, slopes, draw: (change(rast, draw), change(slopes, draw))


def _beyond(image: Array, axis: int, limit: int, shift: int) -> Array:
    """The image with what lies beyond a limit taken from elsewhere."""
    if image.shape[axis] > limit:
        moved = np.roll(image, shift, axis=axis)
        place = (slice(None),) * axis + (slice(limit, None),)
        image[place] = moved[place]
    return image


def _ids_of_range(rast: Array, slopes: Array, draw: Draw) -> tuple[Array, Array]:
    if draw.ranges is not None:
        rast[..., 3] -= np.where(rast[..., 3] > 0, draw.ranges[:, 0][:, None, None], 0)
    return rast, slopes


def _channels(order: list[int]) -> Callable[[Array], Array]:
    return lambda values: values[..., order]


_RASTER_FAULTS: dict[str, Callable[[Array, Array, Draw], tuple[Array, Array]]] = {
    "blank": _both(lambda image, draw: image * 0),
    "upside-down": _both(lambda image, draw: image[:, ::-1]),
    "one-pixel-off": _both(lambda image, draw: np.roll(image, 1, axis=2)),
    "swapped-barycentrics": lambda rast, slopes, draw: (rast[..., [1, 0, 2, 3]], slopes[..., [2, 3, 0, 1]]),
    "transposed-derivatives": lambda rast, slopes, draw: (rast, slopes[..., [0, 2, 1, 3]]),
    "gaps-at-edges": _both(lambda image, draw: np.where(doubtful(draw)[..., None], 0, image)),
    "padded-rows": _both(lambda image, draw: np.roll(image, image.shape[2] % 8, axis=1)),
    "no-single-pixel": _both(lambda image, draw: image * (image[0, ..., 0].size > 1)),
    "ids-of-range": _ids_of_range,
    "at-most-256-images": _both(lambda image, draw: image[np.arange(len(image)) % 256]),
    "stride-by-width": _both(lambda image, draw: _beyond(image, 2, 2048, 8)),
    "stride-by-height": _both(lambda image, draw: _beyond(image, 1, 2048, 8)),
}


def _break_interpolate(fault: str, outputs: list[Array], drawn: Array, diff_attrs: Any) -> None:
    if fault == "background-not-0":
        outputs[0] = outputs[0] + (drawn[..., 3:] == 0)
    if fault == "attribute-derivatives-swapped":
        outputs[1] = outputs[1].reshape(*outputs[1].shape[:3], -1, 2)[..., ::-1].reshape(outputs[1].shape)
    if fault == "derivatives-of-first-attributes" and isinstance(diff_attrs, list):
        outputs[1] = outputs[1][..., ::-1]
    if fault == "third-corner-twice":
        outputs[0] = outputs[0] * (2 - drawn[..., :1])


def _faulty_lookup(
    fault: str, lookup: Lookup, texels: Array, levels: list[Array] | None
) -> tuple[Lookup, Array, list[Array] | None]:
    """What texture() is asked, changed by a fault."""
    mode, boundary = lookup.mode, lookup.boundary_mode
    other = "wrap" if boundary == "clamp" else "clamp"
    changes: dict[str, dict[str, Any]] = {
        f"off-{mode}-{boundary}": {"uv": lookup.uv + 0.5 / texels.shape[-2]},
        f"{boundary}-as-{other}": {"boundary_mode": other},
        "trilinear-as-bilinear": {"filter_mode": mode.replace("mipmap-linear", "mipmap-nearest")},
        "bias-ignored": {"bias": None},
        "top-level-ignored": {"max_mip_level": None},
    }
    if lookup.uv_da is not None:
        changes["minor-axis"] = {"uv_da": lookup.uv_da * ([1, 0] * (lookup.uv_da.shape[-1] // 2))}
    asked = replace(lookup, **changes.get(fault, {}))
    return (
        asked,
        texels[:1] if fault == "texture-of-first-image" else texels,
        None if fault == "mip-ignored" else levels,
    )
