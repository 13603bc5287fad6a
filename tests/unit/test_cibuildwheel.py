"""The generated configuration: valid for cibuildwheel, complete for the cell, independent of the machine."""

from __future__ import annotations

import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scripts.build import cibuildwheel
from scripts.errors import BuildError, CommandError, ToolchainError
from scripts.model import ROOT, Bounds, Cell, Platform, Provider, RegistryPin, Release, Toolkit, TorchBuild
from scripts.support import process

POLICY = ("8.0", "9.0+PTX")
IMAGE = "example.org/manylinux_2_28_x86_64@sha256:" + "0" * 64


@pytest.fixture
def cell() -> Cell:
    return Cell(
        release=Release("0.3.3.1", "0.3", RegistryPin("diffrp-nvdiffrast", "0.3.3.1", "x.whl", "0" * 64)),
        python="3.12",
        toolkit=Toolkit(
            "13.0", (Provider("pypi", "lock.txt"),), ("8.0", "9.0"), "9.0", Bounds("9", "15"), Bounds("14.29", "14.44")
        ),
        torch=TorchBuild("2.14", "2.14.1", "pypi"),
        platform=Platform("linux_x86_64", "manylinux_2_28_x86_64"),
    )


@pytest.fixture
def windows(cell: Cell) -> Cell:
    return replace(cell, platform=Platform("win_amd64", "win_amd64"))


def text(cell: Cell, **changed: Any) -> str:
    arguments: dict[str, Any] = {
        "image": IMAGE,
        "cuda_home": Path("/opt/cell/cuda"),
        "torch_lock": Path("/opt/cell/torch.txt"),
        "cache": Path("/opt/cell/cache"),
        "architectures": POLICY,
        "epoch": 1577836800,
    }
    return cibuildwheel.configuration(cell, **{**arguments, **changed})


def options(cell: Cell, **changed: Any) -> dict[str, Any]:
    read: dict[str, Any] = tomllib.loads(text(cell, **changed))["tool"]["cibuildwheel"]
    return read


def test_selects_the_cell_and_pins_the_image(cell: Cell) -> None:
    made = options(cell)
    assert made["build"] == "cp312-manylinux_x86_64"
    assert made["archs"] == ["x86_64"]
    assert made["manylinux-x86_64-image"] == IMAGE


def test_passes_the_environment_variables_of_the_build(cell: Cell) -> None:
    assert options(cell)["environment"] == {
        "BUILD_BINARY_WHEEL": "1",
        "CUDA_HOME": "/opt/cell/cuda",
        "CXX": "g++",
        "NVDIFFRAST_BUILD_CACHE": "/opt/cell/cache",
        "NVDIFFRAST_CELL": "0.3.3.1-cp312-cu130-torch2.14-linux_x86_64",
        "NVDIFFRAST_LOCAL_VERSION": "cu130.torch2.14",
        "NVDIFFRAST_PARTIAL": "0",
        "NVDIFFRAST_SYMBOL_LIMITS": "CXXABI_1.3.11 GLIBCXX_3.4.24",
        "NVDIFFRAST_TORCH_REQUIREMENT": "torch==2.14.*",
        "PYTHONHASHSEED": "0",
        "SOURCE_DATE_EPOCH": "1577836800",
        "TORCH_CUDA_ARCH_LIST": "8.0;9.0+PTX",
    }


@pytest.mark.parametrize("architectures", [("9.0",), ("9.0+PTX",), ("8.0", "9.0"), (*POLICY, "10.0")])
def test_marks_a_build_of_other_architectures_as_partial(cell: Cell, architectures: tuple[str, ...]) -> None:
    made = options(cell, architectures=architectures)
    assert made["environment"]["NVDIFFRAST_PARTIAL"] == "1"
    assert "--allow-partial" in made["audit-command"]


def test_audits_a_full_build_as_not_partial(cell: Cell) -> None:
    assert "--allow-partial" not in options(cell, architectures=tuple(reversed(POLICY)))["audit-command"]


def test_builds_without_an_isolated_environment(cell: Cell) -> None:
    assert options(cell)["build-frontend"] == {"name": "build[uv]", "args": ["--no-isolation"]}


def test_installs_only_with_hashes(cell: Cell, windows: Cell) -> None:
    for made in (options(cell), options(windows, torch_lock=Path("C:/a b/torch.txt"))):
        installs = [line for line in (*made.get("before-all", ()), *made["before-build"]) if "pip install" in line]
        assert installs
        assert all("--require-hashes" in line and "--only-binary :all:" in line for line in installs)
        assert made["audit-requires"] == []


def test_repairs_with_the_stage_that_the_host_engine_uses(cell: Cell) -> None:
    command = options(cell)["repair-wheel-command"].format(wheel="w.whl", dest_dir="out")
    words = shlex.split(command)
    assert words[words.index("-m") + 1 :] == [
        "scripts.build.repair",
        "w.whl",
        *("--cell", cell.id, "--output", "out", "--library-path", "/opt/cell/cuda"),
    ]


def test_installs_an_older_compiler_for_an_older_toolkit(cell: Cell) -> None:
    old = replace(cell, toolkit=replace(cell.toolkit, cuda="12.4", gcc=Bounds("9", "13")))
    made = options(old)
    assert "gcc-toolset-13-gcc-c++" in made["before-all"][0]
    assert made["environment"]["PATH"] == "/opt/rh/gcc-toolset-13/root/usr/bin:$PATH"
    assert "gcc-toolset" not in text(cell)


def test_runs_the_stages_with_a_supported_python(cell: Cell) -> None:
    assert any("/opt/python/cp312-cp312/bin/python" in line for line in options(cell)["before-all"])
    old = replace(cell, python="3.10")
    assert any("/opt/python/cp311-cp311/bin/python" in line for line in options(old)["before-all"])


def test_does_not_depend_on_the_machine(cell: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = text(cell)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret@proxy.example")
    assert text(cell) == first
    assert "secret" not in first
    # The audit alone runs on this machine.
    assert not [line for line in first.splitlines() if str(ROOT) in line and not line.startswith("audit-command")]


def test_windows_runs_natively_with_the_developer_shells_compiler(windows: Cell) -> None:
    made = options(windows, cuda_home=Path("C:/CUDA/v13.0"))
    assert made["build"] == "cp312-win_amd64"
    assert made["archs"] == ["AMD64"]
    assert not {"before-all", "manylinux-x86_64-image"} & made.keys()
    assert made["environment"]["DISTUTILS_USE_SDK"] == "1"
    assert made["environment"]["CUDA_PATH"] == made["environment"]["CUDA_HOME"] == "C:/CUDA/v13.0"


@pytest.mark.parametrize("python", ["3.10", "3.14"])
def test_cibuildwheel_accepts_the_configuration(cell: Cell, tmp_path: Path, python: str) -> None:
    config = tmp_path / "cibuildwheel.toml"
    config.write_text(text(replace(cell, python=python)))
    (tmp_path / "setup.py").touch()
    listing = ["--platform", "linux", "--config-file", str(config), "--print-build-identifiers", str(tmp_path)]
    found = subprocess.run(
        [sys.executable, "-m", "cibuildwheel", *listing], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert found.stdout.split() == [f"cp{python.replace('.', '')}-manylinux_x86_64"]


def engines(monkeypatch: pytest.MonkeyPatch, *answering: str) -> None:
    """Simulate Linux with exactly these container engines."""

    def call(command: list[str], **_: Any) -> str:
        if command[0] in answering:
            return ""
        raise CommandError(f"cannot run {command[0]}", returncode=127)

    monkeypatch.setattr(process, "call", call)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("CIBW_CONTAINER_ENGINE", raising=False)


def test_ignores_an_engine_whose_daemon_does_not_respond(monkeypatch: pytest.MonkeyPatch) -> None:
    engines(monkeypatch)
    why = cibuildwheel.availability()
    assert why is not None
    assert "docker" in why
    assert "apt-get install" in why


def test_prefers_docker_to_podman(monkeypatch: pytest.MonkeyPatch) -> None:
    engines(monkeypatch, "docker", "podman")
    assert cibuildwheel._engine() == "docker"
    engines(monkeypatch, "podman")
    assert cibuildwheel._engine() == "podman"
    assert cibuildwheel.availability() is None


def test_uses_only_the_engine_that_the_user_names(monkeypatch: pytest.MonkeyPatch) -> None:
    engines(monkeypatch, "podman")
    monkeypatch.setenv("CIBW_CONTAINER_ENGINE", "docker; create_args: --memory=8g")
    why = cibuildwheel.availability()
    assert why is not None
    assert "CIBW_CONTAINER_ENGINE" in why


@pytest.fixture
def files(tmp_path: Path) -> cibuildwheel.BuildFiles:
    (tmp_path / "cuda").mkdir()
    (tmp_path / "torch.txt").touch()
    return cibuildwheel.BuildFiles(tmp_path / "cuda", tmp_path / "torch.txt", tmp_path / "a cache")


def test_mounts_the_inputs_and_writes_no_secret(
    files: cibuildwheel.BuildFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.touch()
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    monkeypatch.setenv("UV_INDEX_URL", "https://user:secret@index.example/simple")
    monkeypatch.setattr(cibuildwheel, "_engine", lambda: "podman; create_args: --memory=8g")
    monkeypatch.setattr(cibuildwheel, "_uv_cache", lambda engine, cache: cache / "uv")
    made = cibuildwheel._container(files)
    words = shlex.split(made)
    assert "disable_host_mount: true" in made
    assert "--memory=8g;" in words
    assert f"--mount=type=bind,source={tmp_path}/cuda,target=/opt/cell/cuda,readonly" in words
    assert f"--mount=type=bind,source={tmp_path}/a cache,target=/opt/cell/cache" in words
    assert f"--mount=type=bind,source={bundle},target=/opt/cell/certificates.pem,readonly" in words
    assert "--env=UV_INDEX_URL" in words
    assert "secret" not in made


def build(cell: Cell, files: cibuildwheel.BuildFiles, destination: Path, **changed: Any) -> Path:
    arguments: dict[str, Any] = {"image": IMAGE, "architectures": POLICY, "epoch": 0, "destination": destination}
    places = {"cuda_home": files.cuda_home, "torch_lock": files.torch_lock, "cache": files.cache}
    return cibuildwheel.run(destination.parent, cell, **{**arguments, **places, **changed})


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replace cibuildwheel by a function that writes the named files."""

    def arrange(*names: str) -> None:
        def call(tree: Path, config: Path, output: Path, **_: Any) -> None:
            output.mkdir()
            for name in names:
                (output / name).write_bytes(b"wheel")

        monkeypatch.setattr(cibuildwheel, "_call", call)
        monkeypatch.setattr(cibuildwheel, "_container", lambda files: "podman")

    return arrange


def test_moves_the_wheel_and_removes_everything_else(
    cell: Cell, files: cibuildwheel.BuildFiles, tmp_path: Path, pretend: Callable[..., None]
) -> None:
    pretend(cell.wheel)
    made = build(cell, files, tmp_path / "dist")
    assert made == tmp_path / "dist" / cell.wheel
    assert [path.name for path in (tmp_path / "dist").iterdir()] == [cell.wheel]


@pytest.mark.parametrize("names", [(), ("other.whl",), ("nvdiffrast-0-py3-none-any.whl", "b.whl")])
def test_refuses_other_wheels(
    cell: Cell, files: cibuildwheel.BuildFiles, tmp_path: Path, pretend: Callable[..., None], names: tuple[str, ...]
) -> None:
    pretend(*names)
    with pytest.raises(BuildError, match=cell.wheel.replace("+", r"\+")):
        build(cell, files, tmp_path / "dist")
    assert not list((tmp_path / "dist").iterdir())


def test_a_missing_image_gets_a_hint(
    cell: Cell, files: cibuildwheel.BuildFiles, tmp_path: Path, pretend: Callable[..., None]
) -> None:
    pretend(cell.wheel)
    with pytest.raises(ToolchainError, match="has no image") as caught:
        build(cell, files, tmp_path / "dist", image=None)
    assert caught.value.hint is not None
    assert "--image" in caught.value.hint
    pinned = replace(cell, platform=replace(cell.platform, image=IMAGE))
    assert build(pinned, files, tmp_path / "dist", image=None).is_file()


@pytest.mark.parametrize("missing", ["cuda_home", "torch_lock"])
def test_names_a_missing_input_before_it_runs_anything(
    cell: Cell, files: cibuildwheel.BuildFiles, tmp_path: Path, missing: str
) -> None:
    with pytest.raises(ToolchainError, match="no-such-place"):
        build(cell, files, tmp_path / "dist", **{missing: tmp_path / "no-such-place"})
    assert not (tmp_path / "dist").exists()
