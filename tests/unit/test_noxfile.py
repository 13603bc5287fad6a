"""The noxfile: shared environments and exit statuses, tested with the real nox and empty stages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from nox.command import CommandFailed

from scripts.model import ROOT
from tests.workflows import Recorder, sessions

# Sessions that do not run a module of scripts/ with the session's arguments.
OTHERS = {"benchmark", "benchmark_packages", "image", "lint", "test_packages", "tests"}
STAGES = sorted(name for name in set(sessions()) - OTHERS if not name.startswith("env-"))
# Uses the noxfile of this repository with empty requirement files, which need no network.
STAND_IN = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
import noxfile
noxfile.REQUIREMENTS = Path("requirements")
"""


class Project:
    """A folder with the sessions of this repository, and stages that print their interpreter and exit with a status."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requirements = folder / "requirements"
        for name in ("scripts", "requirements"):
            (folder / name).mkdir()
        (folder / "noxfile.py").write_text(STAND_IN)
        for purpose in ("pipeline", "advisories"):
            (self.requirements / f"{purpose}.txt").write_text("# nothing\n")

    def nox(self, session: str, stage: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        """Run one session whose stage ends with ``status``."""
        code = f"import sys; print('stage in', sys.prefix); sys.exit({status})\n"
        package = self.folder.joinpath("scripts", *stage.split(".")[:-1])
        package.mkdir(exist_ok=True)
        (package / f"{stage.rpartition('.')[2]}.py").write_text(code)
        command = [sys.executable, "-m", "nox", "--session", session]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("NOX")}
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)

    @property
    def environments(self) -> list[str]:
        """The names of the virtual environments that nox made."""
        return sorted(path.parent.name for path in self.folder.glob(".nox/*/pyvenv.cfg"))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("project"))


@pytest.mark.parametrize(
    ("session", "stage", "status"),
    [
        ("build", "build.build", 14),
        ("audit", "audit.audit", 16),
        ("verify", "build.verify", 21),
        ("smoke", "audit.smoke", 3),
    ],
)
def test_nox_exits_with_the_status_of_the_stage(project: Project, session: str, stage: str, status: int) -> None:
    assert project.nox(session, stage, status).returncode == status
    assert project.environments == ["env-pipeline"], "one environment for all of them"


def test_nox_exits_with_the_status_of_audit_locks(project: Project) -> None:
    assert project.nox("audit_locks", "locks.advisories", 22).returncode == 22


def test_nox_exits_with_zero_if_the_stage_does(project: Project) -> None:
    done = project.nox("plan", "build.plan")
    assert done.returncode == 0, done.stderr
    assert f"stage in {project.folder / '.nox' / 'env-pipeline'}" in done.stdout


def test_an_environment_is_created_again_if_its_lock_changes(tmp_path: Path) -> None:
    project = Project(tmp_path)
    assert project.nox("plan", "build.plan").returncode == 0
    stray = tmp_path / ".nox" / "env-pipeline" / "stray"
    stray.touch()
    assert project.nox("plan", "build.plan").returncode == 0
    assert stray.exists(), "with the same lock the environment is used again"
    (project.requirements / "pipeline.txt").write_text("# nothing, of a later date\n")
    assert project.nox("plan", "build.plan").returncode == 0
    assert not stray.exists(), "with another lock nothing of the old environment is left"


def test_an_incomplete_environment_is_not_used(tmp_path: Path) -> None:
    project = Project(tmp_path)
    lock = project.requirements / "pipeline.txt"
    lock.write_text("nothing-that-exists==1 --hash=sha256:" + 64 * "0" + "\n")
    assert project.nox("plan", "build.plan").returncode == 1
    assert "stage in" not in project.nox("plan", "build.plan").stdout
    lock.write_text("# nothing\n")
    assert project.nox("plan", "build.plan").returncode == 0


class _Failing(Recorder):
    """A session whose command exits with status 21."""

    def run(self, *command: str, **_: object) -> str:
        super().run(*command)
        raise CommandFailed("Returned code 21")


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_session_passes_the_exit_status_on(name: str) -> None:
    with pytest.raises(SystemExit) as caught:
        sessions()[name].func(_Failing([]))
    assert caught.value.code == 21


def test_sessions_with_the_same_lock_share_an_environment() -> None:
    installed: dict[str, str] = {}
    for name, session in sessions().items():
        recorder = Recorder([])
        session.func(recorder)
        for lock in recorder.installed:
            assert lock not in installed, f"{name} and {installed[lock]} install {lock}"
            installed[lock] = name
    assert installed == {
        "advisories.txt": "audit_locks",
        "lint.txt": "lint",
        "packages.txt": "env-packages",
        "pipeline.txt": "env-pipeline",
        "tests.txt": "env-tests",
    }
