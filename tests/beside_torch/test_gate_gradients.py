"""Every check of gradients passes where nothing is wrong, and fails for the fault that it is there for."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="needs torch: nox -s test_packages")

from scripts.gpu_gate import checks_render_gradients
from tests import gate_stand_in

CHECKS = {check.name: check.run for check in checks_render_gradients.CHECKS}
FAULTS = [
    ("gradients-rasterize", "gradient-rasterize"),
    ("gradients-rasterize", "gradient-z"),
    ("gradients-rasterize", "grad-db-ignored"),
    *(("gradients-interpolate", f"gradient-{name}") for name in ("attributes", "barycentrics", "slopes")),
    *(("gradients-texture", f"gradient-{name}") for name in ("texture", "uv", "uv_da", "bias", "mip")),
    *(("gradients-antialias", f"gradient-{name}") for name in ("color", "silhouettes")),
    ("gradients-antialias", "no-boost"),
    *(("gradients-large-triangles", f"race-{name}") for name in ("attributes", "barycentrics", "texture", "uv")),
    ("gradients-large-triangles", "race-silhouettes"),
    ("gradients-on-the-device", "gradient-rasterize"),
    ("gradients-on-the-device", "race-barycentrics"),
]


@pytest.mark.parametrize("name", CHECKS)
def test_passes_where_nothing_is_wrong(name: str) -> None:
    outcome = CHECKS[name](gate_stand_in.bench())
    assert outcome.state == "passed", outcome.detail


@pytest.mark.parametrize("name", CHECKS)
def test_allows_what_float32_makes_of_it(name: str) -> None:
    outcome = CHECKS[name](gate_stand_in.bench(gate_stand_in.ROUNDED))
    assert outcome.state == "passed", outcome.detail


@pytest.mark.parametrize(("name", "fault"), FAULTS)
def test_fails_for_its_fault(name: str, fault: str) -> None:
    outcome = CHECKS[name](gate_stand_in.bench(fault))
    assert outcome.state == "failed", outcome
    assert outcome.detail


def test_every_check_has_a_fault() -> None:
    assert {name for name, _ in FAULTS} == set(CHECKS)
