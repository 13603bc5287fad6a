"""The committed matrix: expansion, ids, versions, selection, and the files generated from it."""

from __future__ import annotations

import json
import random
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.utils import parse_wheel_filename
from packaging.version import Version

from scripts.errors import UsageError
from scripts.matrix import matrix, schema, torch_builds
from scripts.model import ROOT, Bounds, Cell, GitPin, Platform, RegistryPin, Release, Toolkit, TorchBuild
from scripts.wheel import wheel_policy

MATRIX = matrix.load()
IDS = [cell.id for cell in MATRIX.cells]


def test_cells_equal_the_golden_file() -> None:
    assert matrix.GOLDEN.read_text() == matrix.golden(MATRIX), "run `nox -s golden` if the change is meant"


def test_schema_is_current() -> None:
    assert matrix.SCHEMA.read_text() == schema.json_schema(), "run `nox -s golden` if the change is meant"


def test_the_matrix_names_its_schema_for_editors() -> None:
    first = matrix.PATH.read_text().splitlines()[0]
    assert first == f"# yaml-language-server: $schema={matrix.SCHEMA.name}"


def test_the_schema_has_the_keys_of_the_models() -> None:
    schema = json.loads(matrix.SCHEMA.read_text())
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["RawExclusion"]["required"] == ["cells", "reason"]
    assert schema["$defs"]["RawGit"]["properties"]["commit"]["pattern"] == "^[0-9a-f]{40}$"


def test_the_matrix_contains_the_required_cells() -> None:
    assert len(IDS) >= 100
    assert len(set(IDS)) == len(IDS)
    assert len({cell.wheel for cell in MATRIX.cells}) == len(IDS)
    assert {release.version for release in MATRIX.releases} == {"0.3.3.1", "0.3.3", "0.3.4", "0.3.5", "0.4.0"}
    assert [toolkit.cuda for toolkit in MATRIX.toolkits] == ["11.8", "12.4", "12.6", "12.8", "13.0", "13.2"]
    assert {cell.python for cell in MATRIX.cells} == {"3.10", "3.11", "3.12", "3.13", "3.14"}
    assert "0.3.3.1-cp312-cu130-torch2.11-linux_x86_64" in IDS
    assert all(exclusion.cells for exclusion in MATRIX.exclusions)


def test_torch_comes_from_pypi_if_its_wheel_there_has_the_cuda() -> None:
    def origin(glob: str) -> set[tuple[str, str]]:
        return {(cell.torch.version, cell.torch.origin) for cell in MATRIX.select([glob])}

    assert origin("*-cu130-torch2.11-linux_x86_64") == {("2.11.0", "pypi")}
    assert origin("*-cu130-torch2.11-win_amd64") == {("2.11.0", "pytorch")}
    assert origin("*-cu130-torch2.9-linux_x86_64") == {("2.9.1", "pytorch")}
    assert origin("*-cu128-torch2.9-linux_x86_64") == {("2.9.1", "pypi")}
    assert origin("*-cu130-torch2.14-*") == {("2.14.1", "pypi")}
    assert origin("*-cu132-torch2.15-*") == {("2.15.0", "pypi")}


def test_pins_and_providers() -> None:
    package, first = MATRIX.release("0.3.3.1").source, MATRIX.release("0.4.0").source
    assert isinstance(package, RegistryPin)
    assert package.filename == "diffrp_nvdiffrast-0.3.3.1-py3-none-any.whl"
    assert isinstance(first, GitPin)
    assert first.commit == "253ac4fcea7de5f396371124af597e6cc957bfae"
    providers = {toolkit.tag: [(one.kind, one.lock) for one in toolkit.providers] for toolkit in MATRIX.toolkits}
    assert providers["cu130"][0] == ("pypi", "requirements/toolkits/cu130.txt")
    assert providers["cu124"] == [("redist", "requirements/toolkits/cu124-redist.json"), ("system", None)]
    assert MATRIX.toolkit(MATRIX.default_toolkit).cuda == "13.2"
    for name in ("release", "toolkit"):
        with pytest.raises(UsageError, match=f"no {name} 9"):
            getattr(MATRIX, name)("9")


def test_expansion_is_deterministic() -> None:
    assert matrix.load() == MATRIX


@given(st.sampled_from(MATRIX.cells))
def test_cell_ids_agree_with_wheel_names(cell: Cell) -> None:
    name, version, build, tags = parse_wheel_filename(cell.wheel)
    assert (name, str(version), build) == ("nvdiffrast", cell.version, ())
    release, python, cuda, torch, platform = cell.id.split("-")
    assert str(version.local) == f"{cuda}.{torch}"
    assert version.public == release
    assert {(tag.interpreter, tag.abi, tag.platform) for tag in tags} == {(python, python, cell.platform.wheel_tag)}
    assert platform == cell.platform.name
    assert cell.channel == f"/whl/{cuda}/"


def _cell(cuda: str, torch: str) -> Cell:
    toolkit = Toolkit(cuda, (), ("9.0",), "9.0", Bounds(), Bounds())
    source = RegistryPin("p", "1", "f", "0" * 64)
    return Cell(
        Release("0.3.3.1", "0.3", source), "3.12", toolkit, TorchBuild(torch, f"{torch}.0", "pypi"), Platform("a", "b")
    )


_NUMBERS = st.tuples(st.integers(1, 20), st.integers(0, 30))


@given(st.lists(_NUMBERS, min_size=2))
def test_local_versions_sort_as_numbers(lines: list[tuple[int, int]]) -> None:
    """Sort as 2.9 < 2.10 < 2.11, unlike text."""
    shuffled = random.Random(0).sample(lines, len(lines))
    versions = sorted(Version(_cell("13.0", f"{major}.{minor}").version) for major, minor in shuffled)
    # For PEP 440 "torch2" is one alphanumeric segment; only the minor version is compared as a number.
    assert [version.local for version in versions if version.local and "torch2." in version.local] == [
        f"cu130.torch2.{minor}" for major, minor in sorted(lines) if major == 2
    ]


def test_two_ten_is_newer_than_two_nine() -> None:
    assert Version(_cell("13.0", "2.10").version) > Version(_cell("13.0", "2.9").version)
    assert Version(_cell("13.0", "2.9").version) > Version("0.3.3.1")


def test_selects_all_cells_in_order_without_a_glob() -> None:
    assert MATRIX.select([]) == MATRIX.cells
    picked = MATRIX.select(["*-win_amd64", "*-cp310-*", "*-cp310-*"])
    assert [cell.id for cell in picked] == [one for one in IDS if one.endswith("win_amd64") or "-cp310-" in one]


@given(st.lists(st.sampled_from(IDS), min_size=1, max_size=5), st.data())
def test_globs_select_the_matching_cells(chosen: list[str], data: st.DataObject) -> None:
    patterns = ["-".join(data.draw(st.sampled_from([part, "*"])) for part in one.split("-")) for one in chosen]
    picked = {cell.id for cell in MATRIX.select(patterns)}
    assert picked >= set(chosen)
    assert picked == {one for one in IDS if any(fnmatchcase(one, pattern) for pattern in patterns)}


def test_a_glob_without_a_match_names_similar_cells() -> None:
    with pytest.raises(UsageError, match=r"nearest: 0\.3\.3\.1-cp312-cu130-torch2\.12-linux_x86_64"):
        MATRIX.select(["*-cp310-*", "0.3.3.1-cp312-cu130-torch2.12-linux"])
    with pytest.raises(UsageError, match=r"excluded, because 0\.3\.3\.1 has every C\+\+"):
        MATRIX.select(["0.3.3-cp310-cu118-*"])


def test_the_table_is_equal_after_dump_and_load() -> None:
    table = torch_builds.load()
    assert torch_builds.dump(table) == torch_builds.PATH.read_text()
    assert table.channels["cu118"].declared
    assert not table.channels["cu118"].observed
    assert table.pythons("13.2", "2.15.0", "linux_x86_64")[:2] == ("3.11", "3.12")
    assert table.pythons("13.2", "2.15.0", "win_amd64") == ()


def test_the_table_names_the_publisher_of_a_build() -> None:
    table = torch_builds.load()
    assert table.origin("13.2", "2.15.0", "linux_x86_64", "3.11") == "pypi"
    assert table.origin("13.2", "2.15.0", "linux_x86_64", "3.10") is None
    assert table.origin("13.2", "2.15.0", "win_amd64", "3.11") is None
    assert table.origin("13.0", "2.15.0", "linux_x86_64", "3.11") is None
    assert table.origin("12.4", "2.5.1", "linux_x86_64", "3.13") == "pypi"
    assert table.origin("12.4", "2.5.1", "win_amd64", "3.12") == "pytorch"


def test_every_series_has_a_folder_of_patches() -> None:
    assert all((ROOT / "patches" / release.series).is_dir() for release in MATRIX.releases)


def test_a_release_has_gl_exactly_if_its_series_builds_the_gl_plugin() -> None:
    for cell in MATRIX.cells:
        plugins = {plugin.kind for plugin in wheel_policy.for_cell(cell).plugins}
        assert cell.release.has_gl == ("gl" in plugins), cell.id
