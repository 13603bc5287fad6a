"""Upload: repeated, interrupted and refused uploads end with the wheel on the target or with a clear error."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.errors import PublishError
from scripts.index import ledger
from scripts.publish import promotion, publish, staging, upload
from scripts.support import simple_api
from scripts.support.files import file_sha256
from tests.publishing import BY, UploadServer, proved, upload_server, wheel


@pytest.fixture
def server() -> Iterator[UploadServer]:
    with upload_server() as running:
        yield running


@pytest.fixture
def items(tmp_path: Path) -> list[upload.Item]:
    made = [wheel(tmp_path / "dist", line) for line in ("2.11", "2.12")]
    return [upload.Item(path, file_sha256(path)) for path in made]


def _target(server: UploadServer, **secrets: str) -> upload.Target:
    given = {"TWINE_USERNAME": "publisher", "TWINE_PASSWORD": server.password, **secrets}
    return upload.target(server.url, environment=given)


def _names(items: list[upload.Item]) -> tuple[str, ...]:
    return tuple(item.path.name for item in items)


def test_uploads_each_wheel_once(
    server: UploadServer, items: list[upload.Item], capfd: pytest.CaptureFixture[str]
) -> None:
    present: list[tuple[str, str]] = []
    sent = upload.send(items, _target(server), lambda name, sha256: present.append((name, sha256)))
    assert (sent.uploaded, sent.already) == (_names(items), ())
    assert server.files == {item.path.name: item.path.read_bytes() for item in items}
    assert present == [(item.path.name, item.sha256) for item in items]
    again = upload.send(items, _target(server))
    assert (again.uploaded, again.already) == ((), _names(items))
    assert server.uploads == 2
    shown = "".join(capfd.readouterr())
    assert "twine upload" in shown
    assert server.password not in shown
    assert server.password not in repr(_target(server))


@pytest.mark.parametrize("trouble", [[503], ["cut"], ["lost"], [500, "cut", 502]])
def test_repeats_requests_after_temporary_errors(
    server: UploadServer, items: list[upload.Item], trouble: list[int | str]
) -> None:
    server.broken = list(trouble)
    sent = upload.send(items, _target(server), attempts=4, pause=0.01)
    assert sent.uploaded == _names(items)
    assert set(server.files) == set(_names(items))


def test_resumes_an_interrupted_upload(server: UploadServer, items: list[upload.Item]) -> None:
    server.broken = [200, *[503] * 50]
    with pytest.raises(PublishError, match="1 of 2 wheels are uploaded") as refused:
        upload.send(items, _target(server), attempts=2, pause=0.01)
    assert "run the same command again" in (refused.value.hint or "")
    server.broken = []
    sent = upload.send(items, _target(server))
    assert (sent.uploaded, sent.already) == (_names(items[1:]), _names(items[:1]))


def test_sends_nothing_if_a_name_is_taken(server: UploadServer, items: list[upload.Item]) -> None:
    server.files = {items[1].path.name: b"other"}
    with pytest.raises(PublishError, match="other bytes"):
        upload.send(items, _target(server))
    assert server.uploads == 0


def test_gives_up_without_a_server(items: list[upload.Item]) -> None:
    with upload_server() as gone:
        pass
    with pytest.raises(PublishError, match="gave up after 2 attempts"):
        upload.send(items, _target(gone), attempts=2, pause=0.01)


def test_the_index_of_a_target() -> None:
    assert upload.target("https://example.invalid/legacy/").index == "https://example.invalid/legacy/simple/"
    assert upload.target("private", "https://example.invalid/simple").index == "https://example.invalid/simple/"
    assert upload.target("private", "https://example.invalid/simple").options == ["--repository", "private"]
    assert upload.target("http://localhost:8080").loopback
    assert not upload.target("https://localhost.example.invalid").loopback


def test_sends_credentials_only_to_the_host_of_the_upload(
    server: UploadServer, items: list[upload.Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[str | None] = []

    def files(page: str, *, authorization: str | None = None) -> list[simple_api.File]:
        given.append(authorization)
        return [simple_api.File(item.path.name, "", sha256=item.sha256) for item in items]

    monkeypatch.setattr(simple_api, "files", files)
    secrets = _target(server).environment
    upload.send(items, upload.target(server.url, server.url + "simple", secrets))
    upload.send(items, upload.target(server.url, "https://elsewhere.invalid/simple", secrets))
    assert given[0]
    assert given[0].startswith("Basic ")
    assert given[1] is None


@pytest.mark.parametrize("staged", [True, False])
def test_uploads_from_a_store(
    tmp_path: Path,
    server: UploadServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    staged: bool,
) -> None:
    store, made = tmp_path / "store", wheel(tmp_path / "dist")
    staging.stage(store, [made], by=BY)
    proved(store)
    if not staged:
        promotion.promote(store, waive_gpu="no GPU here", by=BY)
    monkeypatch.setitem(os.environ, "TWINE_USERNAME", "publisher")
    monkeypatch.setitem(os.environ, "TWINE_PASSWORD", server.password)
    options = ["--staged"] if staged else []
    for _ in range(2):
        assert publish.main(["upload", server.url, "--store", str(store), "--by", BY, *options]) == 0
    assert f"{server.url} has 1 wheel of this store" in capsys.readouterr().out
    assert server.files == {made.name: made.read_bytes()}
    events = [event for event in ledger.read(store) if event.what == "uploaded"]
    assert [event.details for event in events] == [
        {"wheel": made.name, "sha256": file_sha256(made), "target": server.url}
    ]
    assert server.password not in (store / "ledger.jsonl").read_text()
