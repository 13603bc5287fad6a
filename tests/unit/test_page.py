"""The page for people: its data, its escaping, its tables and the commands that it shows."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from scripts.index.catalog import Catalog
from scripts.index.install_commands import commands, package_commands
from scripts.index.page import page, page_data
from scripts.matrix import matrix as matrix_module
from scripts.matrix import torch_builds
from scripts.matrix.matrix import Matrix
from scripts.model import ROOT, Cell
from tests.catalogs import catalog, entry, many
from tests.index_factory import pure

HOSTILE = "</script><script>alert(1)</script><!-- & \"'"


@pytest.fixture(scope="module")
def matrix() -> Matrix:
    return matrix_module.load()


@pytest.fixture(scope="module")
def published(matrix: Matrix) -> Catalog:
    """Return a catalog with two thirds of the matrix: some wheels are waived, untested, partial or yanked."""

    def changes(cell: Cell) -> dict[str, Any]:
        if cell.platform.name == "win_amd64":
            return {"gpu": "waived", "waiver": f"no machine {HOSTILE}"}
        if cell.release.version == "0.3.4":
            return {"gpu": "untested"}
        if cell.release.version == "0.3.3":
            return {"partial": True}
        return {"yanked": f"wrong PTX {HOSTILE}"} if cell.release.version == "0.3.5" else {}

    return catalog([cell for i, cell in enumerate(matrix.cells) if i % 3], changes)


class Parsed(HTMLParser):
    """The tags, attributes, scripts and text of a page."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.scripts: list[str] = []
        self.text = ""
        self.in_script = False
        self.feed(content.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.in_script = tag == "script"
        if self.in_script:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.in_script = False

    def handle_data(self, data: str) -> None:
        if self.in_script:
            self.scripts[-1] += data
        else:
            self.text += data

    def values(self, tag: str, name: str) -> list[str]:
        return [value for found, attribute, value in self.attributes if (found, attribute) == (tag, name)]


def data_of(content: bytes) -> dict[str, Any]:
    found = Parsed(content).scripts[0]
    loaded: dict[str, Any] = json.loads(found)
    return loaded


@pytest.mark.parametrize("releases", [1, 5], ids=["many releases", "as in the matrix"])
def test_page_of_5000_wheels_has_at_most_300_kb(matrix: Matrix, releases: int) -> None:
    wanted = {release.version for release in matrix.releases[:releases]}
    whole = many([cell for cell in matrix.cells if cell.release.version in wanted], 5000)
    noted = [
        replace(one, gpu="waived", waiver=f"reason {i % 40}: no such machine is available", yanked="wrong" * 9)
        for i, one in enumerate(whole.entries)
    ]
    content = page.render(Catalog(tuple(noted)), matrix)
    assert len(content) <= 300_000
    assert len(data_of(content)["wheels"]) == 5000
    assert content.count(b"<tr>") == 1 + len({one.channels for one in noted})


def test_bytes_are_the_same_in_every_process(matrix: Matrix, published: Catalog) -> None:
    script = (
        "import hashlib; from scripts.matrix import matrix; from scripts.index.page import page;"
        "from tests.catalogs import catalog;"
        "loaded = matrix.load(); made = catalog(loaded.cells[::7]);"
        "print(hashlib.sha256(page.render(made, loaded)).hexdigest())"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", script],
            check=True,
            capture_output=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert seen == {hashlib.sha256(page.render(catalog(matrix.cells[::7]), matrix)).hexdigest().encode() + b"\n"}
    assert page.render(published, matrix) == page.render(published, matrix)


def test_reasons_and_dates_are_escaped(matrix: Matrix) -> None:
    cells = matrix.cells[:3]
    made = catalog(cells, lambda _: {"gpu": "waived", "waiver": HOSTILE, "yanked": HOSTILE})
    content = page.render(made, replace(matrix, table_date=HOSTILE))
    assert b"<script>alert" not in content
    parsed = Parsed(content)
    assert not set("<>&") & set(parsed.scripts[0])
    assert parsed.tags.count("script") == 2
    assert parsed.text.count(HOSTILE) == 2 * len(cells) + 1
    assert HOSTILE in data_of(content)["reasons"]


def test_page_loads_no_other_file(matrix: Matrix, published: Catalog) -> None:
    few = Catalog(published.entries[:20])
    for made in (published, few, Catalog()):
        content = page.render(made, matrix)
        parsed = Parsed(content)
        assert not {"img", "iframe", "object", "embed"} & set(parsed.tags)
        addresses = [value for _, name, value in parsed.attributes if name in {"href", "src", "action"}]
        assert all(value == "data:," or re.match(r"(files|records|whl)/|catalog\.json$", value) for value in addresses)
        assert parsed.values("script", "src") == []
        digest = base64.b64encode(hashlib.sha256(parsed.scripts[1].encode()).digest()).decode()
        policy = next(value for value in parsed.values("meta", "content") if value.startswith("default-src"))
        assert policy.startswith("default-src 'none';")
        assert f"script-src 'sha256-{digest}'" in policy


def test_data_rows_match_the_catalog(matrix: Matrix, published: Catalog) -> None:
    data = data_of(page.render(published, matrix))
    digests = base64.b64decode(data["details"]["sha256"])
    for row, (wheel, one) in enumerate(zip(data["wheels"], published.entries, strict=True)):
        variant, target, architectures, gpu, waiver, yanked, partial = wheel + [0] * (7 - len(wheel))
        version, release, cuda, torch = data["variants"][variant]
        python, system, end = data["targets"][target]
        chosen = [data["axes"][axis][index] for axis, index in enumerate((system, python, torch, cuda, release))]
        assert chosen == [one.platform, one.python, one.torch, one.cuda, one.release]
        assert f"nvdiffrast-{version}-{end}" == one.name
        assert data["architectures"][architectures] == [list(one.sass), list(one.ptx)]
        assert ("passed", "waived", "untested")[gpu] == one.gpu
        assert (data["reasons"][waiver - 1] if waiver else None) == one.waiver
        assert (data["reasons"][yanked - 1] if yanked else None) == one.yanked
        assert partial == one.partial
        assert digests[row * 32 : row * 32 + 32].hex() == one.sha256
        assert data["details"]["sizes"][row] == one.size


def test_script_gets_the_commands_of_every_wheel(matrix: Matrix, published: Catalog) -> None:
    given = data_of(page.render(published, matrix))["commands"]
    for one in published.entries:
        shown = commands("https://example.org/wheels", one)
        marks = {"BASE": "https://example.org/wheels", "CUDA": one.cuda, "TORCH": one.torch, "RELEASE": one.release}
        filled = {
            tool: re.sub(r"@(\w+)@", lambda found, marks=marks: marks[found[1]], text)  # type: ignore[misc]
            for tool, text in given.items()
        }
        assert filled == {"pip": "\n".join(shown.pip), "uv": "\n".join(shown.uv), "pyproject": shown.pyproject}


def test_every_cell_is_published_planned_or_excluded(matrix: Matrix, published: Catalog) -> None:
    data = data_of(page.render(published, matrix))

    def places(rows: list[list[int]]) -> set[tuple[int, ...]]:
        found = {(*data["variants"][row[0]][1:], *data["targets"][row[1]][:2]) for row in rows}
        assert len(found) == len(rows)
        return found

    wheels, planned, excluded = (places(data[kind]) for kind in ("wheels", "planned", "excluded"))
    assert len(wheels | planned) == len(wheels) + len(planned) == len(matrix.cells)
    assert not (wheels | planned) & excluded
    assert len(excluded) == sum(len(exclusion.cells) for exclusion in matrix.exclusions)
    for _, _, reason in data["excluded"]:
        assert data["reasons"][reason] in {exclusion.reason for exclusion in matrix.exclusions}


def test_unplanned_torch_builds_are_listed(matrix: Matrix) -> None:
    made = page_data.data(Catalog(), matrix, torch_builds.load())
    named = {
        (made["axes"][2][torch], made["axes"][3][cuda], made["axes"][1][made["targets"][target][0]])
        for torch, cuda, target in made["unplanned"]
    }
    assert ("2.6", "cu126", "3.12") in named
    assert ("2.14", "cu130", "3.12") not in named
    assert ("2.2", "cu130", "3.12") not in named


def test_script_gets_the_torch_commands_of_every_wheel(matrix: Matrix, published: Catalog) -> None:
    data = data_of(page.render(published, matrix))
    given = {
        (data["axes"][2][torch], data["axes"][3][cuda], data["axes"][0][system]): (pip, uv)
        for torch, cuda, system, pip, uv in data["torches"]
    }
    assert given.keys() == {(one.torch, one.cuda, one.platform) for one in published.entries}
    channel = "https://download.pytorch.org/whl"
    assert given["2.14", "cu130", "linux_x86_64"] == ("pip install torch==2.14.1", "uv pip install torch==2.14.1")
    assert given["2.8", "cu126", "linux_x86_64"] == (
        f"pip install torch==2.8.0 --index-url {channel}/cu126",
        f"uv pip install torch==2.8.0 --default-index {channel}/cu126",
    )
    assert given["2.13", "cu130", "win_amd64"][0] == f"pip install torch==2.13.0 --index-url {channel}/cu130"


def test_torch_commands_for_a_wheel_outside_the_matrix(matrix: Matrix) -> None:
    one = entry(matrix.select(["0.3.3.1-cp312-cu130-torch2.11-linux_x86_64"])[0])
    builds = torch_builds.load()
    gone = replace(matrix, cells=())
    line = "pip install torch==2.11.0"
    assert page_data.torch_commands_for(one, gone, builds).pip.startswith(line)
    # A torch line that is not in the table: any version of it from the channel, quoted because of the "*".
    shown = page_data.torch_commands_for(replace(one, torch="9.9"), gone, builds)
    assert shown.pip == 'pip install "torch==9.9.*" --index-url https://download.pytorch.org/whl/cu130'


def test_observations_of_torch_builds_have_a_date(matrix: Matrix) -> None:
    builds = torch_builds.load()
    observed = page_data.data(Catalog(), matrix, builds)["observed"]
    dates = dict(
        zip([option.value for option in page_data.axes(Catalog(), matrix).cuda], observed["cuda"], strict=True)
    )
    assert dates["cu130"] == builds.channels["cu130"].observed
    assert dates["cu118"] is None
    assert builds.channels["cu118"].declared
    assert observed["all"] == min(date for date in dates.values() if date)
    later = replace(builds, pypi_observed="2020-01-01")
    assert later.observed("cu130") == later.oldest == "2020-01-01"
    assert builds.observed("cu999") is None


def test_links_bill_of_materials_and_provenance_if_they_exist(matrix: Matrix) -> None:
    first, second = entry(matrix.cells[0]), entry(matrix.cells[1])
    made = Catalog((first, second))
    content = page.render(made, matrix, {second.sha256})
    for kind in ("cdx", "provenance"):
        assert f'href="records/{second.sha256}.{kind}.json"' in content.decode()
        assert f"records/{first.sha256}.{kind}.json" not in content.decode()
    assert data_of(content)["stated"] == "01"


def test_page_warns_about_what_installers_do_not_check(matrix: Matrix, published: Catalog) -> None:
    for made in (published, Catalog()):
        text = " ".join(Parsed(page.render(made, matrix)).text.split())
        assert "a wheel for CUDA 13.0 requires torch==2.14.*, and 2.14.1+cpu and 2.14.1+cu126 match as well" in text
        assert "python -m nvdiffrast.doctor names the torch that it needs" in text
        assert "with --extra-index-url. Do not add this index with that option" in text


def test_newest_first_sorts_versions_and_cuda_label_formats_tags() -> None:
    assert page_data.newest_first(["2.9", "2.10", "odd", "2.9"]) == ["2.10", "2.9", "odd"]
    assert [page_data.cuda_label(tag) for tag in ("cu130", "cu118", "odd")] == ["13.0", "11.8", "odd"]


def test_few_wheels_have_one_row_each(matrix: Matrix) -> None:
    first, second, third, fourth = matrix.cells[:4]
    changed: dict[Cell, dict[str, Any]] = {
        first: {"yanked": "wrong PTX"},
        second: {"gpu": "waived", "waiver": "no machine"},
        third: {"gpu": "untested"},
        fourth: {"partial": True},
    }
    made = catalog(changed, changed.__getitem__)
    content = page.render(made, matrix).decode()
    for one in made.entries:
        assert f'href="files/{one.sha256}/{one.name}"' in content
        assert f'href="records/{one.sha256}.audit.json"' in content
        assert (f"records/{one.sha256}.gpu.json" in content) == (one.gpu == "passed")
        assert (f"records/{one.sha256}.waiver.json" in content) == (one.gpu == "waived")
        assert content.count(one.sha256) >= 2
    assert "<b>Yanked:</b> wrong PTX" in content
    assert "<b>Not run on a GPU:</b> no machine" in content
    assert "<b>Untested:</b>" in content
    assert content.count("<b>Partial:</b>") == 1


def test_many_wheels_have_one_row_per_channel(matrix: Matrix) -> None:
    cells = [cell for cell in matrix.cells if cell.release.version == "0.3.3.1"]
    assert len(cells) > page.ROWS_UP_TO
    content = page.render(catalog(cells, lambda cell: {"yanked": "x"} if cell is cells[0] else {}), matrix).decode()
    assert 'href="whl/cu130-torch2.14/nvdiffrast/index.html"' in content
    assert content.count("1 yanked") == 1


def test_without_scripts_the_page_shows_the_newest_wheel_that_is_not_yanked(matrix: Matrix) -> None:
    yanked, kept = (cell for cell in matrix.cells if cell.id in _IDS)
    shown = _noscript(page.render(catalog([yanked, kept]), matrix))
    assert shown.index("pip install torch==2.14.1<") < shown.index("nvdiffrast==0.3.3.1")
    made = Catalog((entry(yanked, yanked="wrong"), entry(kept)))
    assert "nvdiffrast==0.3.3<" in _noscript(page.render(made, matrix))
    assert "Nothing can be installed" in _noscript(page.render(Catalog(), matrix))


_IDS = {"0.3.3.1-cp312-cu130-torch2.14-linux_x86_64", "0.3.3-cp312-cu130-torch2.14-linux_x86_64"}


def _noscript(content: bytes) -> str:
    return content.decode().split("<noscript>")[1].split("</noscript>")[0]


def test_page_of_an_empty_catalog(matrix: Matrix) -> None:
    assert b"No wheel is published here yet." in page.render(Catalog(), matrix)


def test_commands_use_only_this_index(matrix: Matrix) -> None:
    one = entry(matrix.select(["0.3.3.1-cp312-cu128-torch2.9-linux_x86_64"])[0])
    shown = commands("https://example.org/wheels/", one)
    assert shown.pip[-1] == "pip install --index-url https://example.org/wheels/whl/cu128/ nvdiffrast==0.3.3.1"
    assert shown.uv[-1] == "uv pip install --default-index https://example.org/wheels/whl/cu128/ nvdiffrast==0.3.3.1"
    assert "extra-index" not in repr(shown)
    project = tomllib.loads(shown.pyproject)
    assert project["project"]["dependencies"] == ["nvdiffrast==0.3.3.1", "torch==2.9.*"]
    (index,) = project["tool"]["uv"]["index"]
    assert index == {"name": "nvdiffrast-cu128", "url": "https://example.org/wheels/whl/cu128/", "explicit": True}
    assert project["tool"]["uv"]["sources"] == {"nvdiffrast": {"index": "nvdiffrast-cu128"}}


@pytest.mark.parametrize(("size", "text"), [(950, "0.9 kB"), (99_000, "99.0 kB"), (12_345_678, "12.3 MB")])
def test_megabytes(size: int, text: str) -> None:
    assert page.megabytes(size) == text


PACKAGES = (
    pure("custom-rasterizer", requires=["torch-rasterizer>=0.1.0", "torch>=2.1"]),
    replace(pure(), yanked=f"wrong {HOSTILE}", requires=("numpy", "pillow>=10", "torch>=2.1")),
    pure(version="0.10.0", requires=["numpy", "pillow>=10", "torch>=2.1"]),
)


def test_packages_have_their_own_section(matrix: Matrix, published: Catalog) -> None:
    without = page.render(published, matrix)
    content = page.render(replace(published, packages=PACKAGES), matrix)
    assert b"Without compiled code" not in without
    section = content.decode().partition('<section aria-labelledby="pure-title">')[2].partition("</section>")[0]
    read = Parsed(section.encode())
    files = [f"files/{PACKAGES[at].sha256}/{PACKAGES[at].name}" for at in (0, 2, 1)]
    assert [value for value in read.values("a", "href") if value.startswith("files/")] == files
    assert f"Yanked: wrong {HOSTILE}" in read.text
    assert "script" not in read.tags
    # custom-rasterizer also needs the requirements of torch-rasterizer.
    for pin in ("custom-rasterizer==0.1.0", "torch-rasterizer==0.10.0"):
        lines = f'pip install numpy "pillow>=10"\npip install --index-url ADDRESS/whl/cpu/ {pin}'
        assert lines in read.text
    assert "torch-rasterizer==0.1.0" not in read.text
    # The rest of the page is the same.
    assert data_of(content) == data_of(without)
    whole = f'<section aria-labelledby="pure-title">{section}</section>\n'
    assert content.decode().replace(whole, "") == without.decode()


def test_package_commands_install_other_requirements_first() -> None:
    packages = (*PACKAGES, alone := pure("nv-diff-render", requires=["torch>=2.1"]))
    assert package_commands("https://i.example/", alone, packages, "cu130").uv == (
        "uv pip install --default-index https://i.example/whl/cu130/ nv-diff-render==0.1.0",
    )
    assert package_commands("https://i.example", PACKAGES[0], packages).uv == (
        'uv pip install numpy "pillow>=10"',
        "uv pip install --default-index https://i.example/whl/cpu/ custom-rasterizer==0.1.0",
    )
