"""Tries a plugin, or draws a triangle, in a process of its own: what crashes or hangs there leaves the doctor alive.

The last line of its output is JSON: {"ok": bool, "text": str, "error": str}; ``error`` is what went wrong first,
before anybody explained it.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_SECONDS = {"import": 120, "triangle": 300}
# It gets the doctor's own path, so that both see the same installation, also under -I or -S.
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from nvdiffrast import _doctor_probe as probe; probe.main(sys.argv[2:])"
)
_SIZE = 64
# Corners of the triangle, in clip space; its third edge is where x + y = 0.
_CORNERS = ((-0.8, -0.8, 0.0, 1.0), (0.8, -0.8, 0.0, 1.0), (-0.8, 0.8, 0.0, 1.0))


def run(task: str, argument: str) -> dict[str, Any]:
    """The outcome of ``task``: "import" of a plugin's file, or "triangle" with "cuda" or "gl"."""
    command = [sys.executable, "-c", _START, json.dumps(sys.path), task, argument]
    # What is compiled here is looked at, also where somebody asked for another.
    environ = {name: value for name, value in os.environ.items() if name != "NVDIFFRAST_FORCE_JIT"}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS[task],
            check=False,
            env=environ,
        )
    except subprocess.TimeoutExpired:
        return _failed(f"gave no answer for {_SECONDS[task]} s")
    except OSError as error:
        return _failed(f"{sys.executable} cannot be started: {error}")
    try:
        found = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        ended = f"was killed by signal {-done.returncode}" if done.returncode < 0 else f"ended with {done.returncode}"
        return _failed(f"the process {ended}: {last}")
    return found if isinstance(found, dict) else _failed(f"it said {found!r}")


def main(arguments: list[str]) -> None:
    """Do the task in this process and print its outcome."""
    task, argument = arguments
    try:
        text = {"import": _import, "triangle": _triangle}[task](argument)
        found = {"ok": True, "text": text, "error": ""}
    except Exception as error:
        cause = error
        while cause.__cause__ is not None and isinstance(cause.__cause__, Exception):
            cause = cause.__cause__
        found = {"ok": False, "text": str(error), "error": f"{type(cause).__name__}: {cause}"}
    print("\n" + json.dumps(found))


def covered(size: int, column: int, row: int) -> bool | None:
    """Whether the triangle holds the centre of a pixel, rows from below; None on an edge, where rounding decides."""
    x, y = ((2 * at + 1) / size - 1 for at in (column, row))
    distances = (x + 0.8, y + 0.8, -(x + y))
    return None if any(abs(one) < 1e-6 for one in distances) else all(one > 0 for one in distances)


def _import(file: str) -> str:
    """Import the plugin as upstream's code does, torch first; says how long it took."""
    importlib.import_module("torch")
    loader = importlib.import_module("nvdiffrast._loader")
    start = time.perf_counter()
    path = Path(file)
    name = path.name.partition(".")[0]
    if path.parent.name == "torch":
        module = loader.load_precompiled(name.endswith("_gl"))
    else:
        module = loader.load_extension(name)
    taken = f"{(time.perf_counter() - start) * 1000:.0f} ms"
    found = getattr(module, "__file__", None)
    if module is None or found is None or not path.samefile(found):
        raise ImportError(f"another module came instead: {found}")
    return f"imported in {taken}"


def _triangle(context: str) -> str:
    """Draw one triangle and look at every pixel."""
    torch = importlib.import_module("torch")
    dr = importlib.import_module("nvdiffrast.torch")
    make = dr.RasterizeGLContext if context == "gl" else dr.RasterizeCudaContext
    device = "cuda"
    corners = torch.tensor([_CORNERS], dtype=torch.float32, device=device)
    faces = torch.tensor([[0, 1, 2]], dtype=torch.int32, device=device)
    drawn, _ = dr.rasterize(make(), corners, faces, resolution=[_SIZE, _SIZE])
    pixels = drawn[0].cpu().tolist()
    wrong = 0
    for row in range(_SIZE):
        for column in range(_SIZE):
            meant = covered(_SIZE, column, row)
            wrong += meant is not None and meant != (pixels[row][column][3] == 1)
    if wrong:
        raise RuntimeError(f"{wrong} of {_SIZE * _SIZE} pixels are wrong")
    inside = sum(pixel[3] == 1 for row in pixels for pixel in row)
    return f"{inside} of {_SIZE * _SIZE} pixels, each where it belongs"


def _failed(text: str) -> dict[str, Any]:
    return {"ok": False, "text": text, "error": text}
