"""A fake nvdiffrast.torch for CPU tensors, built from the gate's reference, that can have one fault at a time.

With it, tests show that every check passes without a fault, and fails with the fault that the check is meant to find.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from scripts.gpu_gate import faults, reference
from scripts.gpu_gate.bench import Bench
from scripts.gpu_gate.comparison import UNIT_ROUNDOFF, Draw, ambiguous_pixels
from scripts.gpu_gate.reference import Lookup, edges
from scripts.gpu_gate.reference.arrays import Array

Outputs = tuple[Array, ...]
# Not a fault: results with the rounding errors of a float32 device.
ROUNDED = "rounded"


def bench(fault: str = "", release: str = "0.4.0") -> Bench:
    """Return a bench with the fake nvdiffrast."""
    cuda = FakeCuda(fault)
    dr = FakeNvdiffrast(fault, release, cuda)
    return Bench(dr, FakeTorch(cuda), "cpu", dr.RasterizeCudaContext, release, faults.known_faults(release))


class FakeTorch:
    """torch with a fake torch.cuda."""

    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda = cuda

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


class FakeStream:
    """A stream whose work is finished immediately."""

    def synchronize(self) -> None:
        """Do nothing; there is no unfinished work."""


class FakeCuda:
    """The functions of torch.cuda that the checks use."""

    Stream = FakeStream

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.default = FakeStream()
        self.current = self.default
        self.lost_bytes = 0

    @contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        before, self.current = self.current, stream
        yield
        self.current = before

    def synchronize(self, device: Any = None) -> None:
        """Do nothing; there is no unfinished work."""

    def empty_cache(self) -> None:
        """Do nothing; there is no cache."""

    def _sleep(self, cycles: int) -> None:
        """Do nothing."""

    def memory_allocated(self, device: Any = None) -> int:
        return self.lost_bytes if self.fault == "leaks-tensors" else 0

    def mem_get_info(self, device: Any = None) -> tuple[int, int]:
        total = 1 << 36
        return total - (self.lost_bytes if self.fault == "leaks-buffers" else 0), total


class Differentiable(torch.autograd.Function):  # type: ignore[misc]  # mypy sees no torch
    """A call whose outputs and gradients are computed in NumPy."""

    @staticmethod
    def forward(
        ctx: Any, outputs: Outputs, differentiate: Callable[..., Sequence[Array | None]], *inputs: Any
    ) -> tuple[Any, ...]:
        ctx.differentiate = differentiate
        return tuple(torch.tensor(np.array(output), dtype=torch.float32) for output in outputs)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Any, ...]:
        gradients = ctx.differentiate(*(grad_output.numpy().astype(np.float64) for grad_output in grad_outputs))
        tensors = (None if one is None else torch.tensor(np.array(one), dtype=torch.float32) for one in gradients)
        return None, None, *tensors


class FakeContext:
    """A rasterizer context."""

    def __init__(self, device: Any = None) -> None:
        self.is_gl = False


class FakeNvdiffrast:
    """nvdiffrast.torch as its documentation describes it."""

    def __init__(self, fault: str, release: str, cuda: FakeCuda) -> None:
        self.fault, self.release, self.cuda = fault, release, cuda
        self.has_failed = False
        self.last: Any = None
        if release.startswith("0.3."):
            self.RasterizeGLContext = self._gl_context

    def RasterizeCudaContext(self, device: Any = None) -> FakeContext:  # noqa: N802  (nvdiffrast's name)
        self.cuda.lost_bytes += 8 << 20
        return FakeContext(device)

    def _gl_context(self, output_db: bool = True, mode: str = "automatic", device: Any = None) -> FakeContext:
        context = FakeContext(device)
        context.is_gl = True
        return context

    def _require(self, condition: bool, problem: str) -> None:
        if not condition:
            self.has_failed = True
            if self.fault != "swallows-errors":
                raise RuntimeError(problem)

    def rasterize(
        self, glctx: FakeContext, pos: Any, tri: Any, resolution: Any, *, ranges: Any = None, grad_db: bool = True
    ) -> tuple[Any, Any]:
        height, width = resolution
        self._require(pos.dtype == torch.float32 and tri.dtype == torch.int32, "pos must be float32, tri int32")
        self._require(pos.is_contiguous() and tri.is_contiguous(), "pos and tri must be contiguous")
        self._require(height > 0 and width > 0, "resolution must be [>0, >0]")
        self._require(pos.shape[-1] == 4, "pos must have 4 columns")
        self._require(pos.dim() == 3 or ranges is not None, "range mode needs ranges")
        self._reject_size(resolution)
        if self.fault == "swallows-errors" and self.has_failed:
            self.has_failed = False
            return torch.zeros(1, 8, 8, 4), torch.zeros(1, 8, 8, 4)
        return self._rasterize_layer(glctx, (pos, tri, tuple(resolution), ranges), 0, grad_db)

    def _reject_size(self, resolution: Any) -> None:
        if self.release in ("0.3.0", "0.3.1"):
            self._require(not any(extent % 8 for extent in resolution), "resolution must be multiples of 8")
        if self.release in ("0.3.0", "0.3.1", "0.3.2"):
            self._require(max(resolution) <= 2048, "resolution must be at most 2048")

    def _rasterize_layer(
        self, context: FakeContext, call: tuple[Any, ...], layer: int, grad_db: bool
    ) -> tuple[Any, Any]:
        """Return rast and rast_db of one layer; ``call`` is pos, tri, resolution and ranges."""
        pos, tri, resolution, ranges = call
        draw = Draw(numpy(pos), numpy(tri).astype(np.int64), resolution, None if ranges is None else ranges.numpy())
        if self.fault == "stream-ignored" and self.cuda.current is not self.cuda.default:
            draw = Draw(draw.pos * 0 + [0, 0, 0, 1], *list(vars(draw).values())[1:])
        rast, rast_db = _faulty_raster(self.fault, self.release, draw, layer)
        if (self.fault == "gl-blank" and context.is_gl) or self._is_broken():
            rast, rast_db = rast * 0, rast_db * 0
        ids = reference.float_to_id(rast[..., 3])

        def differentiate(grad_rast: Array, grad_rast_db: Array) -> list[Array]:
            if not grad_db and self.fault != "grad-db-ignored":
                grad_rast_db = grad_rast_db * 0
            grad_pos = reference.raster.gradient(draw.pos, draw.tri, ids, grad_rast, grad_rast_db)
            if self.fault == "gradient-z":
                grad_pos[..., 2] += 0.5
            return [self._scaled("rasterize", grad_pos)]

        result: tuple[Any, Any] = Differentiable.apply((rast, rast_db), differentiate, pos)
        if self.fault == "outputs-shared" and self.last is not None and self.last.shape == result[0].shape:
            self.last.detach().copy_(result[0].detach())
        self.last = result[0]
        return result

    def _rounded(self, values: Any) -> Any:
        return rounded(values) if self.fault == ROUNDED and values is not None else values

    def _is_broken(self) -> bool:
        in_thread = threading.current_thread() is not threading.main_thread()
        return (self.fault == "threads" and in_thread) or (self.fault == "broken-by-errors" and self.has_failed)

    def _scaled(self, name: str, gradient: Array, channels: int = 0) -> Array:
        """Return the gradient, or a wrong one: scaled by 1.01, or reduced as by a race if there are many channels."""
        gradient = self._rounded(gradient)
        if self.fault == f"gradient-{name}":
            return gradient * 1.01
        return gradient * (1 - 1e-3) if self.fault == f"race-{name}" and channels >= 16 else gradient

    def DepthPeeler(self, glctx: FakeContext, pos: Any, tri: Any, resolution: Any) -> Any:  # noqa: N802
        layers = itertools.count()

        def rasterize_next_layer() -> tuple[Any, Any]:
            layer = next(layers)
            layer = min(layer, 1) if self.fault == "peels-once" else layer
            return self._rasterize_layer(glctx, (pos, tri, resolution, None), layer, True)

        return _as_context_manager(SimpleNamespace(rasterize_next_layer=rasterize_next_layer))

    def interpolate(
        self, attr: Any, rast: Any, tri: Any, rast_db: Any = None, diff_attrs: Any = None
    ) -> tuple[Any, Any]:
        self._require(attr.dtype == torch.float32, "attr must be float32")
        self._require(rast.dim() == 4, "rast must have 4 dimensions")
        attributes, drawn, faces = numpy(attr), numpy(rast), numpy(tri).astype(np.int64)
        derivatives = None if rast_db is None else numpy(rast_db)
        if self.fault == "attributes-of-first-image" and attributes.ndim == 3:
            attributes = attributes[:1]
        outputs = list(reference.interpolate(self._rounded(attributes), drawn, faces, derivatives, diff_attrs))
        _break_interpolate(self.fault, outputs, drawn, diff_attrs)

        def differentiate(grad_out: Array, grad_attr_da: Array) -> list[Array | None]:
            grad_attr, grad_rast, grad_rast_db = reference.attributes.gradients(
                attributes,
                drawn,
                faces,
                grad_out,
                rast_db=derivatives,
                diff_attrs=diff_attrs,
                grad_attr_da=grad_attr_da,
            )
            grad_rast_db = self._scaled("rast_db", grad_rast_db)
            return [
                self._scaled("attributes", grad_attr, attr.shape[-1]),
                self._scaled("barycentrics", grad_rast, attr.shape[-1]),
                None if derivatives is None else grad_rast_db,
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
        self._require(tex.dtype == torch.float32 and uv.dtype == torch.float32, "tex and uv must be float32")
        texels, levels = numpy(tex), None if mip is None else [numpy(level) for level in _as_list(mip)]
        arrays = [numpy(part) if part is not None else None for part in (uv, uv_da, mip_level_bias)]
        lookup = Lookup(arrays[0], arrays[1], arrays[2], filter_mode, boundary_mode, max_mip_level)
        changed, texels, levels = _faulty_lookup(self.fault, lookup, texels, levels)
        rounded_arrays = {name: self._rounded(getattr(changed, name)) for name in ("uv", "uv_da", "bias")}
        out = reference.texture(self._rounded(texels), replace(changed, **rounded_arrays), levels)

        def differentiate(grad_out: Array) -> list[Array | None]:
            found = reference.sampling.gradients(texels, changed, grad_out, levels)
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
        self._require(color.dtype == torch.float32, "color must be float32")
        colors, drawn, positions, faces = numpy(color), numpy(rast), numpy(pos), numpy(tri).astype(np.int64)
        out = edges.antialias(colors, drawn, self._rounded(positions), faces)
        if self.fault == "every-edge" or (self.fault == "hash-ignored" and topology_hash is not None):
            # Without shared vertices, every edge is a silhouette.
            out = edges.antialias(colors, drawn, positions[:, faces.ravel()], np.arange(faces.size).reshape(-1, 3))
        if self.fault == "no-antialias":
            out = colors
        if self.fault == "antialias-away":
            out = 2 * colors - out

        def differentiate(grad_out: Array) -> list[Array | None]:
            grad_color, grad_pos = edges.gradients(colors, drawn, positions, faces, grad_out)
            boosted = grad_pos * (1 if self.fault == "no-boost" else pos_gradient_boost)
            channels = color.shape[-1]
            return [self._scaled("color", grad_color), None, self._scaled("silhouettes", boosted, channels)]

        return Differentiable.apply((out,), differentiate, color, rast, pos)[0]


@contextmanager
def _as_context_manager(value: Any) -> Iterator[Any]:
    yield value


def rounded(values: Array) -> Array:
    """Return the values, each with a random error of a few float32 roundings."""
    return values * (1 + np.random.default_rng(0).uniform(-4, 4, values.shape) * UNIT_ROUNDOFF)


def numpy(tensor: Any) -> Array:
    """Return the values of a tensor, as float64 if they are float32."""
    values: Array = tensor.detach().numpy()
    return values.astype(np.float64) if values.dtype == np.float32 else values


def _as_list(mip: Any) -> list[Any]:
    return [] if mip is None else list(mip)


def _faulty_raster(fault: str, release: str, draw: Draw, layer: int) -> tuple[Array, Array]:
    """Return the outputs of rasterize(), changed by a fault."""
    pos, tri = draw.pos.copy(), draw.tri
    if fault == ROUNDED:
        # Vertices move by 0.02 pixel before snapping, and values have float32 rounding errors.
        pos[..., 0] += pos[..., 3] * 2 / draw.resolution[1] * 0.02
        ids = reference.peel(pos, tri, draw.resolution, layer + 1, draw.ranges)[layer][0][..., 3]
        rast, rast_db = reference.rasterize_ids(rounded(draw.pos), tri, reference.float_to_id(ids), draw.ranges)
        rast[..., 1] = np.minimum(rast[..., 1], 1 - rast[..., 0])
        return rast, rast_db
    if fault == "no-perspective":
        pos = pos / pos[..., 3:]
    if fault == "farthest-first":
        pos[..., 2] *= -1
    if fault == "not-clipped":
        pos[..., 2] /= 16
    if fault == "one-winding":
        area = np.linalg.det(pos.reshape(-1, 4)[tri][..., [0, 1, 3]])
        tri = np.where((area > 0)[:, None], tri, 0)
    rast, rast_db = reference.peel(pos, tri, draw.resolution, layer + 1, draw.ranges)[layer]
    if fault != "sum-above-1" and release not in faults.RELEASES[faults.SUM_ABOVE_1]:
        rast[..., 1] = np.minimum(rast[..., 1], 1 - rast[..., 0])
    change = _RASTER_FAULTS.get(fault)
    return change(rast, rast_db, draw) if change else (rast, rast_db)


def _change_both(change: Callable[[Array, Draw], Array]) -> Callable[[Array, Array, Draw], tuple[Array, Array]]:
    return lambda rast, rast_db, draw: (change(rast, draw), change(rast_db, draw))


def _shift_beyond(image: Array, axis: int, limit: int, shift: int) -> Array:
    """Replace the part of an image beyond a limit by pixels from elsewhere in the image."""
    if image.shape[axis] > limit:
        moved = np.roll(image, shift, axis=axis)
        part = (slice(None),) * axis + (slice(limit, None),)
        image[part] = moved[part]
    return image


def _ids_of_range(rast: Array, rast_db: Array, draw: Draw) -> tuple[Array, Array]:
    if draw.ranges is not None:
        rast[..., 3] -= np.where(rast[..., 3] > 0, draw.ranges[:, 0][:, None, None], 0)
    return rast, rast_db


_RASTER_FAULTS: dict[str, Callable[[Array, Array, Draw], tuple[Array, Array]]] = {
    "blank": _change_both(lambda image, draw: image * 0),
    "upside-down": _change_both(lambda image, draw: image[:, ::-1]),
    "one-pixel-off": _change_both(lambda image, draw: np.roll(image, 1, axis=2)),
    "swapped-barycentrics": lambda rast, rast_db, draw: (rast[..., [1, 0, 2, 3]], rast_db[..., [2, 3, 0, 1]]),
    "transposed-derivatives": lambda rast, rast_db, draw: (rast, rast_db[..., [0, 2, 1, 3]]),
    "gaps-at-edges": _change_both(lambda image, draw: np.where(ambiguous_pixels(draw)[..., None], 0, image)),
    "padded-rows": _change_both(lambda image, draw: np.roll(image, image.shape[2] % 8, axis=1)),
    "no-single-pixel": _change_both(lambda image, draw: image * (image[0, ..., 0].size > 1)),
    "ids-of-range": _ids_of_range,
    "at-most-256-images": _change_both(lambda image, draw: image[np.arange(len(image)) % 256]),
    "stride-by-width": _change_both(lambda image, draw: _shift_beyond(image, 2, 2048, 8)),
    "stride-by-height": _change_both(lambda image, draw: _shift_beyond(image, 1, 2048, 8)),
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
    """Return the arguments of texture(), changed by a fault."""
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
    changed = replace(lookup, **changes.get(fault, {}))
    return (
        changed,
        texels[:1] if fault == "texture-of-first-image" else texels,
        None if fault == "mip-ignored" else levels,
    )
