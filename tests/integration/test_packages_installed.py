"""Tests of the packages' wheels in an environment that contains only these wheels and torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.build.pure_packages import build, known
from scripts.locks.lockfile import read_lock
from scripts.model import ROOT

pytestmark = pytest.mark.integration

Command = list[str | Path]

_DRAW = """
import torch, custom_rasterizer as cr
V = torch.tensor([[[-1.0, -1, 0, 1], [1, -1, 0, 1], [0, 1, 0, 1]]])
F = torch.tensor([[0, 1, 2]], dtype=torch.int32)
ids, weights = cr.rasterize(V, F, (64, 64))
print(int(ids.sum()), tuple(cr.interpolate(V, ids, weights, F).shape), cr.__file__)
"""

_GOLDEN = ROOT / "packages" / "nv-diff-render" / "tests" / "golden"
# Writes the maps of the worlds in the golden datasets. The captureId of a dataset is "NAME XxYxZ seed SEED".
_MAPS = """
import json, pathlib, sys
from nv_diff_render import capture, maps
for path in pathlib.Path(sys.argv[1]).glob("*/metadata.json"):
    name, size, _, seed = json.loads(path.read_text())["captureId"].split(" ")[:4]
    world = capture.generate(name, tuple(map(int, size.split("x"))), int(seed))
    maps.save_map(pathlib.Path(sys.argv[2]) / path.parent.name / "map.json", world)
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the Python of an environment into which pip installed the packages' wheels and torch."""
    folder = tmp_path_factory.mktemp("installed")
    wheels = folder / "wheels"
    wheels.mkdir()
    for package in known():
        build(package, wheels)
    environment = folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    pip: Command = [environment / "bin" / "python", "-m", "pip", "install", "-q", "--only-binary", ":all:"]
    # If PIP_FIND_LINKS names a folder with a CPU build of torch, pip can use it instead of the one in the index.
    folders = os.environ.get("PIP_FIND_LINKS", "")
    subprocess.run(
        [*pip, "custom-rasterizer", "nv-diff-render"],
        env={**os.environ, "PIP_FIND_LINKS": f"{folders} {wheels}".strip()},
        check=True,
    )
    return environment / "bin" / "python"


def test_rasterizes_with_the_import_of_hunyuan(python: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [python, "-I", "-c", _DRAW], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout.split(" ", 1)
    assert int(done[0]) > 1000
    assert done[1].startswith("(1, 64, 64, 4)")
    assert str(ROOT) not in done[1]


def test_command_line_passes_its_checks(python: Path, tmp_path: Path) -> None:
    command: Command = [python, "-I", "-m", "torch_rasterizer", "--device", "cpu", "--size", "128"]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert "All checks passed." in done.stdout


def _validate(python: Path, folder: Path, datasets: Path, number: str) -> None:
    """Run the validation command on all views of a dataset, and check that all are within the limits.

    The map of the dataset is in ``folder``.
    """
    command: Command = [python, "-I", "-m", "nv_diff_render.test_render", "--all_views", "--compare"]
    folders: Command = ["--datasets", datasets, "--maps", folder / "maps", "--out", folder / "out"]
    run = [*command, "--dataset_id", number, *folders]
    done = subprocess.run(run, cwd=folder, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All views are within the limits" in done.stdout
    assert all(float(line.split()[-2]) > 40 for line in done.stdout.splitlines() if "PSNR: " in line)


def test_blocks_match_the_stored_images_of_webgpu(python: Path, tmp_path: Path) -> None:
    """Run the validation command on the datasets in the repository, which were drawn with WebGPU."""
    subprocess.run([python, "-I", "-c", _MAPS, _GOLDEN, tmp_path / "maps"], check=True)
    numbers = sorted(path.parent.name for path in _GOLDEN.glob("*/metadata.json"))
    assert len(numbers) == 4
    for number in numbers:
        _validate(python, tmp_path, _GOLDEN, number)


def test_blocks_match_new_images_of_webgpu(python: Path, tmp_path: Path) -> None:
    """Capture a dataset and run the validation command on it; wgpu is installed only for the capture."""
    wanted = {"wgpu", "rendercanvas", "cffi", "pycparser"}
    pins = [pin for pin in read_lock(ROOT / "requirements" / "packages.txt") if pin.name in wanted]
    lines = [" ".join((f"{pin.name}=={pin.version}", *(f"--hash=sha256:{of}" for of in pin.hashes))) for pin in pins]
    (tmp_path / "wgpu.txt").write_text("\n".join(lines))
    pip: Command = [python, "-m", "pip", "install", "-q", "--only-binary", ":all:", "--no-deps", "--require-hashes"]
    subprocess.run([*pip, "--target", tmp_path / "wgpu", "-r", tmp_path / "wgpu.txt"], check=True)
    arguments = ["--dataset_id", "1", "--world", "terrain", "--size", "256"]
    command: Command = [python, "-m", "nv_diff_render.capture", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "wgpu")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=False, capture_output=True, text=True)
    if done.returncode == 3:
        pytest.skip(f"needs WebGPU: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    assert "Drew 4 views" in done.stdout
    _validate(python, tmp_path, tmp_path / "datasets", "1")
