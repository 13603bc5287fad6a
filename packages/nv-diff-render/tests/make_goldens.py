"""Redraw the committed pictures with WebGPU: python make_goldens.py. Review the differences before committing."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from nv_diff_render import capture

_VIEWS = (("1", "flat"), ("2", "terrain"), ("3", "sparse"), ("4", "terrain", "--inside"))


def main() -> None:
    """Write golden/1 to golden/4, each with one view of 160 x 160 pixels; their maps can be generated again."""
    golden = Path(__file__).parent / "golden"
    shutil.rmtree(golden, ignore_errors=True)
    with tempfile.TemporaryDirectory() as maps:
        for number, world, *more in _VIEWS:
            size = ["--grid", "32", "24", "32", "--views", "1", "--size", "160"]
            folders = ["--datasets", str(golden), "--maps", maps]
            code = capture.main(["--dataset_id", number, "--world", world, *size, *folders, *more])
            if code:
                raise SystemExit(code)


if __name__ == "__main__":
    main()
