"""Wheels without compiled code: staged and promoted without cell, audit or GPU; other projects are refused."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.errors import AuditError, PublishError
from scripts.index import ledger, package_record
from scripts.index.export import export
from scripts.index.store import Store
from scripts.publish import promotion, staging, stand_ins, status, store_upload, upload, yanking
from scripts.support.files import file_sha256
from tests.publishing import BY, proved, pure_wheel, tree, upload_server, wheel


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def pure(tmp_path: Path) -> list[Path]:
    dist = tmp_path / "dist"
    needs = ["torch>=2.1", "torch-rasterizer>=0.1.0", "wgpu>=0.32; extra == 'webgpu'"]
    return [pure_wheel(dist, requires=["torch>=2.1", "numpy"]), pure_wheel(dist, "custom_rasterizer", requires=needs)]


def test_stage_and_promote(store: Path, pure: list[Path], tmp_path: Path) -> None:
    done = staging.stage(store, [*pure, wheel(tmp_path / "dist")], by=BY)
    assert len(done.added) == 3
    catalog = Store(store).catalog("staged")
    custom, torch = catalog.packages
    assert (custom.name, custom.sha256, custom.size) == (
        pure[1].name,
        file_sha256(pure[1]),
        pure[1].stat().st_size,
    )
    assert (custom.project, custom.version, custom.requires_python) == ("custom-rasterizer", "0.1.0", ">=3.9")
    assert custom.requires == ("torch-rasterizer>=0.1.0", "torch>=2.1")
    assert torch.requires == ("numpy", "torch>=2.1")
    assert package_record.path(torch.sha256, store).is_file()
    proved(store)
    with pytest.raises(PublishError, match="no GPU has run nvdiffrast-") as refused:
        promotion.promote(store, by=BY)
    assert "rasterizer" not in str(refused.value)
    promoted = promotion.promote(store, waive_gpu="none here", by=BY)
    assert (len(promoted.new), promoted.wheels, len(promoted.waived)) == (3, 3, 1)
    assert Store(store).catalog("current").packages == (custom, torch)
    assert status.read(store).current == 3


def test_packages_need_no_waiver(store: Path, pure: list[Path], tmp_path: Path) -> None:
    staging.stage(store, pure, by=BY)
    before = tree(store)
    assert staging.stage(store, pure, by=BY).added == ()
    assert tree(store) == before
    proved(store)
    assert len(promotion.promote(store, by=BY).new) == 2
    assert [path.name for path in (store / "current" / "whl").iterdir() if path.is_dir()] == ["cpu"]
    export(store / "current", tmp_path / "site")
    [listed] = (tmp_path / "site" / "files").glob(f"*/{pure[0].name}")
    assert listed.read_bytes() == pure[0].read_bytes()
    assert (tmp_path / "site" / "records" / f"{file_sha256(pure[0])}.package.json").is_file()


def test_yank(store: Path, pure: list[Path]) -> None:
    staging.stage(store, pure, by=BY)
    assert yanking.yank(store, pure[0].name, reason="wrong pixels", by=BY)
    assert status.read(store).yanked == (pure[0].name,)
    page = store / "staged" / "whl" / "cpu" / "torch-rasterizer" / "index.html"
    assert 'data-yanked="wrong pixels"' in page.read_text()
    assert yanking.unyank(store, pure[0].name, by=BY)
    assert "data-yanked" not in page.read_text()


def test_refuses_other_bytes_under_a_known_name(store: Path, pure: list[Path], tmp_path: Path) -> None:
    staging.stage(store, pure, by=BY)
    with pytest.raises(PublishError, match="is taken"):
        staging.stage(store, [pure_wheel(tmp_path / "again", body="other = True\n")], by=BY)


def test_a_missing_record_stops_a_promotion(store: Path, pure: list[Path]) -> None:
    staging.stage(store, pure, by=BY)
    proved(store)
    package_record.path(file_sha256(pure[0]), store).unlink()
    with pytest.raises(AuditError, match="has no record of its builds"):
        promotion.promote(store, by=BY)
    assert not (store / "current").exists()


def test_uploads_each_project_to_its_page(store: Path, pure: list[Path]) -> None:
    staging.stage(store, pure, by=BY)
    proved(store)
    promotion.promote(store, by=BY)
    with upload_server() as server:
        secrets = {"TWINE_USERNAME": "publisher", "TWINE_PASSWORD": server.password}
        to = upload.target(server.url, environment=secrets)
        assert set(store_upload.send_store(store, to, by=BY).uploaded) == {one.name for one in pure}
        assert set(server.files) == {one.name for one in pure}
        assert len(store_upload.send_store(store, to, by=BY).already) == 2
    assert len([event for event in ledger.read(store) if event.what == "uploaded"]) == 2


def test_stages_a_package_only_with_the_packages_that_it_requires(store: Path, pure: list[Path]) -> None:
    """Otherwise an installer could take a torch-rasterizer from another index."""
    with pytest.raises(PublishError, match="it needs torch-rasterizer, which the index does not have"):
        staging.stage(store, pure[1:], by=BY)
    assert not (store / "pool").exists()
    staging.stage(store, pure[:1], by=BY)
    assert staging.stage(store, pure[1:], by=BY).added == (pure[1].name,)


def _no_record(wheel: Path) -> Path:
    shutil.rmtree(wheel.parent / "records")
    return wheel


def _edited(member: str, old: str, new: str) -> Callable[[Path], Path]:
    """Change a text member, and update the record and RECORD to match."""

    def edit(path: Path) -> Path:
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name).decode() for name in archive.namelist()}
        [name] = [name for name in members if name.endswith(member)]
        assert old in members[name]
        members[name] = members[name].replace(old, new)
        record = next(name for name in members if name.endswith("RECORD"))
        members[record] = stand_ins._record({k: v for k, v in members.items() if k != record}) + f"{record},,\n"
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in members.items():
                archive.writestr(name, text)
        package_record.save(package_record.make(path, 2, {}), path.parent)
        return path

    return edit


def _with_library(path: Path) -> Path:
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("torch_rasterizer/core.so", b"\x7fELF")
    package_record.save(package_record.make(path, 2, {}), path.parent)
    return path


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (_no_record, "has no record of its builds"),
        (_with_library, r"torch_rasterizer/core\.so is compiled"),
        (_with_library, r"RECORD does not list .*core\.so"),
        (_edited("METADATA", "Name: torch_rasterizer", "Name: torch"), "METADATA says Name: torch"),
        (_edited("METADATA", "Version: 0.1.0", "Version: 0.2.0"), r"METADATA says Version: 0\.2\.0"),
        (_edited("METADATA", "Name:", "Summary: <script>\nName:"), "METADATA has markup in Summary"),
        (_edited("METADATA", "Name:", "Requires-Dist: wgpu @ https://h.invalid/w.whl\nName:"), "a requirement is"),
        (_edited("WHEEL", "py3-none-any", "py3-none-linux_x86_64"), "WHEEL states"),
        (_edited("WHEEL", "Purelib: true", "Purelib: false"), "Root-Is-Purelib"),
    ],
)
def test_refuses_invalid_wheels(wrong: Callable[[Path], Path], message: str, store: Path, tmp_path: Path) -> None:
    with pytest.raises(PublishError, match=message):
        staging.stage(store, [wrong(pure_wheel(tmp_path / "dist"))], by=BY)
    assert not (store / "staged").exists()


@pytest.mark.parametrize("name", ["nvdiffrast", "torch", "numpy"])
def test_refuses_other_projects(name: str, store: Path, tmp_path: Path) -> None:
    with pytest.raises(PublishError, match=f"a wheel of {name}; the projects without compiled code are custom"):
        staging.stage(store, [pure_wheel(tmp_path / "dist", name)], by=BY)
