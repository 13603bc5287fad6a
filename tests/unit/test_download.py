"""scripts.support.download: pinned files from a faulty server."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts import console
from scripts.errors import ToolchainError
from scripts.support import download
from scripts.support.download import fetch
from tests.loopback import Server, serve

CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server() -> Iterator[Server]:
    with serve() as running:
        running.files["a/file.bin"] = CONTENT
        yield running


def get(server: Server, folder: Path, *, size: int | None = len(CONTENT), sha256: str = SHA256) -> Path:
    return fetch(server.url + "a/file.bin", sha256=sha256, size=size, folder=folder, pause=0)


@pytest.mark.parametrize("size", [len(CONTENT), None])
def test_downloads_a_file_once(server: Server, tmp_path: Path, size: int | None) -> None:
    first = get(server, tmp_path, size=size)
    assert first.read_bytes() == CONTENT
    assert first.name == "file.bin"
    assert get(server, tmp_path, size=size) == first
    assert len(server.requests) == 1


@pytest.mark.parametrize("size", [len(CONTENT), None])
def test_resumes_after_a_broken_connection(server: Server, tmp_path: Path, size: int | None) -> None:
    server.cut["a/file.bin"] = 4000
    assert get(server, tmp_path, size=size).read_bytes() == CONTENT
    assert server.requests == [("a/file.bin", None), ("a/file.bin", "bytes=4000-")]


def test_resumes_in_a_later_run(server: Server, tmp_path: Path) -> None:
    (tmp_path / f"{SHA256}.part").write_bytes(CONTENT[:1000])
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.requests == [("a/file.bin", "bytes=1000-")]


def test_starts_again_if_the_server_does_not_support_ranges(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    (tmp_path / f"{SHA256}.part").write_bytes(CONTENT[:1000])
    assert get(server, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("left", [b"of another file", CONTENT[1:] + b"?", CONTENT + b"more"])
@pytest.mark.parametrize("size", [len(CONTENT), None])
def test_replaces_a_wrong_part_of_an_earlier_run(server: Server, tmp_path: Path, left: bytes, size: int | None) -> None:
    (tmp_path / f"{SHA256}.part").write_bytes(left)
    assert get(server, tmp_path, size=size).read_bytes() == CONTENT


def test_retries_if_the_server_is_busy(server: Server, tmp_path: Path) -> None:
    server.busy["a/file.bin"] = 3
    assert get(server, tmp_path).read_bytes() == CONTENT


def test_fails_if_the_server_stays_busy(server: Server, tmp_path: Path) -> None:
    server.busy["a/file.bin"] = 99
    with pytest.raises(ToolchainError, match="tried 4 times: the server answers 503"):
        get(server, tmp_path)


def test_does_not_retry_a_missing_file(server: Server, tmp_path: Path) -> None:
    server.status["a/file.bin"] = 404
    with pytest.raises(ToolchainError, match="answers 404"):
        get(server, tmp_path)
    assert len(server.requests) == 1


def test_fails_if_the_server_cannot_be_reached(tmp_path: Path) -> None:
    with serve() as gone:
        pass
    with pytest.raises(ToolchainError, match="could not be downloaded, tried 4 times: URLError"):
        get(gone, tmp_path)


def test_rejects_a_file_with_a_wrong_sha256(server: Server, tmp_path: Path) -> None:
    server.files["a/file.bin"] = CONTENT[:-1] + b"!"
    with pytest.raises(ToolchainError, match=f"but {SHA256} is pinned"):
        get(server, tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.suffix != ".lock"]


def test_rejects_a_file_that_is_too_large(server: Server, tmp_path: Path) -> None:
    server.files["a/file.bin"] = CONTENT * 3
    with pytest.raises(ToolchainError, match=f"larger than the {len(CONTENT)} bytes"):
        get(server, tmp_path)
    assert not list(tmp_path.glob("*.part"))


def test_rejects_a_file_that_is_too_small(server: Server, tmp_path: Path) -> None:
    server.files["a/file.bin"] = CONTENT[:5000]
    with pytest.raises(ToolchainError, match="could not be downloaded"):
        get(server, tmp_path)
    assert not (tmp_path / SHA256).exists()


def test_rejects_urls_that_are_not_http(tmp_path: Path) -> None:
    local = tmp_path / "file.bin"
    local.write_bytes(CONTENT)
    with pytest.raises(ToolchainError, match="is not an http or https URL"):
        fetch(local.as_uri(), sha256=SHA256, size=len(CONTENT), folder=tmp_path)


def test_a_long_download_reports_its_progress(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "_SECONDS_BETWEEN_LINES", 0)
    monkeypatch.setattr(download, "_CHUNK", 5000)
    (tmp_path / f"{SHA256}.part").write_bytes(CONTENT[:1000])
    get(server, tmp_path)
    lines = capsys.readouterr().err.splitlines()
    assert lines[1:] == ["   file.bin: 6 kB of 10 kB", "   file.bin: 10 kB of 10 kB"]
