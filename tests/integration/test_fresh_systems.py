"""Run the README's first command on new Debian systems as an ordinary user, and compare the wheels."""

from __future__ import annotations

import re
import shutil
import zipfile
from pathlib import Path

import pytest

from scripts.model import ROOT
from scripts.support.process import call
from scripts.wheel import elf
from tests.integration import chroot

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.skipif(chroot.unavailable() is not None, reason=str(chroot.unavailable())),
]

PLUGIN = "nvdiffrast/torch/nvdiffrast_plugin."
# Debian 12 has g++ 12 and Python 3.11, Debian 13 has g++ 14 and Python 3.13.
SUITES = ("bookworm", "trixie")


def _clone(system: chroot.System) -> None:
    """Clone the committed state of this repository into the user's home."""
    call(["git", "clone", "--quiet", ROOT, system.home / "repository"], quiet=True)
    call(["chroot", system.root, "chown", "-R", f"{chroot.USER}:{chroot.USER}", f"/home/{chroot.USER}"], quiet=True)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the wheels that the README's first command builds, by suite."""
    made = {}
    for suite in SUITES:
        with chroot.fresh(suite) as system:
            _clone(system)
            output = system.run("cd repository && pipx run nox -s build -- --arch 9.0")
            assert re.search(r"^0\.\S+ +passed", output, re.MULTILINE), output[-2000:]
            (wheel,) = (system.home / "repository" / "dist").glob("*.whl")
            made[suite] = Path(shutil.copy(wheel, tmp_path_factory.mktemp(suite)))
    return made


def _plugin(wheel: Path, folder: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.startswith(PLUGIN) and name.endswith(".so"))
        return Path(archive.extract(name, folder))


def test_every_system_builds_a_wheel_with_the_same_platform_tag(wheels: dict[str, Path]) -> None:
    assert {suite: path.name.rpartition("-")[2] for suite, path in wheels.items()} == dict.fromkeys(
        SUITES, "manylinux_2_28_x86_64.whl"
    )


def test_kernels_do_not_depend_on_the_host_compiler(wheels: dict[str, Path], tmp_path: Path) -> None:
    kernels = [elf.read(_plugin(wheel, tmp_path / suite)).fatbin for suite, wheel in wheels.items()]
    assert kernels[0]
    assert kernels[0] == kernels[1]
