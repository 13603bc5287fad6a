"""Replace the environment of the tests before the first of them is imported; see tests/surroundings.py."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests import surroundings

_GIVEN = pytest.StashKey[dict[str, str]]()
_FOLDER = pytest.StashKey[Path]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Replace the environment of this process and its child processes."""
    folder = Path(tempfile.mkdtemp(prefix="nvdiffrast-tests-"))
    (folder / "home").mkdir()
    # A worker process of pytest-xdist inherits a replaced environment; it gets the original from the main process.
    given = getattr(config, "workerinput", {}).get("given", dict(os.environ))
    config.stash[_GIVEN], config.stash[_FOLDER] = given, folder
    _set(surroundings.of_unit_tests(os.environ, folder))


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Restore the environment and delete the folder of the tests."""
    if _GIVEN in config.stash:
        _set(config.stash[_GIVEN])
        shutil.rmtree(config.stash[_FOLDER], ignore_errors=True)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Pass the environment that pytest was started with to a worker process of pytest-xdist."""
    node.workerinput["given"] = node.config.stash[_GIVEN]


@pytest.fixture(scope="session")
def given_environment(pytestconfig: pytest.Config) -> dict[str, str]:
    """Return the environment that pytest was started with."""
    return pytestconfig.stash[_GIVEN]


def _set(variables: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(variables)
