"""Tests against SwiftShader, Chromium's WebGPU on the CPU, with corners snapped to 1/16 pixel."""

from __future__ import annotations

import base64
import functools
import shutil
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from comparison_scenes import SCENES, ComparisonScene
from nv_diff_render import metrics, pictures
from nv_diff_render.backends import TorchBackend
from nv_diff_render.dataset import Camera
from nv_diff_render.maps import Map
from nv_diff_render.materials import MATERIALS
from nv_diff_render.mesh_builder import block_faces, build_block_mesh
from nv_diff_render.scene import Materials, RenderOptions, Scene
from nv_diff_render.utils import view_projection

webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install selenium")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        not (shutil.which("chromium") and shutil.which("chromedriver")),
        reason="needs Chromium: apt-get install --no-install-recommends chromium chromium-driver",
    ),
]
_SIZE = 512
_FLAGS = (
    "--headless=new --no-sandbox --enable-unsafe-webgpu --use-webgpu-adapter=swiftshader --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync --disable-dev-shm-usage"
)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Path]]:
    """Yield a browser that has opened the drawing page, and the folder served to the page."""
    folder = tmp_path_factory.mktemp("page")
    shutil.copy(Path(__file__).with_name("swiftshader.html"), folder / "index.html")
    (folder / "terrain.wgsl").write_text(files("nv_diff_render").joinpath("terrain.wgsl").read_text())
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    options = webdriver.ChromeOptions()
    for flag in _FLAGS.split():
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    driver.set_script_timeout(120)
    driver.get(f"http://127.0.0.1:{server.server_port}/")
    yield driver, folder
    driver.quit()
    server.shutdown()


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: f"{scene.world}-{scene.cameras}")
def test_pixels_equal_swiftshader(scene: ComparisonScene, browser: tuple[Any, Path]) -> None:
    found = scene.map
    positions = torch.tensor(found.positions)
    logits = torch.nn.functional.one_hot(torch.tensor(found.materials), len(MATERIALS)).float()
    renderer = Scene(block_faces(positions, found.grid), TorchBackend(subpixel_bits=4))
    _serve(found, logits, browser[1])
    for camera in scene.views(2):
        rendered = renderer.render(
            logits, RenderOptions(camera.view, camera.projection, _SIZE, _SIZE, Materials(hard=True))
        )
        result = metrics.compare(pictures.to_uint8(rendered[0, :3]), _draw_in_browser(browser[0], camera))
        assert result.different <= 15


def _serve(found: Map, logits: torch.Tensor, folder: Path) -> None:
    grid = found.grid
    vertices, _, attributes = build_block_mesh(
        found.positions, logits, grid.size, grid.world_scale, hard_assignment=True
    )
    mesh = torch.cat([vertices, attributes["normals"], attributes["colors"]], dim=1)
    (folder / "mesh.bin").write_bytes(mesh.numpy().tobytes())


def _draw_in_browser(driver: Any, camera: Camera) -> np.ndarray[Any, np.dtype[np.uint8]]:
    matrix = view_projection(camera.view, camera.projection)[0].T.reshape(-1).tolist()
    script = "const done = arguments[3]; draw(arguments[0], arguments[1], arguments[2]).then(done, e => done('!' + e))"
    text = driver.execute_async_script(script, matrix, _SIZE, _SIZE)
    if text.startswith("!"):
        pytest.skip(f"needs a Chromium with WebGPU (apt-get install chromium chromium-driver): {text[1:]}")
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(_SIZE, _SIZE, 4)[..., :3]
