"""scripts.support.download_sizes: sizes reported before a download, and its progress."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts import console
from scripts.errors import CommandError
from scripts.support import download_sizes, environments, process
from scripts.support.download_sizes import Download
from tests.loopback import Server, serve

_LOCK = """\
lock-version = "1.0"
created-by = "uv"

[[packages]]
name = "torch"
version = "2.14.1"
wheels = [{{ url = "{url}torch-2.14.1-py3-none-any.whl", size = 526000000, hashes = {{ sha256 = "{sha256}" }} }}]

[[packages]]
name = "numpy"
version = "2.0"
wheels = [{{ url = "{url}numpy-2.0-py3-none-any.whl", hashes = {{ sha256 = "{sha256}" }} }}]

[[packages]]
name = "gone"
version = "1.0"
wheels = [{{ url = "{url}gone-1.0-py3-none-any.whl", hashes = {{ sha256 = "{sha256}" }} }}]
"""


@pytest.fixture
def server() -> Iterator[Server]:
    with serve() as running:
        running.files["numpy-2.0-py3-none-any.whl"] = b"x" * 2000
        yield running


def test_sizes_come_from_the_index_or_from_the_server(server: Server, tmp_path: Path) -> None:
    lock = tmp_path / "pylock.toml"
    lock.write_text(_LOCK.format(url=server.url, sha256="0" * 64), encoding="utf-8")
    found = download_sizes.sizes(lock)
    assert found == (Download("torch", 526_000_000), Download("numpy", 2000), Download("gone", None))
    assert sorted(path for path, _ in server.requests) == ["gone-1.0-py3-none-any.whl", "numpy-2.0-py3-none-any.whl"]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (
            [Download("numpy", 16_000_000), Download("torch", 526_000_000), Download("cublas", 1_900_000_000)],
            "up to 2.4 GB to download, 3 packages; largest: cublas 1.9 GB, torch 526 MB",
        ),
        ([Download("numpy", 16_000_000)], "up to 16 MB to download, 1 package"),
        ([Download("a", 1_000_000), Download("b", None)], "up to 1 MB to download, 2 packages, 1 of unknown size"),
        ([Download("a", None), Download("b", None)], "2 packages to download, sizes unknown"),
    ],
)
def test_describes_downloads(found: list[Download], expected: str) -> None:
    assert download_sizes.describe(found) == expected


def test_reports_the_size_of_an_environment_before_installing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(download_sizes, "expected", lambda *_: (Download("torch", 526_000_000),))
    bare = tmp_path / "bare.txt"
    bare.write_text("packaging==26.0\n")
    with pytest.raises(CommandError):
        environments.create(Path(sys.executable), [bare], cache=tmp_path)
    output = capsys.readouterr().err
    assert "up to 526 MB to download, 1 package; largest: torch 526 MB" in output
    assert output.index("526 MB") < output.index(" pip install ")


def test_an_unknown_size_is_not_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object) -> None:
        raise CommandError("no index", returncode=1)

    monkeypatch.setattr(download_sizes, "expected", fails)
    download_sizes.announce("CUDA 13.0", Path(sys.executable), [tmp_path / "a.txt"])
    assert "CUDA 13.0: the size of the download is unknown" in capsys.readouterr().err


def test_reports_the_same_download_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(download_sizes, "expected", lambda *_: (Download("torch", 526_000_000),))
    for _ in range(2):
        download_sizes.announce("torch", Path(sys.executable), [tmp_path / "a.txt"])
    assert capsys.readouterr().err.count("526 MB to download") == 1


# The output of uv without a terminal.
_UV = """\
Resolved 2 packages in 163ms
Downloading torch (501.3MiB)
 Downloaded torch
Prepared 2 packages in 590ms
 + numpy==2.2.6
"""


def test_a_log_contains_a_line_for_each_large_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"
    log.write_text(_UV)
    process.call([sys.executable, "-c", f"print(open({str(log)!r}).read(), end='')"], show=download_sizes.is_progress)
    shown = capsys.readouterr().err.splitlines()[1:]
    assert shown == ["Downloading torch (501.3MiB)", " Downloaded torch"]


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (850_000, "850 kB"),
        (999_600, "1 MB"),
        (526_400_000, "526 MB"),
        (999_900_000, "1.0 GB"),
        (2_440_000_000, "2.4 GB"),
    ],
)
def test_formats_sizes(number: int, expected: str) -> None:
    assert console.size(number) == expected


def test_a_log_reports_the_progress(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = iter(range(0, 600, 6))
    monkeypatch.setattr("time.monotonic", lambda: next(now))
    with console.transfer("nvcc.tar.xz", 2_000_000_000, 500_000_000) as arrived:
        for _ in range(4):
            arrived(100_000_000)
    assert capsys.readouterr().err.splitlines() == [
        "   nvcc.tar.xz: 700 MB of 2.0 GB",
        "   nvcc.tar.xz: 900 MB of 2.0 GB",
    ]


class _Terminal:
    """A terminal for standard error that discards its output."""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass


@pytest.mark.parametrize("terminal", [False, True])
def test_a_command_draws_its_progress_on_the_terminal(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", _Terminal())
    script = "import sys; print('result'); print('progress', file=sys.stderr)"
    output = process.call([sys.executable, "-c", script], quiet=True, terminal=terminal)
    assert ("progress" in output, "progress" in capfd.readouterr().err) == (not terminal, terminal)
    assert "result" in output
