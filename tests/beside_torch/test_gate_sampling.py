"""Every check of what pixels get passes where nothing is wrong, and fails for the fault that it is there for."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="needs torch: nox -s test_packages")

from scripts.gpu_gate import checks_render_sampling
from scripts.gpu_gate.reference import BOUNDARY_MODES, FILTER_MODES
from tests import gate_stand_in

CHECKS = {check.name: check.run for check in checks_render_sampling.CHECKS}
FAULTS = [
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
