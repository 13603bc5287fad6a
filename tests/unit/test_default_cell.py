"""The cell that a plain `nox -s build` makes on this machine."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from scripts.build import default_cell
from scripts.errors import BuildError, UsageError
from scripts.matrix import matrix
from scripts.model import Release, Toolkit
from scripts.source import upstream
from scripts.support import environments
from scripts.toolchain import providers

MATRIX = matrix.load()
Machine = Callable[..., None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Return a function that replaces this machine: its Python, its system, and what it can fetch."""

    def replace(
        python: tuple[int, int] = (3, 12),
        platform: str = "linux_x86_64",
        releases: tuple[str, ...] = ("0.4.0", "0.3.3.1"),
        toolkits: tuple[str, ...] = ("cu132", "cu130"),
    ) -> None:
        def source(release: Release) -> str | None:
            return None if release.version in releases else "the repository does not answer"

        def toolkit_problem(toolkit: Toolkit) -> str | None:
            return None if toolkit.tag in toolkits else "unlocked"

        monkeypatch.setattr(default_cell, "_python_line", lambda: "{}.{}".format(*python))
        monkeypatch.setattr(default_cell, "host_platform", lambda: platform)
        monkeypatch.setattr(upstream, "availability", source)
        monkeypatch.setattr(providers, "availability", toolkit_problem)

    return replace


def test_chooses_the_torch_of_pip_and_the_newest_release(machine: Machine) -> None:
    machine()
    assert default_cell.host_cell(MATRIX, None).id == "0.4.0-cp312-cu132-torch2.15-linux_x86_64"


def test_chooses_the_newest_release_that_can_be_fetched(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine(releases=("0.3.3.1",))
    assert default_cell.host_cell(MATRIX, None).id == "0.3.3.1-cp312-cu132-torch2.15-linux_x86_64"
    assert "not 0.4.0: the repository does not answer" in capsys.readouterr().err


def test_keeps_a_named_release(machine: Machine) -> None:
    machine(releases=())
    assert default_cell.host_cell(MATRIX, "0.3.5").release.version == "0.3.5"


def test_chooses_the_next_torch_if_the_toolkit_is_missing(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine(toolkits=("cu130",))
    assert default_cell.host_cell(MATRIX, None).id == "0.4.0-cp312-cu130-torch2.14-linux_x86_64"
    assert "not CUDA 13.2: unlocked" in capsys.readouterr().err


def test_chooses_the_newest_torch_for_an_older_python(machine: Machine) -> None:
    machine(python=(3, 10))
    assert default_cell.host_cell(MATRIX, None).torch.version == "2.14.1"


def test_chooses_the_newest_torch_on_windows(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyPI's torch for Windows has no CUDA, so PyTorch's own channels are candidates."""
    machine(platform="win_amd64")
    monkeypatch.setattr(environments, "torch_lock_name", lambda cell: "pyproject.toml")
    assert default_cell.host_cell(MATRIX, None).id == "0.4.0-cp312-cu130-torch2.13-win_amd64"


def test_reports_every_reason(machine: Machine) -> None:
    machine(releases=())
    with pytest.raises(BuildError, match=r"0\.4\.0: the repository does not answer; .*0\.3\.3\.1: the repository"):
        default_cell.host_cell(MATRIX, None)


def test_refuses_a_python_that_the_matrix_lacks(machine: Machine) -> None:
    machine(python=(3, 8))
    with pytest.raises(UsageError, match=r"no cell for CPython 3\.8 on linux_x86_64"):
        default_cell.host_cell(MATRIX, None)
