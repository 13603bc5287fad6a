"""Every check of rasterize() passes without a fault, and fails with the fault that it is meant to find."""

from __future__ import annotations

import ctypes.util
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs torch: nox -s test_packages")

from scripts.gpu_gate import checks_render_raster
from tests import gate_stand_in

CHECKS = {check.name: check.run for check in checks_render_raster.CHECKS}
# The release to test a check with, if it is not 0.4.0.
RELEASES = {"seeds-triangle-gl": "0.3.4"}
FAULTS = [
    ("seeds-triangle", "blank"),
    ("seeds-triangle", "upside-down"),
    ("seeds-triangle-gl", "gl-blank"),
    ("rasterize", "one-pixel-off"),
    ("rasterize", "swapped-barycentrics"),
    ("rasterize", "transposed-derivatives"),
    ("rasterize", "no-perspective"),
    ("rasterize", "farthest-first"),
    ("rasterize", "one-winding"),
    ("rasterize", "sum-above-1"),
    ("clipping", "not-clipped"),
    ("shared-edges", "gaps-at-edges"),
    ("odd-sizes", "padded-rows"),
    ("one-pixel", "no-single-pixel"),
    ("range-mode", "ids-of-range"),
    ("large-batch", "at-most-256-images"),
    ("wider-than-2048", "stride-by-width"),
    ("higher-than-2048", "stride-by-height"),
    ("depth-peeling", "peels-once"),
]


@pytest.fixture(autouse=True)
def egl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: f"lib{name}.so.1")


def run(name: str, fault: str = "", release: str = "") -> Any:
    return CHECKS[name](gate_stand_in.bench(fault, release or RELEASES.get(name, "0.4.0")))


@pytest.mark.parametrize("name", CHECKS)
def test_passes_without_a_fault(name: str) -> None:
    outcome = run(name)
    assert outcome.state == "passed", outcome.detail


@pytest.mark.parametrize("name", CHECKS)
def test_tolerates_float32_rounding(name: str) -> None:
    outcome = run(name, gate_stand_in.ROUNDED)
    assert outcome.state == "passed", outcome.detail


@pytest.mark.parametrize(("name", "fault"), FAULTS)
def test_fails_with_its_fault(name: str, fault: str) -> None:
    outcome = run(name, fault)
    assert outcome.state == "failed", outcome
    assert outcome.detail


def test_every_check_has_a_fault() -> None:
    assert {name for name, _ in FAULTS} == set(CHECKS)


@pytest.mark.parametrize(
    ("name", "release", "fault", "known_fault"),
    [
        ("higher-than-2048", "0.3.3", "stride-by-height", "stride-above-2048"),
        ("higher-than-2048", "0.3.2", "", "at-most-2048"),
        ("wider-than-2048", "0.3.2", "", "at-most-2048"),
        ("odd-sizes", "0.3.1", "", "multiples-of-8"),
        ("one-pixel", "0.3.1", "", "multiples-of-8"),
        ("rasterize", "0.3.4", "", "sum-above-1"),
    ],
)
def test_reports_a_fault_of_the_release_as_known(name: str, release: str, fault: str, known_fault: str) -> None:
    outcome = run(name, fault, release)
    assert outcome.state == "known"
    assert outcome.detail.startswith(known_fault)


def test_fails_with_a_fault_that_the_release_is_not_known_for() -> None:
    assert run("wider-than-2048", "stride-by-width", "0.3.3").state == "failed"


def test_opengl_is_untested_without_egl_or_in_release_0_4(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no OpenGL" in run("seeds-triangle-gl", release="0.4.0").detail
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    outcome = run("seeds-triangle-gl")
    assert (outcome.state, outcome.detail) == ("untested", "this machine has no EGL library")
