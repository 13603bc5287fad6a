"""Tests of the wheels that pip and uv choose with the commands of the page; all wheels are stand-ins."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from scripts.errors import CommandError, PublishError, UntestedError
from scripts.index import catalog as catalogs
from scripts.index import ledger
from scripts.index.catalog import Entry
from scripts.index.install_commands import Commands, commands
from scripts.publish import prove, serve, stand_ins
from scripts.support import interpreters, sandbox
from scripts.support.sandbox import TOOLS, Environment, Surroundings, Tool
from tests import stand_in_store
from tests.stand_in_store import PYTHON, Wanted

Cleaner = Callable[..., Environment]

pytestmark = pytest.mark.integration
if stand_in_store.HERE != "linux_x86_64":
    pytest.skip("the stand-ins are for Linux on x86-64", allow_module_level=True)

OTHER_PYTHON = "3.10" if PYTHON != "3.10" else "3.11"
OFFERED = (
    Wanted("cu128", "2.9"),
    Wanted("cu128", "2.10"),
    Wanted("cu128", "2.9", release="0.3.4"),
    Wanted("cu130", "2.9"),
    Wanted("cu130", "2.14"),
    Wanted("cu130", "2.13", yanked="built for the wrong cards"),
    Wanted("cu128", "2.9", platform="win_amd64"),
    Wanted("cu128", "2.10", python="3.99"),
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stand_in_store.make(tmp_path_factory.mktemp("store"), OFFERED)


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve an index in place of PyPI, with every torch and another project's nvdiffrast."""
    folder = tmp_path_factory.mktemp("usual")
    for version in ("2.9.1", "2.9.0+cu128", "2.10.0", "2.12.1", "2.13.0", "2.14.1"):
        stand_ins.wheel(folder, "torch", version)
    stand_ins.wheel(folder, "numpy", "2.0")
    for version in ("0.3.3.1", "99.0"):
        stand_ins.wheel(folder, "nvdiffrast", version)
    stand_ins.list_wheels(folder)
    with serve.static(folder) as url:
        yield url


@pytest.fixture(params=["negotiated", "HTML alone"])
def url(request: pytest.FixtureRequest, store: Path, tmp_path: Path) -> Iterator[str]:
    """Serve the staged index with content negotiation and as plain files."""
    generation = (store / "staged").resolve()
    if request.param == "HTML alone":
        plain = tmp_path / "plain"
        shutil.copytree(generation, plain, ignore=shutil.ignore_patterns("index.json"))
        generation = plain
    with serve.static(generation) as base:
        yield base


def _entry(store: Path, version: str) -> Entry:
    found = [entry for entry in catalogs.read(store / "staged").entries if f"-{version}-cp" in entry.name]
    return next(entry for entry in found if entry.python == PYTHON and entry.platform == stand_in_store.HERE)


@pytest.fixture
def clean_with(usual: str, tmp_path: Path) -> Callable[..., Environment]:
    """Create the test's environment again, with these requirements from the stand-in for PyPI."""
    python = interpreters.find(PYTHON)
    assert python is not None
    return partial(sandbox.create, tmp_path / "environment", python, Surroundings(usual, tmp_path / "cache"))


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("torch", ["2.9.1", "2.9.0+cu128"])
def test_chooses_the_wheel_for_torch_2_9(tool: Tool, torch: str, url: str, store: Path, clean_with: Cleaner) -> None:
    """The channel has wheels for torch 2.9 and torch 2.10; both tools choose the one for the installed torch."""
    environment = clean_with(f"torch=={torch}")
    before = environment.fingerprint("torch")
    # The command of the wheel for torch 2.10 also chooses the wheel for the installed torch.
    prove.follow_the_page(environment, tool, _entry(store, "0.3.3.1+cu128.torch2.10"), url)
    assert environment.installed() == {"nvdiffrast": "0.3.3.1+cu128.torch2.9", "numpy": "2.0", "torch": torch}
    assert environment.fingerprint("torch") == before


@pytest.mark.parametrize("tool", TOOLS)
def test_refuses_a_torch_without_a_wheel(tool: Tool, url: str, store: Path, clean_with: Cleaner) -> None:
    """torch 2.12.1 has no wheel: nothing is installed, and the message names 2.9 and 2.10."""
    environment = clean_with("torch==2.12.1", "numpy")
    before = environment.fingerprint("torch")
    with pytest.raises(CommandError) as refused:
        prove.follow_the_page(environment, tool, _entry(store, "0.3.3.1+cu128.torch2.9"), url)
    assert "torch==2.9.*" in refused.value.output
    assert "torch==2.10.*" in refused.value.output
    assert environment.installed() == {"numpy": "2.0", "torch": "2.12.1"}
    assert environment.fingerprint("torch") == before


@pytest.mark.parametrize("tool", TOOLS)
def test_does_not_choose_a_yanked_wheel(tool: Tool, url: str, store: Path, clean_with: Cleaner) -> None:
    """The only wheel for torch 2.13 is yanked, so the command fails."""
    environment = clean_with("torch==2.13.0", "numpy")
    with pytest.raises(CommandError):
        prove.follow_the_page(environment, tool, _entry(store, "0.3.3.1+cu130.torch2.14"), url)
    assert "nvdiffrast" not in environment.installed()


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("version", ["0.3.3.1+cu128.torch2.9", "0.3.3.1+cu130.torch2.9", "0.3.4+cu128.torch2.9"])
def test_chooses_the_wheel_of_the_channel(tool: Tool, version: str, url: str, store: Path, clean_with: Cleaner) -> None:
    """torch 2.9.1 has wheels in two channels and of two releases; each command chooses its own wheel."""
    environment = clean_with("torch==2.9.1")
    prove.follow_the_page(environment, tool, _entry(store, version), url)
    assert environment.installed()["nvdiffrast"] == version


@pytest.mark.parametrize("tool", TOOLS)
def test_channel_of_a_torch_line_has_only_its_wheels(tool: Tool, url: str, clean_with: Cleaner) -> None:
    """/whl/cu128-torch2.10/ has a wheel for torch 2.10 and no wheel for torch 2.9."""
    option = {"pip": "pip install --index-url", "uv": "uv pip install --default-index"}[tool]
    line = f"{option} {url}/whl/cu128-torch2.10/ nvdiffrast"
    with pytest.raises(CommandError, match=r"exit status"):
        clean_with("numpy", "torch==2.9.1").run(line)
    environment = clean_with("numpy", "torch==2.10.0")
    environment.run(line)
    assert environment.installed()["nvdiffrast"] == "0.3.3.1+cu128.torch2.10"


DATED = (
    Wanted("cu128", "2.9", uploaded="2026-10-01T00:00:00Z"),
    Wanted("cu128", "2.9", release="0.3.4", uploaded="2026-11-01T00:00:00Z"),
)
_CUT = {
    "pip": "pip install --uploaded-prior-to 2026-10-15T00:00:00Z --index-url",
    "uv": "uv pip install --exclude-newer 2026-10-15T00:00:00Z --default-index",
}


@pytest.fixture(scope="module")
def dated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a generation with two releases of different dates."""
    return (stand_in_store.make(tmp_path_factory.mktemp("dated"), DATED) / "staged").resolve()


@pytest.mark.parametrize("tool", TOOLS)
def test_chooses_by_the_date_of_the_upload(tool: Tool, dated: Path, clean_with: Cleaner) -> None:
    """pip's --uploaded-prior-to and uv's --exclude-newer use the dates in the JSON: the older release is chosen."""
    with serve.static(dated) as url:
        environment = clean_with("torch==2.9.1", "numpy")
        environment.run(f"{_CUT[tool]} {url}/whl/cu128/ nvdiffrast")
        assert environment.installed()["nvdiffrast"] == "0.3.3.1+cu128.torch2.9"
        environment = clean_with("torch==2.9.1", "numpy")
        environment.run(f"{_CUT[tool].replace('2026-10-15', '2026-12-15')} {url}/whl/cu128/ nvdiffrast")
        assert environment.installed()["nvdiffrast"] == "0.3.4+cu128.torch2.9"


@pytest.mark.parametrize("tool", TOOLS)
def test_finds_no_wheel_by_date_in_html(tool: Tool, dated: Path, clean_with: Cleaner, tmp_path: Path) -> None:
    """HTML pages have no upload dates, so the tools reject every wheel."""
    plain = tmp_path / "plain"
    shutil.copytree(dated, plain, ignore=shutil.ignore_patterns("index.json"))
    environment = clean_with("torch==2.9.1", "numpy")
    with serve.static(plain) as url, pytest.raises(CommandError):
        environment.run(f"{_CUT[tool]} {url}/whl/cu128/ nvdiffrast")


def test_uv_sync_installs_with_the_project_snippet(url: str, store: Path, clean_with: Cleaner, tmp_path: Path) -> None:
    """`uv sync` of a project with the page's snippet installs the wheel, and the rest from the stand-in for PyPI."""
    entry = _entry(store, "0.3.3.1+cu128.torch2.9")
    project = tmp_path / "project"
    project.mkdir()
    snippet = commands(url, entry).pyproject
    head = f'[project]\nname = "user"\nversion = "0"\nrequires-python = "=={PYTHON}.*"\n'
    assert snippet.startswith("[project]\n")
    limits = "\n[tool.uv]\nenvironments = [\"sys_platform == 'linux'\"]\n"
    (project / "pyproject.toml").write_text(snippet.replace("[project]\n", head, 1) + limits, encoding="utf-8")
    environment = clean_with()
    environment.run("uv sync --quiet --active", cwd=project)
    installed = environment.installed()
    assert installed["nvdiffrast"] == "0.3.3.1+cu128.torch2.9"
    assert installed["torch"].startswith("2.9.1")


def test_proves_all_wheels_for_this_machine(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both tools install every wheel for this machine, the others are untested, and the proof is logged once."""
    proofs = prove.prove(store, by="tester")
    printed = capsys.readouterr().out
    assert [printed.count(f"{one.check} {one.tool} {one.subject}:") for one in proofs] == [1] * len(proofs)
    assert printed.splitlines()[-2].endswith(f"{len(proofs)} proofs: 22 passed, 2 untested")
    assert "took the place of: numpy, torch;" in printed
    assert {made.outcome for made in proofs} == {"passed", "untested"}
    installs = [made for made in proofs if (made.check, made.outcome) == ("install", "passed")]
    assert len(installs) == 2 * 5
    refusals = [made for made in proofs if made.check == "refuse"]
    assert {(made.tool, made.outcome) for made in refusals} == {("pip", "passed"), ("uv", "passed")}
    untested = {made.subject: made.detail for made in proofs if made.outcome == "untested"}
    assert sorted(untested.values()) == ["CPython 3.99 is not installed", "this machine is linux_x86_64"]
    [event] = [event for event in ledger.read(store) if event.what == "proved"]
    assert len(event.details["installed"]) == 5
    assert set(event.details["untested"]) == set(untested)
    assert event.details["stand_ins"] == ["numpy", "torch"]
    assert prove.prove(store, by="tester") == ()
    assert len(ledger.read(store)) == 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        # Without a requirement of torch, a comparison of versions chooses this wheel beside torch 2.9.
        (Wanted("cu128", "2.10", requires=["numpy"]), r"torch2\.10 was chosen, not 0\.3\.3\.1\+cu128\.torch2\.9"),
        # This wheel requires a package that the page's commands and torch do not install.
        (Wanted("cu128", "2.10", requires=["numpy", "torch==2.10.*", "pillow"]), "pillow"),
    ],
)
def test_refuses_to_prove_a_wrong_wheel(wrong: Wanted, message: str, tmp_path: Path) -> None:
    store = stand_in_store.make(tmp_path / "store", [Wanted("cu128", "2.9"), wrong])
    with pytest.raises(PublishError, match=message):
        prove.prove(store, by="tester")
    assert ledger.read(store) == []


def test_refuses_to_prove_commands_that_replace_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the commands used PyPI too, pip and uv would install the newest torch that has a wheel."""

    def careless(url: str, entry: Entry) -> Commands:
        shown = commands(url, entry)
        pip = tuple(line.replace("--index-url", "--extra-index-url") for line in shown.pip)
        return Commands(pip, tuple(line.replace("--default-index", "--index") for line in shown.uv), "")

    monkeypatch.setattr(prove, "commands", careless)
    store = stand_in_store.make(tmp_path / "store", [Wanted("cu128", "2.9"), Wanted("cu128", "2.10")])
    with pytest.raises(PublishError, match=r"torch2\.9-cp.*: torch was changed: now 2\.10\.1"):
        prove.prove(store, by="tester")
    assert ledger.read(store) == []


def test_refuses_to_prove_a_damaged_wheel(tmp_path: Path) -> None:
    """The served bytes do not match the sha256 in the index."""
    store = stand_in_store.make(tmp_path / "store", [Wanted("cu128", "2.9")])
    [wheel] = (store / "pool").glob("*/*.whl")
    wheel.write_bytes(wheel.read_bytes() + b"more")
    with pytest.raises(PublishError, match=r"(?i)hash"):
        prove.prove(store, by="tester")


def test_refuses_a_store_without_a_wheel_for_this_machine(tmp_path: Path) -> None:
    with pytest.raises(PublishError, match="nothing is staged"):
        prove.prove(tmp_path, by="tester")
    store = stand_in_store.make(tmp_path / "store", [Wanted("cu128", "2.9", platform="win_amd64")])
    with pytest.raises(UntestedError, match="this machine is linux_x86_64"):
        prove.prove(store, by="tester")
    assert ledger.read(store) == []


def test_ignores_the_configuration_of_this_machine(
    store: Path, clean_with: Cleaner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pip.conf, a folder of wheels and a second index of this machine do not affect a proof."""
    decoys = tmp_path / "decoys"
    for torch in ("2.9", "2.10"):
        stand_ins.wheel(decoys, "nvdiffrast", f"0.3.3.1+zz.torch{torch}", requires=["numpy", f"torch=={torch}.*"])
    (tmp_path / "pip.conf").write_text(f"[global]\nfind-links = {decoys}\n")
    (tmp_path / "uv.toml").write_text(f'[pip]\nfind-links = ["{decoys}"]\n')
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("PIP_FIND_LINKS", str(decoys))
    monkeypatch.setenv("UV_CONFIG_FILE", str(tmp_path / "uv.toml"))
    monkeypatch.setenv("UV_FIND_LINKS", str(decoys))
    with serve.static((store / "staged").resolve()) as url:
        for tool in TOOLS:
            environment = clean_with("torch==2.9.1")
            prove.follow_the_page(environment, tool, _entry(store, "0.3.3.1+cu128.torch2.9"), url)
            assert environment.installed()["nvdiffrast"] == "0.3.3.1+cu128.torch2.9"
