"""What several integration tests start from."""

from __future__ import annotations

import pytest

from scripts import build, compilers, matrix, upstream
from scripts.errors import PipelineError
from scripts.model import Cell


@pytest.fixture(scope="session")
def host_cell() -> Cell:
    """The cell of this host that can be built from the package index alone; skips where it cannot."""
    cell = build.host_cell(matrix.load(), "0.3.3.1")
    reason = upstream.availability(cell.release)
    if reason:
        pytest.skip(f"0.3.3.1 cannot be had: {reason}; fetch it once with `python -m scripts.upstream 0.3.3.1`")
    try:
        compilers.check_host(cell.toolkit, needs_gl=True)
    except PipelineError as error:
        pytest.skip(f"{error}; {error.mend}")
    return cell
