"""Tests of RasterizerWrapper: which backend it selects and why, and how it calls the backends."""

from __future__ import annotations

import importlib.util
import struct
import sys
import types
from pathlib import Path

import fake_nvdiffrast
import numpy as np
import pytest
import torch
from torch_rasterizer import nvdiffrast_adapter, wrapper
from torch_rasterizer.nvdiffrast_adapter import NvdiffrastRasterizer, face_ids, onto_samples
from torch_rasterizer.rasterizer import PyTorchRasterizer
from torch_rasterizer.wrapper import BackendUnavailableError, RasterizerWrapper

HERE = Path(__file__).resolve().parent

CPU = torch.device("cpu")
EMPTY = torch.zeros(0)


@pytest.fixture(autouse=True)
def hide_installed_backends(monkeypatch):
    """Hide all backends except PyTorch, regardless of what is installed."""
    for name in ("custom_rasterizer", "custom_rasterizer_kernel", "nvdiffrast", "nvdiffrast.torch"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    find = importlib.util.find_spec
    hidden = ("custom_rasterizer", "nvdiffrast")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n: None if n in hidden and n not in sys.modules else find(n)
    )


@pytest.fixture
def gpu(monkeypatch):
    """Make torch report one CUDA device; tensors stay on the CPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)


@pytest.fixture
def original(monkeypatch):
    """Install a fake compiled custom_rasterizer that records its calls."""
    module = types.ModuleType("custom_rasterizer")
    module.calls = []

    def rasterize(*arguments):
        module.calls.append(arguments)
        return "ids", "barycentrics"

    module.rasterize = rasterize
    module.interpolate = lambda *arguments: ("interpolated", arguments)
    monkeypatch.setitem(sys.modules, "custom_rasterizer", module)
    return module


def install(monkeypatch, **attributes):
    """Install a fake nvdiffrast whose torch module has these attributes."""
    package, part = types.ModuleType("nvdiffrast"), types.ModuleType("nvdiffrast.torch")
    package.__path__, package.torch = [], part
    for name, value in attributes.items():
        setattr(part, name, value)
    monkeypatch.setitem(sys.modules, "nvdiffrast", package)
    monkeypatch.setitem(sys.modules, "nvdiffrast.torch", part)


@pytest.fixture
def nvdiffrast(monkeypatch):
    install(monkeypatch, rasterize=fake_nvdiffrast.rasterize, RasterizeCudaContext=fake_nvdiffrast.RasterizeCudaContext)


def triangle():
    pos = torch.tensor([[[-0.9, -0.9, 0.0, 1.0], [0.9, -0.9, 0.0, 1.0], [0.0, 0.9, 0.0, 1.0]]])
    return pos, torch.tensor([[0, 1, 2]], dtype=torch.int32)


def test_auto_selects_pytorch_on_the_cpu():
    raster = RasterizerWrapper(device="cpu")
    assert (raster.mode, raster.device) == ("pytorch_cpu", CPU)
    assert raster.rejected == {
        "custom_rasterizer": "pytorch is preferred; not installed",
        "nvdiffrast": "pytorch is preferred; not installed",
    }
    assert repr(raster) == "RasterizerWrapper(mode='pytorch_cpu', device='cpu')"


def test_auto_prefers_pytorch_to_installed_backends(original, nvdiffrast):
    raster = RasterizerWrapper(device="cpu")
    assert raster.mode == "pytorch_cpu"
    assert raster.rejected == {"custom_rasterizer": "pytorch is preferred", "nvdiffrast": "pytorch is preferred"}


def test_default_device_is_the_cpu_without_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert RasterizerWrapper().mode == "pytorch_cpu"


@pytest.mark.parametrize(("hip", "mode"), [(None, "pytorch_cuda"), ("6.0", "pytorch_rocm")])
def test_mode_distinguishes_cuda_and_rocm(monkeypatch, gpu, hip, mode):
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr("torch_rasterizer.rasterizer.PyTorchRasterizer", lambda device: None)
    raster = RasterizerWrapper()
    assert (raster.mode, raster.device.type) == (mode, "cuda")


def test_default_device_is_mps_without_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr("torch_rasterizer.rasterizer.PyTorchRasterizer", lambda device: None)
    raster = RasterizerWrapper()
    assert (raster.mode, raster.device.type) == ("pytorch_mps", "mps")


def test_auto_selects_the_next_backend_if_one_fails(monkeypatch, original):
    def broken(device):
        raise wrapper._RejectedError("is broken")

    monkeypatch.setitem(wrapper._OPENERS, "pytorch", broken)
    raster = RasterizerWrapper(device="cpu")
    assert raster.mode == "custom_rasterizer"
    assert raster.rejected == {"pytorch": "is broken", "nvdiffrast": "custom_rasterizer is preferred; not installed"}


def test_auto_reports_why_no_backend_can_be_used(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BackendUnavailableError, match="no backend can rasterize on cuda:") as caught:
        RasterizerWrapper(device="cuda")
    assert list(caught.value.rejected) == ["pytorch", "custom_rasterizer", "nvdiffrast"]
    assert all("finds no CUDA or ROCm device" in reason for reason in caught.value.rejected.values())


def test_custom_rasterizer_is_called_with_contiguous_tensors(original):
    raster = RasterizerWrapper(backend="custom_rasterizer", device="cpu")
    assert (raster.mode, raster.device.type) == ("custom_rasterizer", "cpu")
    assert raster.rejected["pytorch"] == "backend='custom_rasterizer' was requested"
    pos, tri = triangle()
    turned = pos.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    assert raster.rasterize(turned, tri, (4, 5)) == ("ids", "barycentrics")
    sent, _, resolution, depth, prior = original.calls[0]
    assert sent.is_contiguous()
    assert torch.equal(sent, pos)
    assert (resolution, depth.numel(), prior) == ((4, 5), 0, 0)
    assert raster.interpolate(1, 2, 3, 4) == ("interpolated", (1, 2, 3, 4))


def test_package_custom_rasterizer_is_not_a_backend(original):
    original.__torch_rasterizer__ = True
    with pytest.raises(BackendUnavailableError, match=r"custom_rasterizer: .*package custom-rasterizer.*use 'pytorch'"):
        RasterizerWrapper(backend="custom_rasterizer", device="cpu")


def test_rejects_a_module_without_the_functions(original):
    del original.interpolate
    with pytest.raises(BackendUnavailableError, match="the module custom_rasterizer lacks interpolate"):
        RasterizerWrapper(backend="custom_rasterizer", device="cpu")


def test_reports_the_import_error_of_a_broken_module(monkeypatch, tmp_path):
    (tmp_path / "custom_rasterizer.py").write_text('raise OSError("libcudart.so.12: cannot open")\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(wrapper, "_is_installed", lambda name: True)
    with pytest.raises(BackendUnavailableError, match=r"its import fails: OSError: libcudart\.so\.12: cannot open"):
        RasterizerWrapper(backend="custom_rasterizer", device="cpu")


@pytest.mark.parametrize("backend", ["custom_rasterizer", "nvdiffrast"])
def test_reports_a_backend_that_is_not_installed(gpu, backend):
    message = rf"backend '{backend}' cannot be used on cuda: {backend}: not installed\. backend='auto' selects"
    with pytest.raises(BackendUnavailableError, match=message):
        RasterizerWrapper(backend=backend, device="cuda")


def test_rejects_backends_on_unsupported_devices(nvdiffrast, original):
    with pytest.raises(BackendUnavailableError, match="nvdiffrast: runs on cuda, not on cpu"):
        RasterizerWrapper(backend="nvdiffrast", device="cpu")
    with pytest.raises(BackendUnavailableError, match="custom_rasterizer: runs on cpu and cuda, not on mps"):
        RasterizerWrapper(backend="custom_rasterizer", device="mps")


def test_rejects_a_device_index_that_does_not_exist(gpu):
    with pytest.raises(BackendUnavailableError, match="torch finds 1 CUDA or ROCm devices, but no index 3"):
        RasterizerWrapper(backend="pytorch", device="cuda:3")


def test_reports_a_failed_context(monkeypatch, gpu):
    def context(device):
        raise RuntimeError("no kernel image is available\nfor this device")

    install(monkeypatch, RasterizeCudaContext=context)
    monkeypatch.setattr(nvdiffrast_adapter, "PyTorchRasterizer", lambda device: None)
    with pytest.raises(
        BackendUnavailableError, match="cannot create a context on cuda: RuntimeError: no kernel image is"
    ):
        RasterizerWrapper(backend="nvdiffrast", device="cuda")


def test_selects_nvdiffrast_by_name(monkeypatch, gpu, nvdiffrast):
    monkeypatch.setattr(nvdiffrast_adapter, "PyTorchRasterizer", lambda device: None)
    monkeypatch.setattr(nvdiffrast_adapter, "check_rasterize", lambda *arguments: None)  # The tensors are on the CPU.
    raster = RasterizerWrapper(backend="nvdiffrast", device="cuda:0")
    assert (raster.mode, str(raster.device)) == ("nvdiffrast", "cuda:0")
    ids, barycentric = raster.rasterize(*triangle(), (6, 7))
    assert (ids.dtype, tuple(ids.shape), tuple(barycentric.shape)) == (torch.int32, (6, 7), (6, 7, 3))
    assert ids[3, 3] == 1


@pytest.mark.parametrize("backend", ["opengl", "", None])
def test_rejects_unknown_backends(backend):
    with pytest.raises(ValueError, match=r"backend: expected one of 'auto', 'pytorch', .*, found"):
        RasterizerWrapper(backend=backend)


@pytest.mark.parametrize("device", ["quantum", object()])
def test_rejects_unknown_devices(device):
    with pytest.raises(ValueError, match=r"device: expected a torch\.device or its name, found"):
        RasterizerWrapper(device=device)


def test_wrapper_gives_the_result_of_pytorch_rasterizer():
    pos, tri = triangle()
    raster = RasterizerWrapper(backend="pytorch", device="cpu")
    ids, barycentric = raster.rasterize(pos, tri, (8, 9))
    expected_ids, expected = PyTorchRasterizer(CPU).rasterize_image(pos[0], tri, EMPTY, 9, 8, 1e-6, 0)
    assert torch.equal(ids, expected_ids)
    assert torch.equal(barycentric, expected)
    assert 0 < int((ids == 1).sum()) < 72
    colours = torch.eye(3)[None]
    drawn = raster.interpolate(colours, ids, barycentric, tri)
    assert torch.allclose(drawn[0], barycentric)


def test_depth_prior_reaches_the_backend():
    pos, tri = triangle()
    raster = RasterizerWrapper(device="cpu")
    behind, _ = raster.rasterize(pos, tri, (8, 8), clamp_depth=torch.full((64,), -0.5), use_depth_prior=1)
    hidden, _ = raster.rasterize(pos, tri, (8, 8), clamp_depth=torch.full((64,), 0.5), use_depth_prior=1)
    assert behind.any()
    assert not hidden.any()


# Tests of the adapter with the fake nvdiffrast.


def random_triangles(seed, faces=40):
    """Return triangles in front of the camera, no two of them coplanar, with perspective."""
    random = np.random.default_rng(seed)
    ndc = random.uniform([-1.1, -1.1, -0.9], [1.1, 1.1, 0.9], (faces * 3, 3))
    w = random.uniform(0.5, 3, (faces * 3, 1))
    pos = np.concatenate([ndc * w, w], axis=1).astype(np.float32)
    return torch.from_numpy(pos)[None], torch.arange(faces * 3, dtype=torch.int32).reshape(-1, 3)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (24, 37), (16, 16), (5, 3)])
@pytest.mark.parametrize("seed", [1, 2])
def test_adapter_covers_the_same_samples_as_pytorch(seed, height, width):
    pos, tri = random_triangles(seed)
    ids, barycentric = NvdiffrastRasterizer(fake_nvdiffrast, CPU).rasterize(pos, tri, (height, width), EMPTY, 0)
    expected_ids, expected = PyTorchRasterizer(CPU).rasterize_image(pos[0], tri, EMPTY, width, height, 1e-6, 0)
    same = ids == expected_ids
    # The two compute depth with different precision: pixels where triangles intersect may differ.
    assert int((~same).sum()) <= max(1, height * width // 200)
    assert ids[same].any()
    assert float((barycentric - expected)[same].abs().max()) < 2e-4


def test_ndc_limits_are_the_centres_of_border_pixels():
    """NDC -1 and +1 are the centres of the first and the last pixel, not their outer edges."""
    pos = torch.tensor([[-1.0, -1.0, 0.0, 1.0], [1.0, 1.0, 0.0, 1.0], [2.0, -4.0, 0.5, 2.0]])
    scaled = onto_samples(pos, 5, 8)
    x = (scaled[:, 0] / scaled[:, 3] + 1) / 2 * 8 - 0.5
    y = (scaled[:, 1] / scaled[:, 3] + 1) / 2 * 5 - 0.5
    assert torch.allclose(x, torch.tensor([0.0, 7.0, 7.0]), atol=1e-5)
    assert torch.allclose(y, torch.tensor([0.0, 4.0, -2.0]), atol=1e-5)
    assert torch.equal(scaled[:, 2:], pos[:, 2:])


def test_barycentrics_are_zero_in_the_background():
    pos, tri = triangle()
    ids, barycentric = NvdiffrastRasterizer(fake_nvdiffrast, CPU).rasterize(pos, tri, (9, 9), EMPTY, 0)
    assert (ids == 0).any()
    assert not barycentric[ids == 0].any()
    assert torch.allclose(barycentric[ids > 0].sum(-1), torch.ones(1))


def test_decodes_ids_above_2_to_the_24():
    ids = [0, 1, 2**24 - 1, 2**24, 2**24 + 1, 2**24 + 12345, 2**25 + 7, 2**29 + 3]
    bits = [struct.unpack("f", struct.pack("i", 0x4A800000 + i))[0] if i > 2**24 else float(i) for i in ids]
    channel = torch.tensor(bits, dtype=torch.float32).reshape(2, 4)
    assert face_ids(channel).tolist() == [ids[:4], ids[4:]]
    assert face_ids(channel.t()).t().tolist() == [ids[:4], ids[4:]]


def test_adapter_barycentrics_have_gradients():
    def rasterize(context, pos, tri, resolution, grad_db):
        drawn = torch.zeros(1, *resolution, 4)
        drawn[..., 3] = 1
        return drawn + pos.mean() * torch.tensor([1.0, 1.0, 0.0, 0.0]), None

    module = types.SimpleNamespace(rasterize=rasterize, RasterizeCudaContext=fake_nvdiffrast.RasterizeCudaContext)
    pos, tri = triangle()
    pos.requires_grad_()
    _, barycentric = NvdiffrastRasterizer(module, CPU).rasterize(pos, tri, (2, 2), EMPTY, 0)
    barycentric[..., 2].sum().backward()
    assert float(pos.grad.abs().sum()) > 0


def test_adapter_rejects_an_active_depth_prior():
    raster = NvdiffrastRasterizer(fake_nvdiffrast, CPU)
    with pytest.raises(ValueError, match="use_depth_prior: nvdiffrast has no depth prior"):
        raster.rasterize(*triangle(), (6, 7), torch.zeros(42), 1)
    assert raster.rasterize(*triangle(), (6, 7), torch.zeros(0), 1)[0].any()
    assert raster.rasterize(*triangle(), (6, 7), torch.zeros(42), 0)[0].any()


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"pos": torch.zeros(3, 4)}, ValueError, r"pos: expected shape \[1, N, 4\], found \[3, 4\]"),
        ({"pos": torch.zeros(2, 3, 4)}, ValueError, r"pos: expected shape \[1, N, 4\], found \[2, 3, 4\]"),
        ({"pos": torch.zeros(1, 3, 4).double()}, TypeError, r"pos: expected torch\.float32, found torch\.float64"),
        ({"pos": np.zeros((1, 3, 4))}, TypeError, r"pos: expected a torch\.float32 tensor \[1, N, 4\], found ndarray"),
        ({"pos": torch.zeros(1, 3, 4, device="meta")}, ValueError, "pos: expected a tensor on cpu, found one on meta"),
        ({"tri": torch.zeros(1, 3).long()}, TypeError, r"tri: expected torch\.int32, found torch\.int64"),
        ({"tri": torch.zeros(3).int()}, ValueError, r"tri: expected shape \[M, 3\], found \[3\]"),
        ({"tri": torch.tensor([[0, 1, 3]]).int()}, ValueError, "tri: expected indices 0 to 2, found 3"),
        ({"tri": torch.tensor([[0, -1, 2]]).int()}, ValueError, "tri: expected indices 0 to 2, found -1"),
        ({"resolution": (0, 4)}, ValueError, "height: expected at least 1 pixel, found 0"),
        ({"resolution": (4,)}, ValueError, r"resolution: expected height and width, found \(4,\)"),
    ],
)
def test_compiled_backends_get_checked_arguments(original, changes, error, words):
    pos, tri = triangle()
    arguments = {"pos": pos, "tri": tri, "resolution": (4, 4), "clamp_depth": EMPTY, "use_depth_prior": 0, **changes}
    for raster in (
        RasterizerWrapper(backend="custom_rasterizer", device="cpu"),
        NvdiffrastRasterizer(fake_nvdiffrast, CPU),
    ):
        with pytest.raises(error, match=words):
            raster.rasterize(**arguments)
    assert not original.calls


def test_adapter_draws_background_without_triangles():
    def rasterize(*arguments, **options):
        raise RuntimeError("tri must have shape [>0, 3]")

    module = types.SimpleNamespace(rasterize=rasterize, RasterizeCudaContext=fake_nvdiffrast.RasterizeCudaContext)
    raster = NvdiffrastRasterizer(module, CPU)
    ids, barycentric = raster.rasterize(triangle()[0], torch.zeros(0, 3, dtype=torch.int32), (3, 4), EMPTY, 0)
    assert (tuple(ids.shape), ids.dtype, tuple(barycentric.shape)) == ((3, 4), torch.int32, (3, 4, 3))
    assert not ids.any()
    assert not barycentric.any()


@pytest.mark.parametrize("name", ["raster_sphere_ortho", "raster_sphere_persp"])
def test_adapter_agrees_with_custom_rasterizer(name):
    file = HERE / "golden" / f"{name}.npz"
    data = np.load(file)
    pos, tri = torch.from_numpy(data["V"])[None], torch.from_numpy(data["F"])
    size = int(data["height"]), int(data["width"])
    ids, barycentric = NvdiffrastRasterizer(fake_nvdiffrast, CPU).rasterize(pos, tri, size, EMPTY, 0)
    same = ids.numpy() == data["findices"]
    assert (~same).mean() < 0.01
    assert np.abs(barycentric.numpy() - data["barycentric"])[same].max() < 1e-3
