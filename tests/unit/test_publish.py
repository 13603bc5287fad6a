"""Staging, promotion, yanking, status: their effects, their ledger entries, and repeated commands."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.errors import CatalogError, PublishError
from scripts.gpu_gate import record as gpu
from scripts.index import ledger, site_files, writer
from scripts.index.catalog import Catalog
from scripts.index.export import export
from scripts.index.store import Store, digest
from scripts.publish import promotion, publish, staging, status, yanking
from scripts.support.files import file_sha256
from scripts.wheel import audit_record
from tests.publishing import BY, SHEET, proved, save_gpu_record, tree, wheel
from tests.unit.wheel_factory import CELL


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def first(tmp_path: Path) -> Path:
    return wheel(tmp_path / "dist")


def _promote(store: Path, *wheels: Path, reason: str | None = "no GPU here") -> promotion.Promoted:
    staging.stage(store, wheels, by=BY)
    proved(store)
    return promotion.promote(store, waive_gpu=reason, by=BY)


def _whats(store: Path) -> list[str]:
    return [event.what for event in ledger.read(store)]


def test_stage(store: Path, first: Path) -> None:
    done = staging.stage(store, [first], by=BY)
    sha256 = file_sha256(first)
    assert done.added == (first.name,)
    entry = Store(store).catalog("staged").named(first.name)
    assert entry
    assert (entry.sha256, entry.size, entry.gpu, entry.partial) == (sha256, first.stat().st_size, "untested", False)
    assert (entry.cell, entry.release, entry.cuda, entry.torch) == (CELL.id, "0.3.4", "cu130", "2.11")
    assert (entry.python, entry.platform, entry.sass, entry.ptx) == (
        CELL.python,
        "linux_x86_64",
        ("8.0", "9.0"),
        ("9.0",),
    )
    assert entry.requires_python == ">=3.9"
    assert (store / "pool" / sha256 / first.name).read_bytes() == first.read_bytes()
    assert f"torch=={CELL.torch.line}.*" in (store / "pool" / sha256 / f"{first.name}.metadata").read_text()
    assert audit_record.find(sha256, store) == audit_record.find(sha256, first.parent)
    assert digest(Store(store).catalog("staged")) == done.catalog
    assert not (store / "current").exists()
    (event,) = ledger.read(store)
    assert event.says("staged", wheel=first.name, sha256=sha256)
    assert event.by == BY
    assert event.commit
    assert len(event.commit.removesuffix("-dirty")) == 40


def test_staging_again_changes_nothing(store: Path, first: Path) -> None:
    staging.stage(store, [first, first], by=BY)
    before = tree(store)
    done = staging.stage(store, [first], by=BY)
    assert (done.added, done.already) == ((), (first.name,))
    assert tree(store) == before


def test_reads_records_in_another_folder(store: Path, first: Path, tmp_path: Path) -> None:
    (first.parent / "records").rename(tmp_path / "records")
    staging.stage(store, [first], tmp_path, by=BY)
    assert audit_record.find(file_sha256(first), store)


def _stated(wheel: Path) -> Path:
    """Write a provenance of the wheel and its hash into the record, and return its path."""
    sha256 = file_sha256(wheel)
    path = audit_record.save_statement(sha256, "provenance", b"made of this", wheel.parent)
    record = audit_record.find(sha256, wheel.parent)
    assert record
    audit_record.save(audit_record.with_evidence(record, wheel.parent), wheel.parent)
    return path


def test_stages_the_files_that_the_record_lists(store: Path, first: Path) -> None:
    path = _stated(first)
    staging.stage(store, [first], by=BY)
    assert (store / "records" / path.name).read_bytes() == b"made of this"


@pytest.mark.parametrize("change", [Path.unlink, lambda path: path.write_bytes(b"made of that")], ids=["gone", "other"])
def test_refuses_a_wheel_without_the_files_that_its_record_lists(
    store: Path, first: Path, change: Callable[[Path], object]
) -> None:
    change(_stated(first))
    with pytest.raises(CatalogError, match="not the provenance that the wheel's record lists"):
        staging.stage(store, [first], by=BY)
    assert not (store / "staged").exists()
    assert not (store / "records").exists()


def test_promote_with_a_waiver(store: Path, first: Path) -> None:
    done = _promote(store, first)
    assert (done.new, done.waived, done.wheels) == ((first.name,), (first.name,), 1)
    place = Store(store)
    assert place.catalog("current") == place.catalog("staged")
    entry = place.catalog("current").entries[0]
    assert (entry.gpu, entry.waiver) == ("waived", "no GPU here")
    waiver = json.loads((store / "records" / f"{entry.sha256}.waiver.json").read_text())
    assert (waiver["reason"], waiver["by"], waiver["sha256"]) == ("no GPU here", BY, entry.sha256)
    assert _whats(store) == ["staged", "proved", "promoted"]
    assert ledger.read(store)[-1].says("promoted", catalog=done.catalog, wheels={first.name: entry.sha256})
    assert "no GPU here" in (store / "current" / "index.html").read_text()


def test_promoting_again_changes_nothing(store: Path, first: Path) -> None:
    _promote(store, first)
    before = tree(store)
    done = promotion.promote(store, by=BY)
    assert (done.new, done.waived) == ((), ())
    assert tree(store) == before


@pytest.mark.parametrize("where", ["beside the wheel", "in the store", "given"])
def test_promote_with_a_gpu_record(store: Path, first: Path, tmp_path: Path, where: str) -> None:
    folder = {"beside the wheel": first.parent, "in the store": store, "given": tmp_path / "gpu"}[where]
    save_gpu_record(first, folder)
    staging.stage(store, [first], by=BY)
    proved(store)
    done = promotion.promote(store, by=BY, records=tmp_path / "gpu")
    assert done.waived == ()
    entry = Store(store).catalog("current").entries[0]
    assert entry.gpu == "passed"
    assert gpu.sheet_path(entry.sha256, store).read_bytes() == SHEET
    export(store / "current", tmp_path / "plain")
    assert gpu.sheet_path(entry.sha256, tmp_path / "plain").read_bytes() == SHEET


def test_a_gpu_record_supersedes_a_waiver(store: Path, first: Path) -> None:
    _promote(store, first)
    save_gpu_record(first, store)
    promotion.promote(store, by=BY)
    entry = Store(store).catalog("current").entries[0]
    assert (entry.gpu, entry.waiver) == ("passed", None)


def test_promotes_more_wheels_later(store: Path, first: Path, tmp_path: Path) -> None:
    _promote(store, first)
    second = wheel(tmp_path / "dist", "2.12")
    staging.stage(store, [second], by=BY)
    assert [entry.name for entry in Store(store).catalog("current").entries] == [first.name]
    proved(store)
    assert promotion.promote(store, waive_gpu="nor here", by=BY).new == (second.name,)
    current = Store(store).catalog("current")
    assert [(entry.name, entry.waiver) for entry in current.entries] == [
        (first.name, "no GPU here"),
        (second.name, "nor here"),
    ]


def test_a_changed_staged_index_needs_a_new_proof(store: Path, first: Path, tmp_path: Path) -> None:
    staging.stage(store, [first], by=BY)
    proved(store)
    staging.stage(store, [wheel(tmp_path / "dist", "2.12")], by=BY)
    with pytest.raises(PublishError, match="was not proven"):
        promotion.promote(store, waive_gpu="no GPU here", by=BY)
    assert not (store / "current").exists()


def test_replaces_a_wheel_that_was_never_promoted(store: Path, tmp_path: Path) -> None:
    staging.stage(store, [wheel(tmp_path / "one")], by=BY)
    other = wheel(tmp_path / "two", text="# other bytes\n")
    staging.stage(store, [other], by=BY, replace_staged=True)
    assert Store(store).catalog("staged").entries[0].sha256 == file_sha256(other)
    assert len(list((store / "pool").iterdir())) == 2


def test_yank_and_unyank(store: Path, first: Path) -> None:
    _promote(store, first)
    assert yanking.yank(store, first.name, reason="crashes", by=BY)
    for link in ("staged", "current"):
        assert "data-yanked" in (store / link / "whl" / "cu130" / "nvdiffrast" / "index.html").read_text()
    before = tree(store)
    assert not yanking.yank(store, first.name, reason="crashes", by=BY)
    assert tree(store) == before
    assert yanking.unyank(store, first.name, by=BY)
    assert Store(store).catalog("current").entries[0].yanked is None
    before = tree(store)
    assert not yanking.unyank(store, first.name, by=BY)
    assert tree(store) == before
    assert _whats(store)[-2:] == ["yanked", "unyanked"]
    # The wheel and every generation are still in the store.
    assert (store / "pool" / file_sha256(first) / first.name).is_file()
    assert len(list((store / "generations").iterdir())) == 3


def test_a_yank_reaches_readers_while_something_else_is_staged(store: Path, first: Path, tmp_path: Path) -> None:
    _promote(store, first)
    second = wheel(tmp_path / "dist", "2.12")
    staging.stage(store, [second], by=BY)
    yanking.yank(store, first.name, reason="crashes", by=BY)
    current, staged = (Store(store).catalog(link) for link in ("current", "staged"))
    assert [(entry.name, entry.yanked) for entry in current.entries] == [(first.name, "crashes")]
    assert [entry.yanked for entry in staged.entries] == ["crashes", None]


def test_a_yanked_wheel_needs_no_gpu(store: Path, first: Path) -> None:
    staging.stage(store, [first], by=BY)
    yanking.yank(store, first.name, reason="not the right one", by=BY)
    proved(store)
    assert promotion.promote(store, by=BY).new == (first.name,)


def test_accepts_partial_wheels_in_a_rehearsal(store: Path, tmp_path: Path) -> None:
    from tests.publishing import audited

    made = audited(wheel(tmp_path / "dist"), partial=True)
    staging.stage(store, [made], by=BY, allow_partial=True)
    assert Store(store).rehearsal
    proved(store)
    promotion.promote(store, waive_gpu="a rehearsal", by=BY)
    assert Store(store).catalog("current").entries[0].partial


def test_an_interrupted_promotion_is_completed(store: Path, first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    staging.stage(store, [first], by=BY)
    proved(store)
    switch = Store.switch
    switched: list[str] = []

    def broken(self: Store, link: str, generation: Path) -> None:
        if switched:
            raise KeyboardInterrupt
        switched.append(link)
        switch(self, link, generation)  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "switch", broken)
    with pytest.raises(KeyboardInterrupt):
        promotion.promote(store, waive_gpu="no GPU here", by=BY)
    monkeypatch.undo()
    assert promotion.promote(store, by=BY).new == (first.name,)
    assert Store(store).catalog("current") == Store(store).catalog("staged")
    assert _whats(store) == ["staged", "proved", "promoted"]


def test_status(store: Path, first: Path, tmp_path: Path) -> None:
    found = status.read(store)
    assert (found.staged, found.current, found.proven, found.empty) == (0, 0, False, True)
    assert not store.exists()
    _promote(store, first)
    assert status.read(store).waived == (first.name,)
    second = wheel(tmp_path / "dist", "2.12")
    staging.stage(store, [second], by=BY)
    yanking.yank(store, first.name, reason="crashes", by=BY)
    before = tree(store)
    found = status.read(store)
    assert tree(store) == before
    assert (found.staged, found.current, found.proven, found.rehearsal) == (2, 1, False, False)
    assert (found.pending, found.waiting, found.yanked) == ((second.name,), (second.name,), (first.name,))
    assert [event["what"] for event in found.last] == ["staged", "proved", "promoted", "staged", "yanked"]


def test_the_page_links_the_statements_in_the_store(store: Path, first: Path, tmp_path: Path) -> None:
    sha256 = file_sha256(first)
    paths = [audit_record.save_statement(sha256, kind, b"{}", first.parent) for kind in audit_record.STATEMENTS]
    record = audit_record.find(sha256, first.parent)
    assert record is not None
    audit_record.save(audit_record.with_evidence(record, first.parent), first.parent)
    staging.stage(store, [first, second := wheel(tmp_path / "dist", "2.12")], by=BY)
    page = (store / "staged" / "index.html").read_text()
    for path in paths:
        assert f'href="records/{path.name}"' in page
        assert f"records/{path.name.replace(sha256, file_sha256(second))}" not in page
    assert writer.check(store / "staged") == []


def test_status_of_an_empty_store(store: Path, first: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert publish.main(["status", "--store", str(store)]) == 0
    assert capsys.readouterr().out.endswith(f"{store}: empty, nothing was staged yet; next: nox -s stage -- WHEEL...\n")
    staging.stage(store, [first], by=BY)
    publish.main(["status", "--store", str(store)])
    output = capsys.readouterr().out
    assert "empty, nothing" not in output
    assert "1 wheel, not proven yet" in output


def test_a_second_publisher_waits(store: Path, first: Path, capsys: pytest.CaptureFixture[str]) -> None:
    holding, release = threading.Event(), threading.Event()

    def hold() -> None:
        with Store(store).exclusive("Somebody Else"):
            holding.set()
            release.wait(10)

    other = threading.Thread(target=hold)
    other.start()
    assert holding.wait(10)
    threading.Timer(0.4, release.set).start()
    begin = time.monotonic()
    staging.stage(store, [first], by=BY)
    other.join()
    assert time.monotonic() - begin > 0.3
    assert "is being changed by Somebody Else" in capsys.readouterr().err
    assert Store(store).catalog("staged").named(first.name)


def test_simultaneous_publishers_keep_all_wheels(store: Path, tmp_path: Path) -> None:
    made = [wheel(tmp_path / line, line) for line in ("2.9", "2.10", "2.11", "2.12")]
    threads = [threading.Thread(target=staging.stage, args=(store, [one]), kwargs={"by": BY}) for one in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {entry.name for entry in Store(store).catalog("staged").entries} == {one.name for one in made}
    assert _whats(store) == ["staged"] * 4


def test_compare_names_the_differences(store: Path, first: Path, tmp_path: Path) -> None:
    staging.stage(store, [first], by=BY)
    one = Store(store).catalog("staged")
    staging.stage(store, [wheel(tmp_path / "dist", "2.12")], by=BY)
    place = Store(store)
    generation = place.generation("staged")
    assert generation
    assert site_files.compare(place.catalog("staged"), generation).none
    more = site_files.compare(one, generation)
    assert not more.missing
    assert len(more.unexpected) == 2
    assert site_files.compare(Catalog(), generation).unexpected
    (generation / "whl" / "cu130" / "nvdiffrast" / "index.html").unlink()
    assert len(site_files.compare(place.catalog("staged"), generation).missing) == 2


def test_the_command_line(
    store: Path, first: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    common = ["--store", str(store), "--by", BY]
    assert publish.main(["stage", str(first), *common]) == 0
    assert f"staged {first.name}" in capsys.readouterr().out
    proved(store)
    assert publish.main(["promote", "--waive-gpu", "no GPU here", "--json", *common]) == 0
    assert json.loads(capsys.readouterr().out)["new"] == [first.name]
    assert publish.main(["yank", first.name, "--reason", "crashes", *common]) == 0
    assert publish.main(["unyank", first.name, *common]) == 0
    assert publish.main(["status", *common]) == 0
    shown = capsys.readouterr().out
    assert f"yanked {first.name}" in shown
    assert f"unyanked by {BY}" in shown
