"""Render views of a dataset and compare them with the pictures of WebGPU: python -m nv_diff_render.test_render."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

import torch

from nv_diff_render import dataset, pictures
from nv_diff_render.diff_world import DifferentiableBlockWorld
from nv_diff_render.files import write_atomic
from nv_diff_render.maps import load_map
from nv_diff_render.metrics import MAX_MSE, MIN_GEOMETRY, MIN_PSNR, Metrics, compare
from nv_diff_render.scene import Materials, RenderOptions

_EXACT = Materials(hard=True)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line. Return 0 on success, 1 if a picture or a gradient is wrong, 2 for bad input."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    try:
        return _run(options)
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace) -> int:
    print(f"Using device: {options.device}\nLoading dataset {options.dataset_id}...")
    data = dataset.read(options.datasets / str(options.dataset_id))
    path = options.map or options.maps / str(options.dataset_id) / "map.json"
    world = load_world(path, options.device, options.backend)
    views = list(range(len(data.views))) if options.all_views else [options.view_index]
    print(f"Initializing renderer ({world.renderer.backend})...")
    status = _check_gradients(world, data, views[0]) if options.test_gradients else 0
    if options.test_gradients and not options.compare:
        return status
    results = list(_render_views(world, data, views, options))
    print(f"\n=== Done! Rendered {len(views)} view(s) ===")
    return max(status, _print_verdict(results)) if options.compare else 0


def load_world(path: Path, device: str = "cpu", backend: str = "auto") -> DifferentiableBlockWorld:
    """Return the world of a map.json.

    Raises:
        ValueError: if the map is malformed.
        OSError: if the file cannot be read.
    """
    found = load_map(path)
    world = DifferentiableBlockWorld(found.grid.size, found.grid.world_scale, device, backend)
    world.place_blocks(found.positions, torch.tensor(found.materials, dtype=torch.int64))
    return world


def _render_views(
    world: DifferentiableBlockWorld, data: dataset.Dataset, views: list[int], options: argparse.Namespace
) -> Iterable[tuple[int, Metrics]]:
    height, width = data.size
    for turn, index in enumerate(views, 1):
        of = f" ({turn} of {len(views)})" if len(views) > 1 else ""
        print(f"\n=== Rendering view {index}{of} ===\nRendering {len(world)} blocks at {width}x{height}...")
        with torch.no_grad():
            frame = world.render_frame(*data.matrices(index), height, width, _EXACT)
        picture = pictures.to_uint8(frame.rgba[0, :3])
        name = f"dataset_{options.dataset_id}_view_{index}.png"
        _save(options.out / name, picture)
        if options.compare:
            print("Comparing with ground truth...")
            truth = data.picture(index)
            metrics = compare(picture, truth, frame.coverage[0, 0].bool().cpu().numpy())
            _save(options.out / f"compare_{name}", pictures.side_by_side(picture, truth))
            _print_metrics(metrics)
            yield index, metrics


def _save(path: Path, picture: dataset.Picture) -> None:
    write_atomic(path, dataset.png(picture))
    print(f"Saved: {path}")


def _print_metrics(metrics: Metrics) -> None:
    print(
        f"Metrics:\n  MSE:            {metrics.mse:.6f}\n  PSNR:           {metrics.psnr:.2f} dB\n"
        f"  Max Error:      {metrics.max_error:.4f}\n  Geometry Match: {metrics.geometry_match:.4f}\n"
        f"  Different:      {metrics.different} pixels"
    )


def _print_verdict(results: list[tuple[int, Metrics]]) -> int:
    limits = f"MSE < {MAX_MSE}, PSNR > {MIN_PSNR:g} dB, geometry > {MIN_GEOMETRY}"
    failed = [index for index, metrics in results if not metrics.good]
    if failed:
        print(f"FAILED: views {', '.join(map(str, failed))} are outside the limits ({limits})")
        return 1
    worst = max(metrics.different for _, metrics in results)
    print(f"All views are within the limits ({limits}); at most {worst} pixels of a view differ.")
    return 0


def _check_gradients(world: DifferentiableBlockWorld, data: dataset.Dataset, index: int) -> int:
    """Check that the visible blocks, and only these, have a gradient; return the exit status."""
    view, projection = data.matrices(index)
    world.render(view, projection, *data.size)[:, :3].square().mean().backward()
    seen = torch.zeros(len(world), dtype=torch.bool, device=world.device)
    seen[world.scene.visibility(RenderOptions(view, projection, *data.size)).blocks] = True
    assert world.logits.grad is not None
    gradient = world.logits.grad.abs().amax(dim=1)
    reached = gradient > 0
    print(
        f"Gradients of view {index}: {int(reached.sum())} of {int(seen.sum())} visible blocks, "
        f"{int((reached & ~seen).sum())} of {int((~seen).sum())} others; largest {float(gradient.max()):.3g}"
    )
    if bool((reached == seen).all()) and bool(world.logits.grad.isfinite().all()):
        print("Gradients reach exactly the visible blocks.")
        return 0
    print("FAILED: gradients do not reach exactly the visible blocks.")
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m nv_diff_render.test_render", description=__doc__)
    parser.add_argument("--dataset_id", type=int, default=1, help="number of the dataset (1)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--view_index", type=int, default=0, help="index of the view to render (0)")
    which.add_argument("--all_views", action="store_true", help="render all views")
    parser.add_argument("--compare", action="store_true", help="compare with the pictures of WebGPU")
    parser.add_argument(
        "--test_gradients", action="store_true", help="check that gradients reach exactly the visible blocks"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps (cpu)")
    parser.add_argument("--backend", default="auto", help="auto, torch or nvdiffrast (auto)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="number of CPU threads of torch")
    parser.add_argument("--datasets", type=Path, default=Path("datasets"), help="folder of datasets (datasets)")
    parser.add_argument("--maps", type=Path, default=Path("maps"), help="folder of maps (maps)")
    parser.add_argument("--map", type=Path, help="map.json of the world (MAPS/ID/map.json)")
    parser.add_argument(
        "--out", type=Path, default=Path("out_local/nvdiff_test"), help="folder for pictures (out_local/nvdiff_test)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
