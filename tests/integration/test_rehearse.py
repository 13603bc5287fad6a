"""Run the command of `nox -s rehearse` with this host's cell for one architecture, and check the results."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from scripts.index import catalog, ledger, writer
from scripts.model import ROOT, Cell
from scripts.publish import rehearse, serve
from scripts.support import simple_api

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", autouse=True)
def needs(host_cell: Cell) -> None:
    """Skip if this host's cell cannot be built."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rehearsal")


def _rehearse(folder: Path, *options: str) -> str:
    command = [sys.executable, "-m", "scripts.publish.rehearse", "--folder", str(folder), *options]
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=3000
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def output(folder: Path) -> str:
    return _rehearse(folder, "--arch", "9.0", "--engine", "host", "--release", "0.3.3.1")


@pytest.fixture(scope="module")
def place(folder: Path, output: str) -> Path:
    [store] = folder.glob("*/store")
    return store.parent


def test_pip_and_uv_install_and_import_the_wheel(output: str) -> None:
    """pip and uv install from the staged index with the real torch, and from the server with the uploaded wheel."""
    for tool in ("pip", "uv"):
        [line] = [line for line in output.splitlines() if f" import {tool} nvdiffrast-0.3.3.1+" in line]
        assert "imported cuda, gl" in line
        assert f"install from pypiserver {tool} nvdiffrast-0.3.3.1+" in output
    assert "✗" not in output
    assert "failed" not in output


def test_logs_every_step(place: Path) -> None:
    events = ledger.read(place / "store")
    assert [event.what for event in events] == ["staged", "uploaded", "proved", "promoted"]
    assert {event.by for event in events} == {"rehearsal"}
    assert events[2].details["real"] is True


def test_exported_index_is_complete_and_shows_the_waiver(place: Path, output: str) -> None:
    """The index is in the folder that the summary names."""
    site = place / "site"
    assert f"page:   {(site / 'index.html').as_uri()}" in output.splitlines()
    [entry] = catalog.read(site).entries
    assert (entry.gpu, entry.waiver, entry.partial) == ("waived", rehearse.WAIVER, True)
    assert writer.check(place / "store" / "current") == []
    with serve.static(site) as url:
        for channel in entry.channels:
            [file] = simple_api.files(f"{url}/whl/{channel}/nvdiffrast/")
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(file.url) as answer:
                assert hashlib.sha256(answer.read()).hexdigest() == file.sha256 == entry.sha256
    assert not any(path.is_symlink() for path in site.rglob("*"))


def test_password_is_only_in_its_file(place: Path, output: str) -> None:
    password = (place / "server" / "password").read_text().strip()
    holding = [path for path in place.rglob("*") if path.is_file() and password.encode() in path.read_bytes()]
    assert holding == [place / "server" / "password"]
    assert password not in output


def test_second_run_changes_nothing(folder: Path, place: Path, output: str) -> None:
    """A second run with the same wheel uses the same folder and does not stage or promote the wheel again."""
    before = (place / "site" / "catalog.json").read_bytes()
    [wheel] = (folder / "dist").glob("*.whl")
    again = _rehearse(folder, "--wheel", str(wheel))
    assert "0 sent, 1 sent before" in again
    assert (place / "site" / "catalog.json").read_bytes() == before
    assert json.loads(before)["entries"][0]["gpu"] == "waived"
    done = [event.what for event in ledger.read(place / "store")]
    assert (done.count("staged"), done.count("promoted")) == (1, 1)
