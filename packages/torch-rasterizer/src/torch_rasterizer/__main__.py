"""Rasterizes a mesh on this machine, checks the result, and says how long it took; --benchmark compares the modes."""

from __future__ import annotations

import argparse
import platform
import sys
from pathlib import Path

import torch

from torch_rasterizer import selftest
from torch_rasterizer.rasterizer import PyTorchRasterizer

_ROUNDS = 5


def main(arguments: list[str] | None = None) -> int:
    """Run; 1 if the result is wrong, 2 for bad arguments."""
    options = _parser().parse_args(arguments)
    try:
        device = _device(options.device)
    except (RuntimeError, AssertionError) as error:
        print(f"error: device {options.device}: {str(error).splitlines()[0]}", file=sys.stderr)
        return 2
    scene = selftest.make_scene(options.faces, options.size, device)
    _introduce(scene, device)
    return _benchmark(scene) if options.benchmark else _test(scene, options.save)


def _test(scene: selftest.Scene, path: Path) -> int:
    device = scene.positions.device
    rasterizer = PyTorchRasterizer(device=device)
    result = selftest.rasterize(scene, rasterizer)
    milliseconds = selftest.timed(lambda: selftest.rasterize(scene, rasterizer), device, _ROUNDS)
    covered = float((result[0] > 0).float().mean())
    print(f"  Time:       {milliseconds:.1f} ms (median of {_ROUNDS})")
    print(f"  Coverage:   {covered:.1%} of the pixels, {int(result[0].unique().numel()) - 1} faces in sight")
    try:
        selftest.save(selftest.picture(scene, result, rasterizer), path)
        print(f"  Picture:    {path} (depth, face ids, barycentrics)")
    except (ImportError, OSError) as error:
        print(f"  Picture:    not saved: {error}")
    found = list(selftest.problems(scene, result))
    for problem in found:
        print(f"  WRONG:      {problem}")
    print("Failed." if found else "All checks passed.")
    return 1 if found else 0


def _benchmark(scene: selftest.Scene) -> int:
    rows = selftest.benchmark(scene, _ROUNDS)
    print(f"\n  {'mode':<10}{'median ms':>10}  result")
    for mode, milliseconds, same in rows:
        print(f"  {mode:<10}{milliseconds:>10.1f}  {'the same' if same else 'DIFFERS'}")
    return 0 if all(same for _, _, same in rows) else 1


def _introduce(scene: selftest.Scene, device: torch.device) -> None:
    print("torch-rasterizer self-test")
    print(f"  Device:     {device} ({_name(device)})")
    print(f"  torch:      {torch.__version__}, Python {platform.python_version()}")
    print(f"  Mesh:       {len(scene.positions)} vertices, {len(scene.faces)} faces")
    print(f"  Resolution: {scene.size} x {scene.size}")


def _device(name: str | None) -> torch.device:
    """The named device, tried; else the one that a rasterizer takes by itself."""
    if name is None:
        return PyTorchRasterizer().device
    device = torch.device(name)
    torch.zeros(1, device=device)
    return device


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        kind = "ROCm" if torch.version.hip else "CUDA"
        return f"{torch.cuda.get_device_name(device)}, {kind}"
    if device.type == "cpu":
        return f"{torch.get_num_threads()} threads"
    return platform.machine()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m torch_rasterizer", description=__doc__)
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps; the best there is unless named")
    parser.add_argument("--size", type=_positive, default=512, help="width and height in pixels (512)")
    parser.add_argument("--faces", type=_positive, default=5000, help="about how many triangles (5000)")
    parser.add_argument("--benchmark", action="store_true", help="compare the modes")
    parser.add_argument("--save", type=Path, default=Path("torch_rasterizer.png"), help="where the picture goes")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a number >= 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
