"""Draw blocks with a WebGPU implementation (wgpu), as a reference for comparisons.

wgpu needs a Vulkan, Metal or Direct3D driver. On a machine without a GPU, Mesa's lavapipe is sufficient (Debian
packages mesa-vulkan-drivers and libvulkan1).
"""

from __future__ import annotations

import contextlib
import importlib
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nv_diff_render.shading import SKY
from nv_diff_render.utils import view_projection

_COLOR, _DEPTH = "rgba8unorm", "depth24plus"
# Position, normal and colour, three float32 each.
_STRIDE = 36
# Row alignment in bytes that WebGPU requires for reading textures back.
_ROW = 256


class WebGpuRenderer:
    """Draws one mesh with many cameras.

    Args:
        vertices, attributes: the results of mesh_builder.build_block_mesh with hard materials.

    Raises:
        ImportError: if wgpu is not installed or finds no graphics driver.
    """

    def __init__(self, vertices: torch.Tensor, attributes: dict[str, torch.Tensor]) -> None:
        self._wgpu = _import_wgpu()
        self._device = _choose_adapter(self._wgpu).request_device_sync()
        columns = [vertices, attributes["normals"], attributes["colors"]]
        data = torch.cat([column.detach().float().cpu() for column in columns], dim=1).numpy()
        self._count = len(data)
        usage = self._wgpu.BufferUsage
        # WebGPU does not allow empty vertex buffers.
        content = data.tobytes() or bytes(_STRIDE)
        self._vertices = self._device.create_buffer_with_data(data=content, usage=usage.VERTEX)
        self._camera = self._device.create_buffer(size=64, usage=usage.UNIFORM | usage.COPY_DST)
        self._pipeline = self._make_pipeline()
        entry = {"binding": 0, "resource": {"buffer": self._camera, "offset": 0, "size": 64}}
        layout = self._pipeline.get_bind_group_layout(0)
        self._bindings = self._device.create_bind_group(layout=layout, entries=[entry])

    @property
    def adapter(self) -> str:
        """The name of the adapter, e.g. "llvmpipe (LLVM 15.0.6, 256 bits), Vulkan"."""
        info = self._device.adapter.info
        return f"{info['device']}, {info['backend_type']}"

    def draw(self, view: torch.Tensor, projection: torch.Tensor, img_h: int, img_w: int) -> npt.NDArray[np.uint8]:
        """Return the picture uint8 [H, W, 4] of a camera with matrices [4, 4]."""
        matrix = view_projection(view, projection)[0]
        self._device.queue.write_buffer(self._camera, 0, matrix.T.contiguous().numpy().tobytes())
        target = self._texture(_COLOR, img_h, img_w)
        encoder = self._device.create_command_encoder()
        self._encode(encoder, target, self._texture(_DEPTH, img_h, img_w))
        self._device.queue.submit([encoder.finish()])
        return self._read(target, img_h, img_w)

    def _encode(self, encoder: Any, target: Any, depth: Any) -> None:
        color = {
            "view": target.create_view(),
            "clear_value": (*SKY, 1.0),
            "load_op": "clear",
            "store_op": "store",
        }
        z = {"view": depth.create_view(), "depth_clear_value": 1.0, "depth_load_op": "clear", "depth_store_op": "store"}
        drawing = encoder.begin_render_pass(color_attachments=[color], depth_stencil_attachment=z)
        drawing.set_pipeline(self._pipeline)
        drawing.set_bind_group(0, self._bindings)
        drawing.set_vertex_buffer(0, self._vertices)
        drawing.draw(self._count)
        drawing.end()

    def _read(self, target: Any, img_h: int, img_w: int) -> npt.NDArray[np.uint8]:
        row = -(-img_w * 4 // _ROW) * _ROW
        layout = {"offset": 0, "bytes_per_row": row, "rows_per_image": img_h}
        content = self._device.queue.read_texture({"texture": target}, layout, (img_w, img_h, 1))
        rows = np.frombuffer(content, np.uint8).reshape(img_h, row)
        return rows[:, : img_w * 4].reshape(img_h, img_w, 4).copy()

    def _texture(self, kind: str, img_h: int, img_w: int) -> Any:
        usage = self._wgpu.TextureUsage
        return self._device.create_texture(
            size=(img_w, img_h, 1), format=kind, usage=usage.RENDER_ATTACHMENT | usage.COPY_SRC
        )

    def _make_pipeline(self) -> Any:
        code = files(__package__).joinpath("terrain.wgsl").read_text(encoding="utf-8")
        shader = self._device.create_shader_module(code=code)
        attributes = [{"format": "float32x3", "offset": 12 * place, "shader_location": place} for place in range(3)]
        buffer = {"array_stride": _STRIDE, "step_mode": "vertex", "attributes": attributes}
        return self._device.create_render_pipeline(
            layout="auto",
            vertex={"module": shader, "entry_point": "corner", "buffers": [buffer]},
            primitive={"topology": "triangle-list", "front_face": "ccw", "cull_mode": "back"},
            depth_stencil={"format": _DEPTH, "depth_write_enabled": True, "depth_compare": "less"},
            fragment={"module": shader, "entry_point": "pixel", "targets": [{"format": _COLOR}]},
        )


def _import_wgpu() -> Any:
    # Mesa's lavapipe loads LLVM, and triton crashes if torch imports it afterwards.
    with contextlib.suppress(ImportError):
        importlib.import_module("triton")
    try:
        import wgpu  # noqa: PLC0415 - wgpu is optional
    except ImportError as error:
        raise ImportError("drawing with WebGPU needs wgpu: pip install 'nv-diff-render[webgpu]'") from error
    return wgpu


def _choose_adapter(wgpu: Any) -> Any:
    """Return a GPU if available, else a software adapter; OpenGL is excluded because it does not implement WebGPU."""
    found = [each for each in wgpu.gpu.enumerate_adapters_sync() if each.info["backend_type"] != "OpenGL"]
    if not found:
        raise ImportError("wgpu finds no graphics driver: apt-get install mesa-vulkan-drivers libvulkan1 installs one")
    return min(found, key=lambda each: each.info["adapter_type"] == "CPU")
