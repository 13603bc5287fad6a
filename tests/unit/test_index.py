"""The static index: its bytes, its pages in an independent reader, its checks, its export and its command."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pypi_simple import DistributionPackage, ProjectPage

from scripts.errors import CatalogError, UsageError
from scripts.index import catalog as catalogs
from scripts.index import command, links, nginx, writer
from scripts.index.catalog import Catalog, Entry
from scripts.index.export import export
from tests.index_factory import PAGE, catalog, entry, pooled

CU130 = "whl/cu130/nvdiffrast"
ADDRESS = "https://example.invalid/whl/cu130/nvdiffrast/"

# Two CUDAs, several torch versions (2.10 sorts after 2.9), and yanked wheels with and without a reason.
SEVERAL = catalog(
    [
        entry(),
        entry(torch="2.9"),
        entry(torch="2.9", python="3.12"),
        replace(entry("0.3.3.1", torch="2.10"), yanked='Wrong <b> & "link"', requires_python="<4,>=3.10"),
        replace(entry(cuda="cu118", torch="2.7", platform="win_amd64"), requires_python=None, yanked=""),
    ]
)


def tree(folder: Path) -> dict[str, bytes]:
    """Return every file and link of a generation by relative path."""
    found = {}
    for root, folders, files in os.walk(folder):
        for path in (Path(root, name) for name in (*folders, *files)):
            if path.is_symlink():
                found[path.relative_to(folder).as_posix()] = b"-> " + os.fsencode(path.readlink())
            elif path.is_file():
                found[path.relative_to(folder).as_posix()] = path.read_bytes()
    return found


def generated(of: Catalog) -> dict[str, bytes]:
    """Return the files and links of a new generation."""
    with TemporaryDirectory() as folder:
        writer.generate(of, Path(folder) / "new", page=PAGE)
        return tree(Path(folder) / "new")


def read_fields(package: DistributionPackage) -> tuple[object, ...]:
    """Return the fields of a file that installers read from HTML and from JSON."""
    yanked = (package.yanked_reason or "") if package.is_yanked else None
    digests, metadata = package.digests, package.metadata_digests
    return package.filename, package.url, digests, metadata, package.requires_python, yanked


def expected_fields(one: Entry) -> tuple[object, ...]:
    """Return the same fields from an entry."""
    url = f"https://example.invalid/files/{one.sha256}/{one.name.replace('+', '%2B')}"
    return one.name, url, {"sha256": one.sha256}, {"sha256": one.metadata_sha256}, one.requires_python, one.yanked


def read_html(files: dict[str, bytes], channel: str) -> ProjectPage:
    """Read a project's HTML page with pypi-simple."""
    page = files[f"whl/{channel}/nvdiffrast/index.html"].decode()
    return ProjectPage.from_html("nvdiffrast", page, base_url=f"https://example.invalid/whl/{channel}/nvdiffrast/")


def read_json(files: dict[str, bytes], channel: str) -> ProjectPage:
    """Read a project's JSON page with pypi-simple."""
    page = json.loads(files[f"whl/{channel}/nvdiffrast/index.json"])
    return ProjectPage.from_json_data(page, base_url=f"https://example.invalid/whl/{channel}/nvdiffrast/")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Return a store whose current index lists three wheels."""
    entries = [pooled(tmp_path, entry()), pooled(tmp_path, entry(torch="2.9")), pooled(tmp_path, entry(cuda="cu128"))]
    writer.generate(catalog(entries), tmp_path / "generations" / "one", page=PAGE)
    (tmp_path / "current").symlink_to("generations/one")
    return tmp_path


def test_pages_have_the_bytes_of_format_1() -> None:
    """A change of these bytes needs a new number of the format in simple_pages."""
    one = replace(entry(), sha256="a" * 64, metadata_sha256="b" * 64, yanked="Built for <old> torch")
    files = generated(catalog([one]))
    name = "nvdiffrast-0.4.0+cu130.torch2.11-cp311-cp311-manylinux_2_28_x86_64.whl"
    url = f"../../../files/{'a' * 64}/{name.replace('+', '%2B')}"
    assert files[f"{CU130}/index.html"].decode() == (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="generator" content="nvdiffrast-wheels, format 1">\n'
        '<meta name="pypi:repository-version" content="1.1">\n<title>nvdiffrast for cu130</title>\n</head>\n<body>\n'
        "<h1>nvdiffrast for cu130</h1>\n"
        f'<a href="{url}#sha256={"a" * 64}" data-core-metadata="sha256={"b" * 64}" '
        f'data-dist-info-metadata="sha256={"b" * 64}" data-requires-python="&gt;=3.10" '
        f'data-yanked="Built for &lt;old&gt; torch">{name}</a><br>\n</body>\n</html>\n'
    )
    assert json.loads(files[f"{CU130}/index.json"]) == {
        "meta": {"api-version": "1.1"},
        "name": "nvdiffrast",
        "files": [
            {
                "filename": name,
                "url": url,
                "hashes": {"sha256": "a" * 64},
                "core-metadata": {"sha256": "b" * 64},
                "requires-python": ">=3.10",
                "size": 123456,
                "upload-time": "2026-11-21T10:00:00Z",
                "yanked": "Built for <old> torch",
            }
        ],
        "versions": ["0.4.0+cu130.torch2.11"],
    }


def test_generation_has_the_pages_of_every_channel() -> None:
    files = generated(SEVERAL)
    channels = ["cu118", "cu118-torch2.7", "cu130", "cu130-torch2.9", "cu130-torch2.10", "cu130-torch2.11"]
    pages = {f"whl/{one}/{page}" for one in channels for page in ("index.html", "index.json")}
    pages |= {f"whl/{one}/nvdiffrast/{page}" for one in channels for page in ("index.html", "index.json")}
    assert set(files) == pages | {"index.html", "catalog.json", "whl/index.html", "files", "records"}
    assert files["index.html"] == PAGE
    assert (files["files"], files["records"]) == (b"-> ../../pool", b"-> ../../records")
    assert re.findall(rb'href="([^"]*)/"', files["whl/index.html"]) == [one.encode() for one in channels]
    assert re.findall(rb'href="([^"]*)"', files["whl/cu130/index.html"]) == [b"nvdiffrast/"]
    projects = {"meta": {"api-version": "1.1"}, "projects": [{"name": "nvdiffrast"}]}
    assert json.loads(files["whl/cu130/index.json"]) == projects
    assert catalogs.parse(files["catalog.json"].decode(), "catalog.json") == SEVERAL


def test_versions_are_sorted_as_versions() -> None:
    files = generated(catalog([entry("0.10.0"), entry("0.9.0"), entry("0.9.0rc1"), entry("0.9.0", python="3.12")]))
    local = "+cu130.torch2.11"
    expected = [f"0.9.0rc1{local}", f"0.9.0{local}", f"0.10.0{local}"]
    assert json.loads(files[f"{CU130}/index.json"])["versions"] == expected


def test_empty_catalog_gives_an_index_without_channels() -> None:
    assert set(generated(Catalog())) == {"index.html", "catalog.json", "whl/index.html", "files", "records"}


_requires = st.sampled_from([None, ">=3.10", "<4,>=3.9.0", "!=3.10.*,>=3.8", "~=3.11", "==3.12.*", ">3.9,<=3.13"])
_reason = st.text(st.characters(categories=["L", "M", "N", "P", "S", "Zs"]), max_size=40).filter(str.isprintable)
_entries = st.builds(
    lambda one, size, **rest: replace(one, size=size, **rest),
    st.builds(
        partial(entry),
        st.from_regex(r"[1-9]?[0-9](\.[1-9]?[0-9]){1,3}(rc[1-9]|\.post[1-9]|\.dev[1-9])?", fullmatch=True),
        cuda=st.sampled_from(["cu118", "cu130", "cu132"]),
        torch=st.sampled_from(["2.9", "2.10", "3.0"]),
        python=st.sampled_from(["3.9", "3.14"]),
        platform=st.sampled_from(["win_amd64", "manylinux_2_28_aarch64"]),
    ),
    size=st.integers(1, 2**40),
    requires_python=_requires,
    yanked=st.none() | _reason,
    uploaded=st.datetimes().map(lambda when: f"{when:%Y-%m-%dT%H:%M:%S}Z".rjust(20, "0")),
)
_catalogs = st.lists(_entries, max_size=12, unique_by=lambda one: one.name).map(catalog)


@settings(max_examples=40, deadline=None)
@given(_catalogs)
def test_html_and_json_give_the_catalog_in_an_independent_reader(of: Catalog) -> None:
    files = generated(of)
    for channel in {channel for one in of.entries for channel in one.channels}:
        listed = [one for one in of.entries if channel in one.channels]
        html, as_json = read_html(files, channel), read_json(files, channel)
        assert (
            [*map(read_fields, html.packages)]
            == [*map(read_fields, as_json.packages)]
            == [*map(expected_fields, listed)]
        )
        assert html.repository_version == as_json.repository_version == "1.1"
        assert [package.size for package in as_json.packages] == [one.size for one in listed]
        times = [package.upload_time for package in as_json.packages if package.upload_time]
        assert [f"{time:%Y-%m-%dT%H:%M:%S}Z".rjust(20, "0") for time in times] == [one.uploaded for one in listed]
        assert sorted(as_json.versions or []) == sorted({one.name.split("-")[1] for one in listed})


UNSAFE: dict[str, Callable[[Entry], Entry]] = {
    "channel climbs": lambda one: replace(one, cuda="../cu130"),
    "channel with a slash": lambda one: replace(one, cuda="cu130/x"),
    "empty channel": lambda one: replace(one, cuda=""),
    "channel of dots": lambda one: replace(one, torch=".."),
    "channel with markup": lambda one: replace(one, torch='2.11"><script>'),
    "channel differs from the name": lambda one: replace(one, torch="2.10"),
    "name climbs": lambda one: replace(one, name="../" + one.name),
    "name with a newline": lambda one: replace(one, name=one.name.replace("cp311-cp311", "cp311-cp311\n")),
    "name with markup": lambda one: replace(one, name=one.name.replace("nvdiffrast", "<b>nvdiffrast")),
    "name of an sdist": lambda one: replace(one, name="nvdiffrast-0.4.0.tar.gz"),
    "another project": lambda one: replace(one, name=one.name.replace("nvdiffrast", "torch")),
    "hash climbs": lambda one: replace(one, sha256="../" * 20 + "abcd"),
    "hash with capitals": lambda one: replace(one, sha256="A" * 64),
    "short hash": lambda one: replace(one, metadata_sha256="abc"),
    "negative size": lambda one: replace(one, size=-1),
    "invalid date": lambda one: replace(one, uploaded="2026-13-41T10:00:00Z"),
    "local time": lambda one: replace(one, uploaded="2026-11-21 10:00"),
    "markup in requires-python": lambda one: replace(one, requires_python='>=3"><script>'),
    "reason of two lines": lambda one: replace(one, yanked="bad\n<a href=evil>evil</a>"),
    "reason with a NUL": lambda one: replace(one, yanked="bad\0"),
    "reason that is not Unicode": lambda one: replace(one, yanked="\ud800"),
    "waiver of two lines": lambda one: replace(one, waiver="bad\r\nworse"),
}


@pytest.mark.parametrize("case", UNSAFE)
def test_refuses_an_unsafe_entry(tmp_path: Path, case: str) -> None:
    bad = UNSAFE[case](entry())
    with pytest.raises(CatalogError, match=re.escape(repr(bad.name))):
        writer.generate(catalog([bad, entry(python="3.12")]), tmp_path / "new", page=PAGE)
    assert list(tmp_path.iterdir()) == []


def test_refuses_an_existing_destination(tmp_path: Path) -> None:
    (tmp_path / "new").symlink_to("nowhere")
    with pytest.raises(CatalogError, match="already exists"):
        writer.generate(SEVERAL, tmp_path / "new", page=PAGE)


@pytest.mark.parametrize("entries", [SEVERAL.entries[::-1], SEVERAL.entries[:1] * 2])
def test_refuses_unordered_or_duplicate_entries(tmp_path: Path, entries: tuple[Entry, ...]) -> None:
    with pytest.raises(CatalogError, match="ordered by file name"):
        writer.generate(Catalog(entries), tmp_path / "new", page=PAGE)


def test_failed_generation_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("scripts.index.simple_pages.channels_html", full)
    with pytest.raises(OSError, match="No space"):
        writer.generate(SEVERAL, tmp_path / "new", page=PAGE)
    assert list(tmp_path.iterdir()) == []


def test_check_accepts_an_intact_index(store: Path) -> None:
    assert writer.check(store / "current") == []


def _first(store: Path, pattern: str) -> Path:
    return sorted((store / "pool").glob(pattern))[0]


def _link(path: Path) -> None:
    copy = path.with_suffix(".elsewhere")
    path.rename(copy)
    path.symlink_to(copy)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "wheel changed": (lambda store: _first(store, "*/*.whl").write_bytes(b"other"), "has sha256"),
    "wheel missing": (lambda store: _first(store, "*/*.whl").unlink(), "missing"),
    "wheel is a link": (lambda store: _link(_first(store, "*/*.whl")), "not a regular file"),
    "folder of the pool is a link": (lambda store: _link(_first(store, "*")), "not a regular file"),
    "metadata changed": (lambda store: _first(store, "*/*.metadata").write_bytes(b"other"), "has sha256"),
    "metadata missing": (lambda store: _first(store, "*/*.metadata").unlink(), "missing"),
    "page missing": (lambda store: (store / "current" / CU130 / "index.json").unlink(), "is missing"),
    "page truncated": (
        lambda store: (store / "current" / CU130 / "index.json").write_bytes(b'{"files": ['),
        "not a page",
    ),
    "additional page": (
        lambda store: (store / "current" / "whl/more.html").write_bytes(b""),
        "not part of the catalog's index",
    ),
    "link files changed": (lambda store: _link(store / "current" / "files"), "differs from what the catalog gives"),
    "broken link in the root page": (
        lambda store: (store / "current" / "index.html").write_text('<a href="whl/cu999/">'),
        "cu999/: index.html is missing|cu999/: cu999 is missing",
    ),
    "link out of the index in the root page": (
        lambda store: (store / "current" / "index.html").write_text('<a href="../../ledger.jsonl">'),
        "out of the index",
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_check_reports_damage(store: Path, case: str) -> None:
    damage, message = DAMAGE[case]
    damage(store)
    assert re.search(message, "\n".join(writer.check(store / "current")))


def test_check_refuses_an_invalid_catalog(store: Path) -> None:
    (store / "current" / "catalog.json").write_text("{")
    with pytest.raises(CatalogError, match="not a catalog"):
        writer.check(store / "current")


def test_export_writes_plain_files_once(store: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    export(store / "current", folder)
    files = tree(folder)
    assert not [name for name, content in files.items() if content.startswith(b"-> ")]
    assert list(links.problems(folder)) == []
    assert {name for name in files if name.startswith("whl/")} == {
        name for name in tree(store / "current") if name.startswith("whl/")
    }
    assert len([name for name in files if name.startswith("records/")]) == 3
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    export(store / "current", folder)
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_export_command_prints_the_absolute_path(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["index", str(store), "--export", "plain"])
    assert command.main() == 0
    assert capsys.readouterr().out.endswith(f" exported to {tmp_path / 'plain'}\n")
    assert (tmp_path / "plain" / "index.html").is_file()


def test_export_adds_wheels_but_removes_none(store: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    export(store / "current", folder)
    known = catalogs.read(store / "current")
    after = known.with_entry(pooled(store, entry("0.5.0"))).with_entry(replace(known.entries[0], yanked="broken"))
    writer.generate(after, store / "generations" / "two", page=b"two")
    export(store / "generations" / "two", folder)
    assert list(links.problems(folder)) == []
    assert catalogs.read(folder) == after
    with pytest.raises(CatalogError, match="no such wheel"):
        export(store / "current", folder)
    assert catalogs.read(folder) == after


def test_interrupted_export_has_valid_links_and_can_be_repeated(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, real, calls = tmp_path / "out", Path.replace, []

    def replaced(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replaced)
    with pytest.raises(KeyboardInterrupt):
        export(store / "current", folder)
    monkeypatch.undo()
    assert list(links.problems(folder)) == []
    export(store / "current", folder)
    assert catalogs.read(folder) == catalogs.read(store / "current")


def test_export_refuses_a_folder_that_is_not_an_export(store: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(CatalogError, match="not an exported index"):
        export(store / "current", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_export_refuses_to_change_a_wheel(store: Path, tmp_path: Path) -> None:
    export(store / "current", tmp_path / "out")
    before = tree(tmp_path / "out")
    other = catalogs.read(store / "current").with_entry(pooled(store, entry(), source="other = True\n"))
    writer.generate(other, store / "generations" / "two", page=PAGE)
    with pytest.raises(CatalogError, match="other bytes under that name"):
        export(store / "generations" / "two", tmp_path / "out")
    assert tree(tmp_path / "out") == before


@pytest.mark.parametrize(
    "case",
    [
        "wheel changed",
        "wheel missing",
        "wheel is a link",
        "metadata changed",
        "metadata missing",
        "folder of the pool is a link",
    ],
)
def test_export_refuses_a_damaged_pool(store: Path, tmp_path: Path, case: str) -> None:
    DAMAGE[case][0](store)
    with pytest.raises(CatalogError, match=r"damaged|missing or not a regular file"):
        export(store / "current", tmp_path / "out")
    assert not (tmp_path / "out" / "whl").exists()


def test_export_needs_an_index(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="is not an index"):
        export(tmp_path / "current", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nginx_configuration_has_address_and_folder() -> None:
    text = nginx.configuration(Path("/srv/my wheels/current"), "127.0.0.1:8080")
    assert "listen 127.0.0.1:8080;" in text
    assert 'root "/srv/my wheels/current";' in text
    assert 'alias "/srv/my wheels/current/whl/";' in text


@pytest.mark.parametrize(
    ("root", "address"),
    [("/srv/x", "80; evil on"), ("/srv/x", "80\n"), ('/srv/"; evil', "80"), ("/srv/$host", "80"), ("/srv/a\nb", "80")],
)
def test_nginx_configuration_refuses_special_characters(root: str, address: str) -> None:
    with pytest.raises(UsageError, match="not allowed in nginx"):
        nginx.configuration(Path(root), address)


def test_command_writes_again_and_checks(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["index", str(store)])
    assert command.main() == 0
    assert (store / "current").resolve() != store / "generations" / "one"
    assert b"nvdiffrast" in (store / "current" / "index.html").read_bytes()
    monkeypatch.setattr(sys, "argv", ["index", str(store), "--check"])
    assert command.main() == 0
    assert "every link" in capsys.readouterr().out
    DAMAGE["wheel missing"][0](store)
    with pytest.raises(CatalogError, match="damaged"):
        command.main()


def test_command_needs_an_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for options in ([], ["--check"], ["--export", str(tmp_path / "out")]):
        monkeypatch.setattr(sys, "argv", ["index", str(tmp_path / "store"), *options])
        with pytest.raises(CatalogError, match=r"no index|not an index"):
            command.main()
    assert list(tmp_path.iterdir()) == []
