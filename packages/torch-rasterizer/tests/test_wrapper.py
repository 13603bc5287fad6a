"""RasterizerWrapper: which backend it takes and why, and that each is called as it has to be."""

from __future__ import annotations

import importlib.util
import struct
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_rasterizer import nvdiffrast_adapter, wrapper
from torch_rasterizer.nvdiffrast_adapter import NvdiffrastRasterizer, face_ids, onto_samples
from torch_rasterizer.rasterizer import PyTorchRasterizer
from torch_rasterizer.wrapper import BackendUnavailableError, RasterizerWrapper

HERE = Path(__file__).resolve().parent
SPEC = importlib.util.spec_from_file_location("nvdiffrast_stand_in", HERE / "nvdiffrast_stand_in.py")
stand_in = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(stand_in)

CPU = torch.device("cpu")
EMPTY = torch.zeros(0)


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch):
    """No backend but PyTorch, whatever this environment has."""
    for name in ("custom_rasterizer", "custom_rasterizer_kernel", "nvdiffrast", "nvdiffrast.torch"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    find = importlib.util.find_spec
    hidden = ("custom_rasterizer", "nvdiffrast")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n: None if n in hidden and n not in sys.modules else find(n)
    )


@pytest.fixture
def gpu(monkeypatch):
    """A CUDA device as far as torch is asked about one; tensors stay on the CPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)


@pytest.fixture
def original(monkeypatch):
    """A compiled original, which notes its calls."""
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
    """An nvdiffrast whose torch part has these attributes."""
    package, part = types.ModuleType("nvdiffrast"), types.ModuleType("nvdiffrast.torch")
    package.__path__, package.torch = [], part
    for name, value in attributes.items():
        setattr(part, name, value)
    monkeypatch.setitem(sys.modules, "nvdiffrast", package)
    monkeypatch.setitem(sys.modules, "nvdiffrast.torch", part)


@pytest.fixture
def nvdiffrast(monkeypatch):
    install(monkeypatch, rasterize=stand_in.rasterize, RasterizeCudaContext=stand_in.RasterizeCudaContext)


def triangle():
    pos = torch.tensor([[[-0.9, -0.9, 0.0, 1.0], [0.9, -0.9, 0.0, 1.0], [0.0, 0.9, 0.0, 1.0]]])
    return pos, torch.tensor([[0, 1, 2]], dtype=torch.int32)


def test_auto_takes_pytorch_on_the_cpu():
    raster = RasterizerWrapper(device="cpu")
    assert (raster.mode, raster.device) == ("pytorch_cpu", CPU)
    assert raster.rejected == {
        "custom_rasterizer": "pytorch comes first; not installed",
        "nvdiffrast": "pytorch comes first; not installed",
    }
    assert repr(raster) == "RasterizerWrapper(mode='pytorch_cpu', device='cpu')"


def test_auto_takes_pytorch_though_others_are_there(original, nvdiffrast):
    raster = RasterizerWrapper(device="cpu")
    assert raster.mode == "pytorch_cpu"
    assert raster.rejected == {"custom_rasterizer": "pytorch comes first", "nvdiffrast": "pytorch comes first"}


def test_no_device_means_the_best_there_is(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert RasterizerWrapper().mode == "pytorch_cpu"


@pytest.mark.parametrize(("hip", "mode"), [(None, "pytorch_cuda"), ("6.0", "pytorch_rocm")])
def test_rocm_is_known_by_its_version(monkeypatch, gpu, hip, mode):
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr("torch_rasterizer.rasterizer.PyTorchRasterizer", lambda device: None)
    raster = RasterizerWrapper()
    assert (raster.mode, raster.device.type) == (mode, "cuda")


def test_mps_is_taken_where_there_is_no_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr("torch_rasterizer.rasterizer.PyTorchRasterizer", lambda device: None)
    raster = RasterizerWrapper()
    assert (raster.mode, raster.device.type) == ("pytorch_mps", "mps")


def test_auto_goes_on_to_the_next(monkeypatch, original):
    def broken(device):
        raise wrapper._RejectedError("is broken")

    monkeypatch.setitem(wrapper._OPENERS, "pytorch", broken)
    raster = RasterizerWrapper(device="cpu")
    assert raster.mode == "custom_rasterizer"
    assert raster.rejected == {"pytorch": "is broken", "nvdiffrast": "custom_rasterizer comes first; not installed"}


def test_auto_says_why_nothing_can_be_used(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BackendUnavailableError, match="no backend can rasterize on cuda:") as caught:
        RasterizerWrapper(device="cuda")
    assert list(caught.value.rejected) == ["pytorch", "custom_rasterizer", "nvdiffrast"]
    assert all("sees no CUDA or ROCm device" in reason for reason in caught.value.rejected.values())


def test_a_named_original_is_called_with_what_it_needs(original):
    raster = RasterizerWrapper(backend="custom_rasterizer", device="cpu")
    assert (raster.mode, raster.device.type) == ("custom_rasterizer", "cpu")
    assert raster.rejected["pytorch"] == "backend='custom_rasterizer' was asked for"
    pos, tri = triangle()
    turned = pos.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    assert raster.rasterize(turned, tri, (4, 5)) == ("ids", "barycentrics")
    sent, _, resolution, depth, prior = original.calls[0]
    assert sent.is_contiguous()
    assert torch.equal(sent, pos)
    assert (resolution, depth.numel(), prior) == ((4, 5), 0, 0)
    assert raster.interpolate(1, 2, 3, 4) == ("interpolated", (1, 2, 3, 4))


def test_our_own_drop_in_is_no_original(original):
    original.__torch_rasterizer__ = True
    with pytest.raises(BackendUnavailableError, match=r"custom_rasterizer: .*drop-in.*use 'pytorch'"):
        RasterizerWrapper(backend="custom_rasterizer", device="cpu")


def test_a_module_without_the_calls_is_refused(original):
    del original.interpolate
    with pytest.raises(BackendUnavailableError, match="the module custom_rasterizer has no interpolate"):
        RasterizerWrapper(backend="custom_rasterizer", device="cpu")


def test_a_broken_module_is_refused_with_its_error(monkeypatch, tmp_path):
    (tmp_path / "custom_rasterizer.py").write_text('raise OSError("libcudart.so.12: cannot open")\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(wrapper, "_is_installed", lambda name: True)
    with pytest.raises(BackendUnavailableError, match=r"its import fails: OSError: libcudart\.so\.12: cannot open"):
        RasterizerWrapper(backend="custom_rasterizer", device="cpu")


@pytest.mark.parametrize("backend", ["custom_rasterizer", "nvdiffrast"])
def test_what_is_not_installed_is_said(gpu, backend):
    message = rf"backend '{backend}' cannot be used on cuda: {backend}: not installed\. backend='auto' takes"
    with pytest.raises(BackendUnavailableError, match=message):
        RasterizerWrapper(backend=backend, device="cuda")


def test_backends_are_refused_where_they_do_not_run(nvdiffrast, original):
    with pytest.raises(BackendUnavailableError, match="nvdiffrast: runs on cuda, not on cpu"):
        RasterizerWrapper(backend="nvdiffrast", device="cpu")
    with pytest.raises(BackendUnavailableError, match="custom_rasterizer: runs on cpu and cuda, not on mps"):
        RasterizerWrapper(backend="custom_rasterizer", device="mps")


def test_a_device_beyond_those_there_are(gpu):
    with pytest.raises(BackendUnavailableError, match="torch sees 1 CUDA or ROCm devices, none with index 3"):
        RasterizerWrapper(backend="pytorch", device="cuda:3")


def test_no_context_is_a_reason(monkeypatch, gpu):
    def context(device):
        raise RuntimeError("no kernel image is available\nfor this device")

    install(monkeypatch, RasterizeCudaContext=context)
    monkeypatch.setattr(nvdiffrast_adapter, "PyTorchRasterizer", lambda device: None)
    with pytest.raises(BackendUnavailableError, match="no context on cuda: RuntimeError: no kernel image is available"):
        RasterizerWrapper(backend="nvdiffrast", device="cuda")


def test_a_named_nvdiffrast_is_taken(monkeypatch, gpu, nvdiffrast):
    monkeypatch.setattr(nvdiffrast_adapter, "PyTorchRasterizer", lambda device: None)
    monkeypatch.setattr(nvdiffrast_adapter, "check_rasterize", lambda *arguments: None)  # The tensors are not there.
    raster = RasterizerWrapper(backend="nvdiffrast", device="cuda:0")
    assert (raster.mode, str(raster.device)) == ("nvdiffrast", "cuda:0")
    ids, barycentric = raster.rasterize(*triangle(), (6, 7))
    assert (ids.dtype, tuple(ids.shape), tuple(barycentric.shape)) == (torch.int32, (6, 7), (6, 7, 3))
    assert ids[3, 3] == 1


@pytest.mark.parametrize("backend", ["opengl", "", None])
def test_unknown_backends(backend):
    with pytest.raises(ValueError, match=r"backend: expected one of 'auto', 'pytorch', .*, found"):
        RasterizerWrapper(backend=backend)


@pytest.mark.parametrize("device", ["quantum", object()])
def test_unknown_devices(device):
    with pytest.raises(ValueError, match=r"device: expected a torch\.device or its name, found"):
        RasterizerWrapper(device=device)


def test_pytorch_draws_through_the_wrapper():
    pos, tri = triangle()
    raster = RasterizerWrapper(backend="pytorch", device="cpu")
    ids, barycentric = raster.rasterize(pos, tri, (8, 9))
    beside_ids, beside = PyTorchRasterizer(CPU).rasterize_image(pos[0], tri, EMPTY, 9, 8, 1e-6, 0)
    assert torch.equal(ids, beside_ids)
    assert torch.equal(barycentric, beside)
    assert 0 < int((ids == 1).sum()) < 72
    colours = torch.eye(3)[None]
    drawn = raster.interpolate(colours, ids, barycentric, tri)
    assert torch.allclose(drawn[0], barycentric)


def test_the_depth_prior_reaches_the_backend():
    pos, tri = triangle()
    raster = RasterizerWrapper(device="cpu")
    behind, _ = raster.rasterize(pos, tri, (8, 8), clamp_depth=torch.full((64,), -0.5), use_depth_prior=1)
    hidden, _ = raster.rasterize(pos, tri, (8, 8), clamp_depth=torch.full((64,), 0.5), use_depth_prior=1)
    assert behind.any()
    assert not hidden.any()


# The adapter, drawing with the stand-in.


def soup(seed, faces=40):
    """Triangles in front of the camera, no two coplanar, with perspective."""
    random = np.random.default_rng(seed)
    ndc = random.uniform([-1.1, -1.1, -0.9], [1.1, 1.1, 0.9], (faces * 3, 3))
    w = random.uniform(0.5, 3, (faces * 3, 1))
    pos = np.concatenate([ndc * w, w], axis=1).astype(np.float32)
    return torch.from_numpy(pos)[None], torch.arange(faces * 3, dtype=torch.int32).reshape(-1, 3)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (24, 37), (16, 16), (5, 3)])
@pytest.mark.parametrize("seed", [1, 2])
def test_the_same_samples_are_hit(seed, height, width):
    pos, tri = soup(seed)
    ids, barycentric = NvdiffrastRasterizer(stand_in, CPU).rasterize(pos, tri, (height, width), EMPTY, 0)
    beside_ids, beside = PyTorchRasterizer(CPU).rasterize_image(pos[0], tri, EMPTY, width, height, 1e-6, 0)
    same = ids == beside_ids
    # The two interpolate and quantize depth in other precisions: pixels where triangles cross may differ.
    assert int((~same).sum()) <= max(1, height * width // 200)
    assert ids[same].any()
    assert float((barycentric - beside)[same].abs().max()) < 2e-4


def test_pixel_centres_are_the_ends_of_the_range():
    """NDC -1 and +1 are samples of the first and the last pixel, not the outer edges of those."""
    pos = torch.tensor([[-1.0, -1.0, 0.0, 1.0], [1.0, 1.0, 0.0, 1.0], [2.0, -4.0, 0.5, 2.0]])
    scaled = onto_samples(pos, 5, 8)
    x = (scaled[:, 0] / scaled[:, 3] + 1) / 2 * 8 - 0.5
    y = (scaled[:, 1] / scaled[:, 3] + 1) / 2 * 5 - 0.5
    assert torch.allclose(x, torch.tensor([0.0, 7.0, 7.0]), atol=1e-5)
    assert torch.allclose(y, torch.tensor([0.0, 4.0, -2.0]), atol=1e-5)
    assert torch.equal(scaled[:, 2:], pos[:, 2:])


def test_background_has_no_barycentrics():
    pos, tri = triangle()
    ids, barycentric = NvdiffrastRasterizer(stand_in, CPU).rasterize(pos, tri, (9, 9), EMPTY, 0)
    assert (ids == 0).any()
    assert not barycentric[ids == 0].any()
    assert torch.allclose(barycentric[ids > 0].sum(-1), torch.ones(1))


def test_large_ids_are_exact():
    ids = [0, 1, 2**24 - 1, 2**24, 2**24 + 1, 2**24 + 12345, 2**25 + 7, 2**29 + 3]
    bits = [struct.unpack("f", struct.pack("i", 0x4A800000 + i))[0] if i > 2**24 else float(i) for i in ids]
    channel = torch.tensor(bits, dtype=torch.float32).reshape(2, 4)
    assert face_ids(channel).tolist() == [ids[:4], ids[4:]]
    assert face_ids(channel.t()).t().tolist() == [ids[:4], ids[4:]]


def test_gradients_pass_through_the_barycentrics():
    def rasterize(context, pos, tri, resolution, grad_db):
        drawn = torch.zeros(1, *resolution, 4)
        drawn[..., 3] = 1
        return drawn + pos.mean() * torch.tensor([1.0, 1.0, 0.0, 0.0]), None

    module = types.SimpleNamespace(rasterize=rasterize, RasterizeCudaContext=stand_in.RasterizeCudaContext)
    pos, tri = triangle()
    pos.requires_grad_()
    _, barycentric = NvdiffrastRasterizer(module, CPU).rasterize(pos, tri, (2, 2), EMPTY, 0)
    barycentric[..., 2].sum().backward()
    assert float(pos.grad.abs().sum()) > 0


def test_an_active_depth_prior_is_refused():
    raster = NvdiffrastRasterizer(stand_in, CPU)
    with pytest.raises(ValueError, match="use_depth_prior: nvdiffrast has no depth prior"):
        raster.rasterize(*triangle(), (6, 7), torch.zeros(42), 1)
    assert raster.rasterize(*triangle(), (6, 7), torch.zeros(0), 1)[0].any()
    assert raster.rasterize(*triangle(), (6, 7), torch.zeros(42), 0)[0].any()


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"pos": torch.zeros(3, 4)}, ValueError, r"pos: expected shape <1,N,4>, found <3,4>"),
        ({"pos": torch.zeros(2, 3, 4)}, ValueError, r"pos: expected shape <1,N,4>, found <2,3,4>"),
        ({"pos": torch.zeros(1, 3, 4).double()}, TypeError, r"pos: expected torch\.float32, found torch\.float64"),
        ({"pos": np.zeros((1, 3, 4))}, TypeError, r"pos: expected a torch\.float32 tensor <1,N,4>, found ndarray"),
        ({"pos": torch.zeros(1, 3, 4, device="meta")}, ValueError, "pos: expected a tensor on cpu, found one on meta"),
        ({"tri": torch.zeros(1, 3).long()}, TypeError, r"tri: expected torch\.int32, found torch\.int64"),
        ({"tri": torch.zeros(3).int()}, ValueError, r"tri: expected shape <M,3>, found <3>"),
        ({"tri": torch.tensor([[0, 1, 3]]).int()}, ValueError, "tri: expected indices 0 to 2, found 3"),
        ({"tri": torch.tensor([[0, -1, 2]]).int()}, ValueError, "tri: expected indices 0 to 2, found -1"),
        ({"resolution": (0, 4)}, ValueError, "height: expected at least 1 pixel, found 0"),
        ({"resolution": (4,)}, ValueError, r"resolution: expected height and width, found \(4,\)"),
    ],
)
def test_other_backends_get_no_wrong_arguments(original, changes, error, words):
    pos, tri = triangle()
    arguments = {"pos": pos, "tri": tri, "resolution": (4, 4), "clamp_depth": EMPTY, "use_depth_prior": 0, **changes}
    for raster in (
        RasterizerWrapper(backend="custom_rasterizer", device="cpu"),
        NvdiffrastRasterizer(stand_in, CPU),
    ):
        with pytest.raises(error, match=words):
            raster.rasterize(**arguments)
    assert not original.calls


def test_no_triangles_are_background():
    def rasterize(*arguments, **options):
        raise RuntimeError("tri must have shape [>0, 3]")

    module = types.SimpleNamespace(rasterize=rasterize, RasterizeCudaContext=stand_in.RasterizeCudaContext)
    raster = NvdiffrastRasterizer(module, CPU)
    ids, barycentric = raster.rasterize(triangle()[0], torch.zeros(0, 3, dtype=torch.int32), (3, 4), EMPTY, 0)
    assert (tuple(ids.shape), ids.dtype, tuple(barycentric.shape)) == ((3, 4), torch.int32, (3, 4, 3))
    assert not ids.any()
    assert not barycentric.any()


@pytest.mark.parametrize("name", ["raster_sphere_ortho", "raster_sphere_persp"])
def test_the_adapter_agrees_with_the_original(name):
    file = HERE / "golden" / f"{name}.npz"
    data = np.load(file)
    pos, tri = torch.from_numpy(data["V"])[None], torch.from_numpy(data["F"])
    size = int(data["height"]), int(data["width"])
    ids, barycentric = NvdiffrastRasterizer(stand_in, CPU).rasterize(pos, tri, size, EMPTY, 0)
    same = ids.numpy() == data["findices"]
    assert (~same).mean() < 0.01
    assert np.abs(barycentric.numpy() - data["barycentric"])[same].max() < 1e-3
