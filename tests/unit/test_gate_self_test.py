"""The checks of the reference pass, and fail if the reference is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scripts.gpu_gate import checks_reference, reference
from scripts.gpu_gate.bench import Bench

CHECKS = {check.name: check for check in checks_reference.CHECKS}
BENCH = Bench(None, None, "cpu", lambda: None)


@pytest.mark.parametrize("name", CHECKS)
def test_passes_without_torch_or_gpu(name: str) -> None:
    outcome = CHECKS[name].run(BENCH)
    assert outcome.state == "passed", outcome.detail
    assert not CHECKS[name].needs_gpu


@pytest.mark.parametrize(
    ("name", "function", "change"),
    [
        ("reference-areas", "rasterize", lambda out: (np.roll(out[0], 1, axis=2), out[1])),
        ("reference-areas", "rasterize", lambda out: (out[0], out[1] * 2)),
        ("reference-linear", "interpolate", lambda out: (out[0] + 1e-8, out[1])),
        ("reference-linear", "interpolate", lambda out: (out[0], out[1][..., [1, 0, 2, 3]])),
        ("reference-ramp", "texture", lambda out: out + 1e-8),
        ("reference-ramp", "construct_mip", lambda out: [level[..., :1, :] for level in out]),
    ],
)
def test_fails_if_the_reference_is_wrong(
    monkeypatch: pytest.MonkeyPatch, name: str, function: str, change: Any
) -> None:
    original = getattr(reference, function)
    monkeypatch.setattr(reference, function, lambda *args, **kwargs: change(original(*args, **kwargs)))
    assert CHECKS[name].run(BENCH).state == "failed"
