"""Tests of scripts.toolchain.providers and scripts.support.environments; they use no network."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.errors import CommandError, ToolchainError, UsageError
from scripts.model import Bounds, Cell, GitPin, Platform, Provider, Release, Toolkit, TorchBuild
from scripts.support import download_sizes, environments, process
from scripts.toolchain import providers

MakeHome = Callable[..., Path]
HASH = f"--hash=sha256:{'0' * 64}"


def toolkit(*providers: Provider, cuda: str = "12.4") -> Toolkit:
    return Toolkit(cuda, providers, ("9.0",), "9.0", Bounds("6"), Bounds())


SYSTEM = Provider("system")
UNLOCKED = Provider("redist", "requirements/toolkits/cu124-never.json")


def write_nvcc(path: Path, version: str, top: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    release = version.rpartition(".")[0]
    path.write_text(
        "#!/bin/sh\n"
        f'[ "$1" = --dryrun ] && echo "#$ TOP={top}/bin/.." && exit\n'
        f'echo "Cuda compilation tools, release {release}, V{version}"\n'
    )
    path.chmod(0o755)


@pytest.fixture
def make_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeHome:
    """Remove CUDA from the environment and return a function that creates a toolkit."""
    for name in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "/bin")
    monkeypatch.setenv("NVDIFFRAST_WHEELS_CACHE", str(tmp_path / "cache"))

    def make(version: str = "12.4.131", header: int | None = 12040, folder: str = "cuda") -> Path:
        home = tmp_path / folder
        write_nvcc(home / "bin" / "nvcc", version, home)
        if header is not None:
            (home / "include").mkdir(exist_ok=True)
            (home / "include" / "cuda_runtime_api.h").write_text(f"#define CUDART_VERSION  {header}\n")
        return home

    return make


@pytest.mark.parametrize("variable", ["CUDA_HOME", "CUDA_PATH"])
def test_uses_the_toolkit_of_the_environment_variable(
    make_home: MakeHome, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, str(make_home()))
    assert providers.availability(toolkit(SYSTEM)) is None
    home = providers.provide(toolkit(SYSTEM))
    assert (home.path, home.version, home.provider) == (make_home(), "12.4.131", "system")


def test_finds_the_toolkit_of_an_nvcc_script_on_path(
    make_home: MakeHome, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home = make_home()
    write_nvcc(tmp_path / "elsewhere" / "bin" / "nvcc", "12.4.131", home)
    monkeypatch.setenv("PATH", str(tmp_path / "elsewhere" / "bin"), prepend=os.pathsep)
    assert providers.provide(toolkit(SYSTEM)).path == home


def test_cuda_home_takes_precedence_over_nvcc_on_path(make_home: MakeHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unsuitable CUDA_HOME is an error; the nvcc on PATH must not be used instead."""
    monkeypatch.setenv("PATH", str(make_home() / "bin"), prepend=os.pathsep)
    monkeypatch.setenv("CUDA_HOME", str(make_home("11.8.89", 11080, "old")))
    with pytest.raises(ToolchainError, match=r"old is CUDA 11\.8, not 12\.4"):
        providers.provide(toolkit(SYSTEM))


@pytest.mark.parametrize(
    ("version", "header", "message"),
    [
        ("12.6.85", 12060, r"is CUDA 12\.6, not 12\.4"),
        ("13.0.88", 13000, r"is CUDA 13\.0, not 12\.4"),
        ("12.4.131", None, r"has no include/cuda_runtime_api\.h"),
        ("12.4.131", 12060, r"has the runtime headers of CUDA 12\.6, not 12\.4"),
        ("12.4", 12040, "prints no version"),
    ],
)
def test_rejects_an_unsuitable_system_toolkit(
    make_home: MakeHome, monkeypatch: pytest.MonkeyPatch, version: str, header: int | None, message: str
) -> None:
    monkeypatch.setenv("CUDA_HOME", str(make_home(version, header)))
    assert providers.availability(toolkit(SYSTEM)) is not None
    with pytest.raises(ToolchainError, match=message):
        providers.provide(toolkit(SYSTEM))


def test_rejects_a_system_toolkit_without_nvcc(
    make_home: MakeHome, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert "has no working nvcc" in str(providers.availability(toolkit(SYSTEM)))


def test_error_lists_the_reason_for_each_provider(make_home: MakeHome) -> None:
    assert providers.availability(toolkit(UNLOCKED, SYSTEM)) == (
        "unlocked: run `nox -s lock -- cu124`; the system has no CUDA 12.4 (CUDA_HOME, CUDA_PATH, nvcc on PATH)"
    )
    with pytest.raises(ToolchainError, match=r"redist: unlocked: .*; system: the system has no CUDA") as raised:
        providers.provide(toolkit(UNLOCKED, SYSTEM))
    assert raised.value.hint == "run `nox -s lock -- cu124`, or set CUDA_HOME to a CUDA 12.4 toolkit"


def test_tries_providers_in_order(make_home: MakeHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_HOME", str(make_home()))
    assert providers.availability(toolkit(UNLOCKED, SYSTEM)) is None
    assert providers.provide(toolkit(UNLOCKED, SYSTEM)).provider == "system"
    with pytest.raises(ToolchainError, match="redist: unlocked"):
        providers.provide(toolkit(UNLOCKED, SYSTEM), provider="redist")


def test_rejects_a_provider_that_the_toolkit_does_not_have(make_home: MakeHome) -> None:
    with pytest.raises(UsageError, match="cu124 has no provider pypi") as raised:
        providers.provide(toolkit(UNLOCKED, SYSTEM), provider="pypi")
    assert raised.value.hint == "choose from: redist, system"


def test_does_not_skip_a_provider_that_fails(
    make_home: MakeHome, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A wrong hash is an error; the toolkit of the system must not be used instead."""
    lock = tmp_path / "cu124.txt"
    lock.write_text(f"nvidia-cuda-nvcc==12.4.1 {HASH}\n")
    monkeypatch.setenv("CUDA_HOME", str(make_home()))

    def fail(*_: object, **__: object) -> str:
        raise CommandError("hash mismatch", returncode=1)

    monkeypatch.setattr(providers, "call", fail)
    with pytest.raises(CommandError, match="hash mismatch"):
        providers.provide(toolkit(Provider("pypi", str(lock)), SYSTEM))
    assert not list((tmp_path / "cache" / "toolkits").iterdir())


@pytest.fixture
def simulated_uv(
    make_home: MakeHome, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> tuple[Toolkit, list[list[str]]]:
    """Return a toolkit from the package index and a list that records the calls of a simulated uv."""
    lock = tmp_path / "cu130.txt"
    lock.write_text(f"nvidia-cuda-nvcc==13.0.88 {HASH}\nnvidia-cuda-runtime==13.0.96 {HASH}\n")
    calls: list[list[str]] = []

    def run_uv(command: list[str | os.PathLike[str]], **options: object) -> str:
        arguments = [os.fspath(part) for part in command]
        if "install" not in arguments:
            return process.call(command, echo=False, quiet=True)
        calls.append(arguments)
        home = Path(arguments[arguments.index("--target") + 1], "nvidia", "cu13")
        write_nvcc(home / "bin" / "nvcc", "13.0.88", home)
        (home / "lib").mkdir()
        (home / "lib" / "libcudart.so.13").write_text("runtime")
        (home / "include").mkdir()
        (home / "include" / "cuda_runtime_api.h").write_text("#define CUDART_VERSION 13000\n")
        return ""

    monkeypatch.setattr(providers, "call", run_uv)
    return toolkit(Provider("pypi", str(lock)), cuda="13.0"), calls


def test_installs_the_toolkit_from_pypi_once(simulated_uv: tuple[Toolkit, list[list[str]]], tmp_path: Path) -> None:
    requested, calls = simulated_uv
    home = providers.provide(requested)
    assert home.path.is_relative_to(tmp_path / "cache" / "toolkits")
    assert home.components == {"nvidia-cuda-nvcc": "13.0.88", "nvidia-cuda-runtime": "13.0.96"}
    assert (home.path / "lib64" / "libcudart.so").read_text() == "runtime"
    assert {"--require-hashes", "--no-deps"} <= set(calls[0])
    assert providers.provide(requested) == home
    assert len(calls) == 1


def test_installs_again_after_the_lock_changed(simulated_uv: tuple[Toolkit, list[list[str]]], tmp_path: Path) -> None:
    requested, calls = simulated_uv
    first = providers.provide(requested)
    (tmp_path / "cu130.txt").write_text(f"nvidia-cuda-nvcc==13.0.89 {HASH}\n")
    second = providers.provide(requested)
    assert first.path != second.path
    assert first.lock_sha256 != second.lock_sha256
    assert len(calls) == 2


def test_caches_nothing_if_pypi_has_another_version(
    simulated_uv: tuple[Toolkit, list[list[str]]], tmp_path: Path
) -> None:
    requested = toolkit(*simulated_uv[0].providers, cuda="13.2")
    with pytest.raises(ToolchainError, match=r"is CUDA 13\.0, not 13\.2"):
        providers.provide(requested)
    assert not list((tmp_path / "cache" / "toolkits").iterdir())


def test_reports_a_missing_compiler(make_home: MakeHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    assert "no C++ compiler" in str(providers.compiler_availability(toolkit(SYSTEM)))


def cell(torch: str, platform: str) -> Cell:
    return Cell(
        Release("0.4.0", "0.4", GitPin("u", "t", "c", "t")),
        "3.12",
        toolkit(SYSTEM, cuda="13.0"),
        TorchBuild(torch.rpartition(".")[0], torch, "pypi"),
        Platform(platform, platform),
    )


def test_returns_the_torch_lock_of_a_linux_cell() -> None:
    path = environments.torch_lock(cell("2.14.1", "linux_x86_64"))
    assert path.name == "2.14.1-cu130.txt"
    assert path.exists()


def test_rejects_the_torch_lock_of_another_platform() -> None:
    with pytest.raises(ToolchainError, match=r"torch 2\.14\.1 for cu130 on win_amd64 is unlocked") as raised:
        environments.torch_lock(cell("2.14.1", "win_amd64"))
    assert raised.value.hint == "run `nox -s lock -- 2.14.1-cu130-win_amd64`"


def test_creates_an_environment_once(tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("# nothing\n")
    python = Path(sys.executable)
    first = environments.create(python, [empty], name="example", cache=tmp_path)
    (first / "kept").touch()
    assert environments.create(python, [empty], name="example", cache=tmp_path) == first
    assert (first / "kept").exists()
    empty.write_text("# nothing else\n")
    assert environments.create(python, [empty], name="example", cache=tmp_path) != first


@pytest.mark.parametrize("broken", ["complete.json", "bin/python"])
def test_creates_an_incomplete_environment_again(tmp_path: Path, broken: str) -> None:
    empty = tmp_path / "empty.txt"
    empty.touch()
    made = environments.create(Path(sys.executable), [empty], cache=tmp_path)
    (made / broken).unlink()
    (made / "left").touch()
    assert environments.create(Path(sys.executable), [empty], cache=tmp_path) == made
    assert not (made / "left").exists()
    assert environments.interpreter(made).exists()


def test_rejects_an_environment_without_hashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download_sizes, "expected", lambda *_: ())
    bare = tmp_path / "bare.txt"
    bare.write_text("packaging==26.0\n")
    with pytest.raises(CommandError):
        environments.create(Path(sys.executable), [bare], cache=tmp_path)
    assert not list((tmp_path / "environments").glob("*/complete.json"))


def test_rejects_an_environment_with_a_missing_lock(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match=r"gone\.txt is missing") as raised:
        environments.create(Path(sys.executable), [tmp_path / "gone.txt"], cache=tmp_path)
    assert raised.value.hint == "run `nox -s lock -- gone`"


@pytest.mark.parametrize(
    ("line", "expected"),
    [("cuda: str | None = '13.0'", "13.0"), ("cuda = '12.8'", "12.8"), ("cuda: Optional[str] = None", "")],
)
@pytest.mark.parametrize("folder", ["lib/python3.12/site-packages", "Lib/site-packages"])
def test_reads_the_cuda_version_of_torch(tmp_path: Path, line: str, expected: str, folder: str) -> None:
    package = tmp_path / folder / "torch"
    package.mkdir(parents=True)
    (package / "version.py").write_text(f"__version__ = '2.14.1+cu130'\n{line}\nhip = None\n")
    assert environments.torch_cuda(tmp_path) == expected


def test_rejects_an_environment_without_torch(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match="contains no torch"):
        environments.torch_cuda(tmp_path)
