"""Install the built packages with pip and uv, with stand-ins and with the real torch."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scripts.build import pure_packages
from scripts.errors import PublishError
from scripts.index import ledger
from scripts.publish import prove, staging, yanking
from scripts.support.sandbox import TOOLS
from tests.publishing import BY, pure_wheel, wheel

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    dist = tmp_path_factory.mktemp("dist")
    return [pure_packages.build(package, dist) for package in pure_packages.known()]


@pytest.fixture(scope="module")
def proofs(built: list[Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[prove.Proof, ...]:
    """Prove a store that also has a wheel for CUDA 13.0; stand-ins replace numpy and torch."""
    folder = tmp_path_factory.mktemp("store")
    staging.stage(folder / "store", [*built, wheel(folder / "dist", "2.14")], by=BY)
    made = prove.prove(folder / "store", by=BY)
    assert [event.what for event in ledger.read(folder / "store")][-1] == "proved"
    return made


def test_installs_every_package_from_every_channel(proofs: tuple[prove.Proof, ...]) -> None:
    passed = {(made.tool, made.subject.rpartition(" from ")[::2]) for made in proofs if made.outcome == "passed"}
    names = {package.wheel for package in pure_packages.known()}
    wanted = {(tool, (name, channel)) for tool in TOOLS for name in names for channel in ("cpu", "cu130")}
    assert wanted <= passed
    assert {made.outcome for made in proofs} == {"passed"}


def test_installs_required_packages_from_the_same_index(proofs: tuple[prove.Proof, ...]) -> None:
    details = {made.detail for made in proofs if made.subject.startswith("custom_rasterizer-")}
    named = "custom-rasterizer 0.1.0, torch-rasterizer 0.1.0, beside stand-ins for numpy 2.0 and torch 2.14.1"
    assert details == {f"{named}+{build} (untouched)" for build in ("cpu", "cu130")}


def test_refuses_to_prove_a_package_for_another_torch(tmp_path: Path) -> None:
    dist = tmp_path / "dist"
    staging.stage(tmp_path / "store", [pure_wheel(dist, requires=["torch>=3"])], by=BY)
    with pytest.raises(PublishError, match="torch"):
        prove.prove(tmp_path / "store", by=BY)


def test_ignores_a_yanked_package(built: list[Path], tmp_path: Path) -> None:
    staging.stage(tmp_path, built, by=BY)
    [torch] = [path for path in built if path.name.startswith("torch_rasterizer-")]
    newer = pure_wheel(tmp_path / "dist", version="0.2.0", requires=["torch>=2.1", "numpy"])
    staging.stage(tmp_path, [newer], by=BY)
    yanking.yank(tmp_path, newer.name, reason="wrong pixels", by=BY)
    proofs = prove.prove(tmp_path, by=BY)
    assert {made.outcome for made in proofs} == {"passed"}
    assert newer.name not in {made.subject.partition(" ")[0] for made in proofs}
    assert torch.name in {made.subject.partition(" ")[0] for made in proofs}


@pytest.mark.skipif(
    "NVDIFFRAST_TEST_REAL_TORCH" not in os.environ,
    reason="downloads torch, about 2.5 GB unless uv has it: NVDIFFRAST_TEST_REAL_TORCH=1 nox -s tests",
)
def test_imports_packages_with_the_real_torch(built: list[Path], tmp_path: Path) -> None:
    staging.stage(tmp_path, built, by=BY)
    proofs = prove.prove(tmp_path, real=True, by=BY)
    imported = {(made.tool, made.subject) for made in proofs if (made.check, made.outcome) == ("import", "passed")}
    assert imported == {(tool, path.name) for tool in TOOLS for path in built}
