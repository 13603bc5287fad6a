"""Fixtures that several integration tests use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from scripts.build import default_cell
from scripts.errors import PipelineError
from scripts.matrix import matrix
from scripts.model import Cell
from scripts.source import upstream
from scripts.support.files import in_use
from scripts.toolchain import compilers
from tests import surroundings


@pytest.fixture(scope="package", autouse=True)
def machine(given_environment: Mapping[str, str], pytestconfig: pytest.Config) -> Iterator[None]:
    """Give the tests access to the machine's package index and toolchains, and one folder for all downloads.

    NVDIFFRAST_WHEELS_CACHE sets the folder before pytest starts. By default, it is a folder in pytest's cache.
    """
    named = given_environment.get(surroundings.CACHE_VARIABLE)
    assert pytestconfig.cache is not None
    downloads = Path(named).expanduser() if named else pytestconfig.cache.mkdir("nvdiffrast-wheels")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in surroundings.of_integration_tests(given_environment, downloads.absolute()).items():
            if value is None:
                patch.delenv(name, raising=False)
            else:
                patch.setenv(name, value)
        with in_use():
            yield


@pytest.fixture(scope="package")
def host_cell(machine: None) -> Cell:
    """Return the cell that this host can build with only a package index; skip the test if the host cannot."""
    cell = default_cell.host_cell(matrix.load(), "0.3.3.1")
    reason = upstream.availability(cell.release)
    if reason:
        pytest.skip(f"0.3.3.1 is not available: {reason}; fetch it once: nox -s fetch -- 0.3.3.1")
    try:
        compilers.check_host(cell.toolkit, needs_gl=True)
    except PipelineError as error:
        pytest.skip(f"{error}; {error.hint}")
    return cell
