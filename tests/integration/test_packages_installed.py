"""The packages' wheels in an environment that has nothing but them and torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.model import ROOT
from scripts.packages import build, known

pytestmark = pytest.mark.integration

_DRAW = """
import torch, custom_rasterizer as cr
V = torch.tensor([[[-1.0, -1, 0, 1], [1, -1, 0, 1], [0, 1, 0, 1]]])
F = torch.tensor([[0, 1, 2]], dtype=torch.int32)
ids, weights = cr.rasterize(V, F, (64, 64))
print(int(ids.sum()), tuple(cr.interpolate(V, ids, weights, F).shape), cr.__file__)
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with torch and the three wheels, by pip and an index or a folder of its user's."""
    folder = tmp_path_factory.mktemp("installed")
    wheels = folder / "wheels"
    wheels.mkdir()
    for package in known():
        build(package, wheels)
    environment = folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    pip: list[str | Path] = [environment / "bin" / "python", "-m", "pip", "install", "-q", "--only-binary", ":all:"]
    # The CPU's torch where pip is told of one, else whichever the index has.
    folders = os.environ.get("PIP_FIND_LINKS", "")
    subprocess.run(
        [*pip, "custom-rasterizer", "nv-diff-render"],
        env={**os.environ, "PIP_FIND_LINKS": f"{folders} {wheels}".strip()},
        check=True,
    )
    return environment / "bin" / "python"


def test_import_as_hunyuan_does(python: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [python, "-I", "-c", _DRAW], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout.split(" ", 1)
    assert int(done[0]) > 1000
    assert done[1].startswith("(1, 64, 64, 4)")
    assert str(ROOT) not in done[1]


def test_command_line(python: Path, tmp_path: Path) -> None:
    command: list[str | Path] = [python, "-I", "-m", "torch_rasterizer", "--device", "cpu", "--size", "128"]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert "All checks passed." in done.stdout
