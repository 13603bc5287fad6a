"""Every check of the gate passes without a fault, and fails with the fault that it is meant to find.

The checks of rasterize() differ between releases; test_gate_raster.py tests them.
"""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="needs torch: nox -s test_packages")

from scripts.gpu_gate import checks_render_gradients, checks_render_process, checks_render_sampling
from scripts.gpu_gate.reference import BOUNDARY_MODES, FILTER_MODES
from tests import gate_stand_in

MODULES = (checks_render_sampling, checks_render_gradients, checks_render_process)
CHECKS = {check.name: check.run for module in MODULES for check in module.CHECKS}
SAMPLING = [
    ("interpolate", "third-corner-twice"),
    ("interpolate", "background-not-0"),
    ("interpolate", "attributes-of-first-image"),
    ("interpolate", "attribute-derivatives-swapped"),
    ("interpolate", "derivatives-of-first-attributes"),
    *((f"texture-{mode}-{boundary}", f"off-{mode}-{boundary}") for mode in FILTER_MODES for boundary in BOUNDARY_MODES),
    ("texture-nearest-wrap", "wrap-as-clamp"),
    ("texture-linear-clamp", "clamp-as-wrap"),
    ("texture-linear-zero", "zero-as-clamp"),
    ("texture-linear-mipmap-linear-wrap", "trilinear-as-bilinear"),
    ("texture-linear-mipmap-linear-wrap", "minor-axis"),
    ("texture-linear-mipmap-nearest-cube", "minor-axis"),
    ("texture-linear-mipmap-linear-cube", "bias-ignored"),
    ("texture-nearest-clamp", "texture-of-first-image"),
    ("mip-maps", "mip-corners"),
    ("mip-maps", "mip-ignored"),
    ("mip-maps", "top-level-ignored"),
    ("mip-maps", "bias-ignored"),
    ("antialias", "every-edge"),
    ("antialias", "hash-ignored"),
    ("antialias", "no-antialias"),
    ("antialias", "antialias-away"),
]
GRADIENTS = [
    ("gradients-rasterize", "gradient-rasterize"),
    ("gradients-rasterize", "gradient-z"),
    ("gradients-rasterize", "grad-db-ignored"),
    *(("gradients-interpolate", f"gradient-{name}") for name in ("attributes", "barycentrics", "rast_db")),
    *(("gradients-texture", f"gradient-{name}") for name in ("texture", "uv", "uv_da", "bias", "mip")),
    *(("gradients-antialias", f"gradient-{name}") for name in ("color", "silhouettes")),
    ("gradients-antialias", "no-boost"),
    *(("gradients-large-triangles", f"race-{name}") for name in ("attributes", "barycentrics", "texture", "uv")),
    ("gradients-large-triangles", "race-silhouettes"),
    ("gradients-on-the-device", "gradient-rasterize"),
    ("gradients-on-the-device", "race-barycentrics"),
]
PROCESS = [
    ("contexts", "outputs-shared"),
    ("contexts", "one-pixel-off"),
    ("streams", "stream-ignored"),
    ("threads", "threads"),
    ("errors", "swallows-errors"),
    ("errors", "broken-by-errors"),
    ("memory", "leaks-tensors"),
    ("memory", "leaks-buffers"),
]
FAULTS = [*SAMPLING, *GRADIENTS, *PROCESS]


@pytest.mark.parametrize("name", CHECKS)
def test_passes_without_a_fault(name: str) -> None:
    outcome = CHECKS[name](gate_stand_in.bench())
    assert outcome.state == "passed", outcome.detail


@pytest.mark.parametrize("name", CHECKS)
def test_tolerates_float32_rounding(name: str) -> None:
    outcome = CHECKS[name](gate_stand_in.bench(gate_stand_in.ROUNDED))
    assert outcome.state == "passed", outcome.detail


@pytest.mark.parametrize(("name", "fault"), FAULTS)
def test_fails_with_its_fault(name: str, fault: str) -> None:
    outcome = CHECKS[name](gate_stand_in.bench(fault))
    assert outcome.state == "failed", outcome
    assert outcome.detail


def test_every_check_has_a_fault() -> None:
    assert {name for name, _ in FAULTS} == set(CHECKS)
