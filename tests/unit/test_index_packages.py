"""Wheels without compiled code in an index: every channel lists them, and the channel cpu lists only them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from pypi_simple import ProjectPage

from scripts.errors import CatalogError
from scripts.index import catalog as catalogs
from scripts.index import site_files, writer
from scripts.index.catalog import Catalog
from tests.index_factory import PAGE, catalog, entry, pure

PACKAGES = (
    pure("custom-rasterizer", requires=["torch>=2.1", "torch-rasterizer>=0.1.0"]),
    pure(),
    replace(pure(version="0.2.0"), yanked="wrong pixels"),
)
BOTH = replace(catalog([entry(), entry(cuda="cu118", torch="2.7")]), packages=PACKAGES)
PURE = Catalog(packages=PACKAGES)
CHANNELS = {"cpu", "cu130", "cu130-torch2.11", "cu118", "cu118-torch2.7"}


def generation(folder: Path, of: Catalog) -> Path:
    writer.generate(of, folder, page=PAGE)
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    paths = [*(folder / "whl").rglob("*"), folder / "catalog.json"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths if path.is_file()}


def projects(folder: Path, channel: str) -> list[str]:
    listed = json.loads((folder / "whl" / channel / "index.json").read_text())["projects"]
    return [project["name"] for project in listed]


def test_every_channel_lists_the_packages_and_cpu_lists_only_them(tmp_path: Path) -> None:
    made = generation(tmp_path / "new", BOTH)
    assert {path.name for path in (made / "whl").iterdir() if path.is_dir()} == CHANNELS
    for channel in CHANNELS:
        compiled = [] if channel == "cpu" else ["nvdiffrast"]
        wanted = [*compiled, "custom-rasterizer", "torch-rasterizer"]
        assert projects(made, channel) == wanted
        html = (made / "whl" / channel / "index.html").read_text()
        assert [name for name in wanted if f'<a href="{name}/">' in html] == wanted
        assert sorted(path.name for path in (made / "whl" / channel).iterdir() if path.is_dir()) == sorted(wanted)


def test_html_and_json_give_the_packages_in_an_independent_reader(tmp_path: Path) -> None:
    made = generation(tmp_path / "new", BOTH)
    folder = made / "whl" / "cpu" / "torch-rasterizer"
    address = "https://example.invalid/whl/cpu/torch-rasterizer/"
    as_html = ProjectPage.from_html("torch-rasterizer", (folder / "index.html").read_text(), base_url=address)
    as_json = ProjectPage.from_json_data(json.loads((folder / "index.json").read_text()), base_url=address)
    for page in (as_html, as_json):
        first, second = page.packages
        assert first.url == f"https://example.invalid/files/{PACKAGES[1].sha256}/{PACKAGES[1].name}"
        assert first.digests == {"sha256": PACKAGES[1].sha256}
        assert first.metadata_digests == {"sha256": PACKAGES[1].metadata_sha256}
        assert (first.requires_python, first.is_yanked) == (">=3.10", False)
        assert (second.is_yanked, second.yanked_reason) == (True, "wrong pixels")
    assert as_json.versions == ["0.1.0", "0.2.0"]


@pytest.mark.parametrize("of", [BOTH, PURE, catalog([entry()]), Catalog()], ids=["both", "pure", "compiled", "none"])
def test_written_catalog_is_read_unchanged(of: Catalog, tmp_path: Path) -> None:
    made = generation(tmp_path / "new", of)
    assert catalogs.read(made) == of
    assert (made / "catalog.json").read_text() == catalogs.dump(of)
    assert site_files.compare(of, made).none


def test_reads_a_catalog_without_the_field_packages() -> None:
    """Old stores have such catalogs."""
    text = catalogs.dump(catalog([entry()]))
    assert "packages" not in text
    assert catalogs.parse(text, "here") == catalog([entry()])


def test_compare_reports_missing_packages(tmp_path: Path) -> None:
    made = generation(tmp_path / "new", BOTH)
    page = made / "whl" / "cu130" / "torch-rasterizer" / "index.html"
    page.write_text("<!DOCTYPE html>")
    assert site_files.compare(BOTH, made).missing == tuple(f"cu130/{one.name}" for one in PACKAGES[1:])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "torch_rasterizer-0.1.0-cp311-cp311-linux_x86_64.whl"}, "must have the tag py3-none-any"),
        ({"name": "torch_rasterizer-0.1.0+cu130-py3-none-any.whl"}, "without a local part"),
        ({"name": "nvdiffrast-0.4.0-py3-none-any.whl"}, "nvdiffrast has compiled code"),
        ({"name": "../torch_rasterizer-0.1.0-py3-none-any.whl"}, "not a portable file name"),
        ({"requires": ("numpy; echo",)}, "a requirement is"),
        ({"requires": ("numpy @ https://example.invalid/numpy.whl",)}, "a requirement is"),
        ({"sha256": "../.."}, "sha256 is"),
        ({"yanked": "a\nb"}, "not one line of text"),
    ],
)
def test_refuses_an_unsafe_package(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    wrong = replace(pure(), **changes)  # type: ignore[arg-type]
    with pytest.raises(CatalogError, match=message):
        generation(tmp_path / "new", Catalog(packages=(wrong,)))
    assert not (tmp_path / "new").exists()
