"""Imports a plugin or draws a triangle in a child process, so that a crash or a hang does not end the doctor.

The last line of the child's output is JSON: {"ok": bool, "text": str, "error": str}. ``text`` is the result or the
message of the error, and ``error`` is the original error, without the loader's diagnosis.
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

_TIMEOUT_SECONDS = {"import": 120, "triangle": 300}
# The child gets the doctor's sys.path, so that both use the same installation, even with the options -I or -S.
_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from nvdiffrast import _doctor_probe as probe; probe.main(sys.argv[2:])"
)
_SIZE = 64
# The corners of the triangle in clip space; its third edge is x + y = 0.
_CORNERS = ((-0.8, -0.8, 0.0, 1.0), (0.8, -0.8, 0.0, 1.0), (-0.8, 0.8, 0.0, 1.0))


def run(task: str, argument: str) -> dict[str, Any]:
    """Run ``task`` in a child process and return its result.

    task: "import" with a plugin's file as ``argument``, or "triangle" with "cuda" or "gl".
    """
    command = [sys.executable, "-c", _PROGRAM, json.dumps(sys.path), task, argument]
    # The installed plugin is examined even if the user forces just-in-time compilation.
    environ = {name: value for name, value in os.environ.items() if name != "NVDIFFRAST_FORCE_JIT"}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_SECONDS[task],
            check=False,
            env=environ,
        )
    except subprocess.TimeoutExpired:
        return _failed(f"there was no answer within {_TIMEOUT_SECONDS[task]} s")
    except OSError as error:
        return _failed(f"{sys.executable} cannot be started: {error}")
    try:
        result = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        last = (done.stderr.strip().splitlines() or ["it printed no error"])[-1]
        ended = f"was killed by signal {-done.returncode}" if done.returncode < 0 else f"ended with {done.returncode}"
        return _failed(f"the process {ended}: {last}")
    return result if isinstance(result, dict) else _failed(f"the process printed {result!r}")


def main(arguments: list[str]) -> None:
    """Run the task in this process and print its result."""
    task, argument = arguments
    try:
        text = {"import": _import, "triangle": _triangle}[task](argument)
        result = {"ok": True, "text": text, "error": ""}
    except Exception as error:
        cause = error
        while cause.__cause__ is not None and isinstance(cause.__cause__, Exception):
            cause = cause.__cause__
        result = {"ok": False, "text": str(error), "error": f"{type(cause).__name__}: {cause}"}
    print("\n" + json.dumps(result))


def covered(size: int, column: int, row: int) -> bool | None:
    """Return whether the triangle covers the centre of a pixel; None on an edge, where rounding decides.

    Row 0 is the lowest row of the image, which has ``size`` rows and columns.
    """
    x, y = ((2 * index + 1) / size - 1 for index in (column, row))
    distances = (x + 0.8, y + 0.8, -(x + y))
    return None if any(abs(distance) < 1e-6 for distance in distances) else all(distance > 0 for distance in distances)


def _import(file: str) -> str:
    """Import the plugin as upstream's code does, after torch; return a text with the time it took."""
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
        raise ImportError(f"another module was imported instead: {found}")
    return f"imported in {taken}"


def _triangle(context: str) -> str:
    """Draw one triangle, check every pixel, and return a text with the number of covered pixels."""
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
            expected = covered(_SIZE, column, row)
            wrong += expected is not None and expected != (pixels[row][column][3] == 1)
    if wrong:
        raise RuntimeError(f"{wrong} of {_SIZE * _SIZE} pixels are wrong")
    inside = sum(pixel[3] == 1 for row in pixels for pixel in row)
    return f"{inside} of {_SIZE * _SIZE} pixels are covered, as expected"


def _failed(text: str) -> dict[str, Any]:
    return {"ok": False, "text": text, "error": text}
