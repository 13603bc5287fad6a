"""scripts.locks: names of locks, their inputs, and `--check`, without network."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.errors import CommandError, ToolchainError, UsageError
from scripts.locks import generate, lockfile
from scripts.matrix import torch_builds
from scripts.model import ROOT

HASH = f"--hash=sha256:{'0' * 64}"
Root = Path


@pytest.fixture
def root(tmp_path: Path) -> Root:
    """Return a copy of the repository's requirements that tests can change."""
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    return tmp_path


def lock(root: Root, name: str) -> generate.RequirementsLock:
    [found] = generate.select([name], root)
    assert isinstance(found, generate.RequirementsLock)
    return found


def spoil(file: Path, pattern: str, replacement: str) -> None:
    text = file.read_text()
    changed = re.sub(pattern, replacement, text, count=1, flags=re.MULTILINE)
    assert changed != text
    file.write_text(changed)


def test_the_committed_locks_are_valid() -> None:
    assert generate.check(generate.known_locks().values()) == 0


def test_the_committed_locks_name_no_index() -> None:
    text = "".join(path.read_text() for path in (ROOT / "requirements").rglob("*.txt"))
    assert "://" not in text


@pytest.mark.parametrize("name", ["pipeline", "cu130", "cu132", "2.14.1-cu130", "2.15.0-cu132", "2.6.0-cu124"])
def test_each_lock_is_valid(root: Root, name: str) -> None:
    assert generate.problems(lock(root, name)) == []


@pytest.mark.parametrize(
    ("name", "pattern", "replacement", "message"),
    [
        ("pipeline", r"^auditwheel==(.*\n)(    .*\n)+", "", r"auditwheel is not in the lock"),
        ("pipeline", r"^delvewheel==\S+", "delvewheel==1.2.0", r"delvewheel>=1\.13, but the lock has 1\.2\.0"),
        ("pipeline", r"^attrs==(.*\n)(    .*\n)+", "attrs==1.0\n", r"pipeline\.txt:\d+: attrs==1\.0 has no sha256"),
        ("pipeline", r"^attrs==", "attrs>=", r"pipeline\.txt:\d+: attrs>=\S+ is not pinned to one version"),
        ("pipeline", r"^attrs==", "attrs = ", r"pipeline\.txt:\d+: .* is not a requirement"),
        ("cu130", r"^nvidia-nvvm==\S+", "nvidia-nvvm==13.2.86", r"but the lock has 13\.2\.86"),
        ("cu130", r"^nvidia-nvvm==(.*\n)(    .*\n)+", "", r"nvidia-nvvm==13\.0\.\* is not in the lock"),
        ("2.14.1-cu130", r"^torch==2\.14\.1", "torch==2.14.0", r"torch==2\.14\.1, but the lock has 2\.14\.0"),
        ("2.13.0-cu130", r"^torch==2\.13\.0", "torch==2.13.0+cpu", r"torch 2\.13\.0\+cpu is a local build"),
        ("2.14.1-cu130", r"^(nvidia-cuda-runtime)==\S+", r"\1==13.2.1", r"13\.2\.1 is not of CUDA 13\.0"),
        ("2.6.0-cu124", r"^setuptools==\S+", "setuptools==82.0.0", r"setuptools<82, but the lock has 82\.0\.0"),
    ],
)
def test_reports_a_lock_that_differs_from_its_inputs(
    root: Root, name: str, pattern: str, replacement: str, message: str
) -> None:
    asked = lock(root, name)
    spoil(asked.output, pattern, replacement)
    assert any(re.search(message, line) for line in generate.problems(asked)), generate.problems(asked)


def test_reports_a_requirement_that_the_lock_lacks(root: Root) -> None:
    with (root / "requirements" / "tests.in").open("a") as file:
        file.write("hypothetical>=3\n")
    assert any("tests.in:" in line and "hypothetical" in line for line in generate.problems(lock(root, "lint")))


def test_reports_a_torch_without_cuda_packages(root: Root) -> None:
    """A CPU build has the right version number but requires no CUDA package."""
    asked = lock(root, "2.14.1-cu130")
    spoil(asked.output, r"^nvidia-cuda-runtime==(.*\n)(    .*\n)+", "")
    assert generate.problems(asked) == ["2.14.1-cu130: no nvidia-cuda-runtime, so this is not a CUDA 13.0 build"]


def test_a_missing_lock_fails_unless_its_files_come_from_another_server(
    root: Root, capsys: pytest.CaptureFixture[str]
) -> None:
    lock(root, "cu130").output.unlink()
    assert generate.check(generate.select(["cu130", "cu124", "2.9.1-cu130"], root)) == 1
    output = capsys.readouterr().out
    assert "cu130.txt is missing" in output
    assert "cu124-redist: unlocked" in output
    assert "2.9.1-cu130: unlocked" in output


def test_selects_locks_by_name() -> None:
    assert [found.name for found in generate.select(["cu130", "cu124", "cu130-redist"])] == [
        "cu130",
        "cu124-redist",
        "cu130-redist",
    ]
    assert {"pipeline", "tests", "lint", "cu132", "2.14.1-cu130"} <= {found.name for found in generate.select([])}
    with pytest.raises(UsageError, match="no lock cu999"):
        generate.select(["cu999"])


def test_a_torch_can_come_from_pytorchs_channel(root: Root) -> None:
    found = lock(root, "2.9.1-cu130")
    assert found.lines == ("torch==2.9.1+cu130",)
    assert found.channel == torch_builds.PYTORCH_CHANNEL + "cu130"


def test_torch_for_windows_has_the_options_of_torch_for_linux(root: Root) -> None:
    found = lock(root, "2.6.0-cu124-win_amd64")
    assert found.lines == ("torch==2.6.0+cu124", "setuptools<82")
    assert found.channel == torch_builds.PYTORCH_CHANNEL + "cu124"
    assert found.output.name == "2.6.0-cu124-win_amd64.txt"


def test_a_torch_that_is_not_listed_gets_default_options(root: Root) -> None:
    found = lock(root, "2.16.0-cu132")
    assert (found.lines, found.parts, found.cuda) == (("torch==2.16.0",), ("nvidia-cuda-runtime",), "13.2")


@pytest.fixture
def uv_writes(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[list[str]]]:
    """Replace uv by a function that writes a given text to its output file and records its arguments."""

    def writes(text: str) -> list[list[str]]:
        calls: list[list[str]] = []

        def compiled(command: list[str | os.PathLike[str]], **options: object) -> str:
            arguments = [os.fspath(part) for part in command]
            output = Path(arguments[arguments.index("--output-file") + 1])
            calls.append([*arguments, *(["kept"] if output.exists() else [])])
            output.write_text(text)
            return ""

        monkeypatch.setattr(generate, "call", compiled)
        return calls

    return writes


WHOLE = "".join(f"{name}==1.0 {HASH}\n" for name in ("build", "ninja", "numpy", "setuptools", "wheel"))


def test_make_writes_the_lock(root: Root, uv_writes: Callable[[str], list[list[str]]]) -> None:
    text = WHOLE + f"torch==2.14.1 {HASH}\nnvidia-cuda-runtime==13.0.96 {HASH}\n"
    calls = uv_writes(text)
    asked = lock(root, "2.14.1-cu130")
    generate.make(asked)
    assert asked.output.read_text() == text
    assert {"--universal", "--generate-hashes", "--no-emit-index-url", "kept"} <= set(calls[0])
    generate.make(asked, upgrade=True)
    assert "kept" not in calls[1]
    assert not list(asked.output.parent.glob(".lock-*"))


def test_make_names_the_channel_in_the_lock(root: Root, uv_writes: Callable[[str], list[list[str]]]) -> None:
    calls = uv_writes(WHOLE + f"torch==2.9.1+cu130 {HASH}\n")
    asked = lock(root, "2.9.1-cu130")
    generate.make(asked)
    assert asked.output.read_text().splitlines()[0] == f"--extra-index-url {torch_builds.PYTORCH_CHANNEL}cu130"
    assert torch_builds.PYTORCH_CHANNEL + "cu130" in calls[0]
    assert generate.problems(asked) == []


def test_a_wrong_result_keeps_the_old_lock(root: Root, uv_writes: Callable[[str], list[list[str]]]) -> None:
    asked = lock(root, "2.13.0-cu130")
    before = asked.output.read_bytes()
    uv_writes(WHOLE + f"torch==2.13.0+cpu {HASH}\n")
    with pytest.raises(ToolchainError, match="a local build"):
        generate.make(asked)
    assert asked.output.read_bytes() == before


def test_a_failure_of_uv_keeps_the_old_lock_and_continues_with_the_next(
    root: Root, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> str:
        raise CommandError("exit status 2", returncode=2, output="no route to the index")

    monkeypatch.setattr(generate, "call", fail)
    both = [lock(root, "cu130"), lock(root, "cu132")]
    before = both[0].output.read_bytes()
    monkeypatch.setattr(generate, "select", lambda names: both)
    monkeypatch.setattr("sys.argv", ["locks"])
    with pytest.raises(ToolchainError, match="2 of 2 locks could not be written"):
        generate.main()
    assert capsys.readouterr().out.count("no route to the index") == 2
    assert both[0].output.read_bytes() == before


def test_reads_the_lines_of_a_lock(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text(
        f"# a comment\n--extra-index-url https://example.org/x\n\nFoo_Bar==1.0 ; python_version < '3.12' \\\n"
        f"    {HASH} \\\n    {HASH.replace('0', '1')}\nbaz==2  {HASH}  # via\n"
    )
    first, second = lockfile.read_lock(file)
    assert (first.name, first.version, first.hashes) == ("foo-bar", "1.0", ("0" * 64, "1" * 64))
    assert first.marker == 'python_version < "3.12"'
    assert (second.name, second.marker) == ("baz", None)


@pytest.mark.parametrize("line", ["--index-url https://example.org", "-e .", "foo @ https://example.org/foo.whl"])
def test_rejects_lines_that_are_not_pins(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.txt").write_text(f"foo==1 {HASH}\n{line}\n")
    with pytest.raises(ToolchainError, match=r"a\.txt:2"):
        lockfile.read_lock(tmp_path / "a.txt")


def test_a_torch_that_is_not_listed_gets_its_options_from_the_table(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    builds = torch_builds.load()
    channel = torch_builds.Channel({"2.16.0": {"linux_x86_64": ("3.12", "3.13")}}, observed="2027-01-01")
    plain = {**builds.pypi, "2.16.1": torch_builds.Plain("13.3.1", ("3.11", "3.12"))}
    newer = torch_builds.TorchTable({**builds.channels, "cu133": channel}, plain, "2027-01-01")
    monkeypatch.setattr(torch_builds, "load", lambda: newer)
    from_channel, from_index = lock(root, "2.16.0-cu133"), lock(root, "2.16.1-cu133")
    assert (from_channel.channel, from_channel.python) == ("https://download.pytorch.org/whl/cu133", "3.12")
    assert (from_index.channel, from_index.python) == (None, "3.11")
    toolkit = lock(root, "cu133")
    assert toolkit.output == root / "requirements" / "toolkits" / "cu133.txt"
    assert "nvidia-cuda-nvcc==13.3.*" in toolkit.lines
    with pytest.raises(UsageError):
        lock(root, "cu121")


def test_an_existing_lock_that_is_not_listed_is_checked(root: Root) -> None:
    folder = root / "requirements"
    shutil.copy(folder / "toolkits" / "cu132.txt", folder / "toolkits" / "cu133.txt")
    shutil.copy(folder / "torch" / "2.14.1-cu130.txt", folder / "torch" / "2.14.0-cu130.txt")
    known = generate.known_locks(root)
    assert "nvidia-cuda-nvcc==13.3.*" in str(known["cu133"])
    assert any("torch==2.14.0" in message for message in generate.problems(known["2.14.0-cu130"]))
    assert any("13.3" in message for message in generate.problems(known["cu133"]))
