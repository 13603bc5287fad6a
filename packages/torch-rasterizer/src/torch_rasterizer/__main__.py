"""Rasterize a mesh on this machine, check the result and print the time; --benchmark compares the modes."""

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
    """Run the command line. Return 0 on success, 1 if a result is wrong, 2 if the device cannot be used."""
    options = _parser().parse_args(arguments)
    try:
        device = _device(options.device)
    except (RuntimeError, AssertionError) as error:
        print(f"error: device {options.device}: {str(error).splitlines()[0]}", file=sys.stderr)
        return 2
    scene = selftest.make_scene(options.faces, options.size, device)
    _print_header(scene, device)
    return _run_benchmark(scene) if options.benchmark else _run_test(scene, options.save)


def _run_test(scene: selftest.Scene, path: Path) -> int:
    device = scene.positions.device
    rasterizer = PyTorchRasterizer(device=device)
    result = selftest.rasterize(scene, rasterizer)
    milliseconds = selftest.median_milliseconds(lambda: selftest.rasterize(scene, rasterizer), device, _ROUNDS)
    covered = float((result[0] > 0).float().mean())
    print(f"  Time:       {milliseconds:.1f} ms (median of {_ROUNDS})")
    print(f"  Coverage:   {covered:.1%} of the pixels, {int(result[0].unique().numel()) - 1} faces visible")
    try:
        selftest.save_png(selftest.draw_panels(scene, result, rasterizer), path)
        print(f"  Picture:    {path} (depth, face ids, barycentrics)")
    except (ImportError, OSError) as error:
        print(f"  Picture:    not saved: {error}")
    found = list(selftest.find_problems(scene, result))
    for problem in found:
        print(f"  WRONG:      {problem}")
    print("Failed." if found else "All checks passed.")
    return 1 if found else 0


def _run_benchmark(scene: selftest.Scene) -> int:
    rows = selftest.benchmark(scene, _ROUNDS)
    print(f"\n  {'mode':<10}{'median ms':>10}  result")
    for mode, milliseconds, same in rows:
        print(f"  {mode:<10}{milliseconds:>10.1f}  {'identical' if same else 'DIFFERENT'}")
    return 0 if all(same for _, _, same in rows) else 1


def _print_header(scene: selftest.Scene, device: torch.device) -> None:
    print("torch-rasterizer self-test")
    print(f"  Device:     {device} ({_device_name(device)})")
    print(f"  torch:      {torch.__version__}, Python {platform.python_version()}")
    print(f"  Mesh:       {len(scene.positions)} vertices, {len(scene.faces)} faces")
    print(f"  Resolution: {scene.size} x {scene.size}")


def _device(name: str | None) -> torch.device:
    """Return the named device after a trial allocation, or the default device of a rasterizer if no name is given."""
    if name is None:
        return PyTorchRasterizer().device
    device = torch.device(name)
    torch.zeros(1, device=device)
    return device


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        kind = "ROCm" if torch.version.hip else "CUDA"
        return f"{torch.cuda.get_device_name(device)}, {kind}"
    if device.type == "cpu":
        return f"{torch.get_num_threads()} threads"
    return platform.machine()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m torch_rasterizer", description=__doc__)
    parser.add_argument("--device", help="cpu, cuda, cuda:1 or mps (default: the fastest available)")
    parser.add_argument("--size", type=_positive, default=512, help="width and height in pixels (512)")
    parser.add_argument("--faces", type=_positive, default=5000, help="approximate number of triangles (5000)")
    parser.add_argument("--benchmark", action="store_true", help="compare the modes")
    parser.add_argument(
        "--save", type=Path, default=Path("torch_rasterizer.png"), help="file of the picture (torch_rasterizer.png)"
    )
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected an integer >= 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
