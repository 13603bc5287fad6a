"""Every check of the process passes where nothing is wrong, and fails for the fault that it is there for."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="needs torch: nox -s test_packages")

from scripts.gpu_gate import checks_render, checks_render_process
from tests import gate_stand_in

CHECKS = {check.name: check.run for check in checks_render_process.CHECKS}
FAULTS = [
    ("contexts", "outputs-shared"),
    ("contexts", "one-pixel-off"),
    ("streams", "stream-ignored"),
    ("threads", "threads"),
    ("errors", "swallows-errors"),
    ("errors", "broken-by-errors"),
    ("memory", "leaks-tensors"),
    ("memory", "leaks-buffers"),
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


def test_no_two_checks_share_a_name() -> None:
    names = [check.name for check in checks_render.CHECKS]
    assert len(names) == len(set(names))
