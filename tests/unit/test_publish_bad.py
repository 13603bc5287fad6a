"""Invalid input of publishing: each case is refused with a clear error, and the store does not change."""

from __future__ import annotations

import json
import os
import shutil
import stat
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from scripts.errors import PipelineError, UsageError
from scripts.gpu_gate.bench import State
from scripts.index import evidence, ledger
from scripts.index.catalog import Catalog, Entry, dump
from scripts.index.store import Store
from scripts.publish import promotion, staging, store_upload, upload, yanking
from scripts.support.files import file_sha256
from scripts.wheel import audit_record
from tests.publishing import (
    BY,
    UploadServer,
    audited,
    cell,
    gpu_record,
    proved,
    save_gpu_record,
    tree,
    upload_server,
    wheel,
)
from tests.unit.wheel_factory import CELL, Parts, text_parts

Action = Callable[[], object]


@dataclass
class Scene:
    """A store with one promoted wheel, and a folder for another wheel."""

    store: Path
    folder: Path
    promoted: Path
    server: UploadServer

    def stage(self, *wheels: Path, **options: Any) -> Action:
        """Return an action that stages wheels."""
        return lambda: staging.stage(self.store, wheels, by=BY, wait=0, **options)

    def with_gpu_record(self, result: State = "passed", **changes: object) -> Action:
        """Promote a wheel with a GPU record that was changed."""
        save_gpu_record(self.staged(), self.store, result, **changes)
        proved(self.store)
        return self.promote()

    def promote(self, **options: Any) -> Action:
        """Return an action that promotes."""
        return lambda: promotion.promote(self.store, by=BY, wait=0, **options)

    def staged(self, line: str = "2.12") -> Path:
        """Stage another wheel."""
        made = wheel(self.folder, line)
        self.stage(made)()
        return made

    def send(self, **options: Any) -> Action:
        """Return an action that uploads."""
        secrets = {"TWINE_USERNAME": "publisher", "TWINE_PASSWORD": options.pop("password", self.server.password)}
        to = upload.target(self.server.url, f"{self.server.url}simple", secrets)
        entry = self.entry
        item = upload.Item(Store(self.store).path(entry), entry.sha256)
        return lambda: upload.send([item], to, attempts=2, pause=0.01, **options)

    @property
    def entry(self) -> Entry:
        """Return the entry of the promoted wheel."""
        return Store(self.store).catalog("current").entries[0]

    def rewrite(self, link: str, **changes: Any) -> None:
        """Change the entry in an existing catalog."""
        path = self.store / link / "catalog.json"
        made = dump(Catalog((replace(self.entry, **changes),)))
        # Another generation may have the same file.
        path.unlink()
        path.write_text(made)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    store, promoted = folder / "store", wheel(folder / "first")
    staging.stage(store, [promoted], by=BY)
    proved(store)
    promotion.promote(store, waive_gpu="no GPU here", by=BY)
    return folder


@pytest.fixture
def scene(tmp_path: Path, template: Path) -> Iterator[Scene]:
    shutil.copytree(template, tmp_path / "scene", symlinks=True)
    folder = tmp_path / "dist"
    folder.mkdir()
    with upload_server() as server:
        yield Scene(tmp_path / "scene" / "store", folder, next((tmp_path / "scene" / "first").glob("*.whl")), server)


Case = Callable[[Scene], Action]
CASES: list[tuple[str, str, Case]] = []


def case(message: str) -> Callable[[Case], Case]:
    """Register a case: a function that returns an action, which must be refused with ``message``."""

    def register(function: Case) -> Case:
        CASES.append((function.__name__.strip("_"), message, function))
        return function

    return register


def edited(message: str, name: str, change: Callable[[Parts], object]) -> None:
    """Register the staging of a wheel that was changed before its RECORD and its audit record were written."""

    def prepare(scene: Scene) -> Action:
        parts = text_parts(cell("2.12"))
        change(parts)
        return scene.stage(wheel(scene.folder, parts=parts))

    CASES.append((name, message, prepare))


def _metadata(parts: Parts) -> str:
    return f"{parts.dist_info}/METADATA"


def _header(line: str) -> Callable[[Parts], object]:
    return lambda parts: parts.edit(_metadata(parts), "Requires-Python: >=3.9\n", f"Requires-Python: >=3.9\n{line}\n")


def _named(**changes: str) -> Callable[[Parts], object]:
    def rename(parts: Parts) -> None:
        for old, new in changes.items():
            parts.file_name = parts.file_name.replace(old, new)

    return rename


# --- the wheel says different things of itself, or things that must not become a part of an address or a page

edited("METADATA says Name: nvdifrast", "name", lambda p: p.edit(_metadata(p), "nvdiffrast", "nvdifrast"))
edited("METADATA says Version: 9.9", "version", lambda p: p.edit(_metadata(p), "0.3.4+cu130.torch2.12", "9.9"))
edited("METADATA says Version", "local_version", lambda p: p.edit(_metadata(p), "torch2.12\n", "torch2.10\n"))
edited("METADATA requires no torch", "no_torch", lambda p: p.edit(_metadata(p), "Requires-Dist: torch==2.12.*\n", ""))
edited("not torch==2.12", "other_torch", lambda p: p.edit(_metadata(p), "torch==2.12.*", "torch>=2"))
edited("not torch==2.12", "two_torches", _header("Requires-Dist: torch==2.13.*"))
edited("has no .*METADATA", "no_metadata", lambda p: p.members.pop(_metadata(p)))
edited("WHEEL states", "tags", lambda p: p.edit(f"{p.dist_info}/WHEEL", "manylinux_2_28", "manylinux_2_31"))
edited("has no .*WHEEL", "no_wheel_file", lambda p: p.members.pop(f"{p.dist_info}/WHEEL"))
edited("build_info.json: ", "build_info_malformed", lambda p: p.edit_info(architectures=None))
edited("has no nvdiffrast/build_info.json", "no_build_info", lambda p: p.members.pop("nvdiffrast/build_info.json"))
edited("its audit record", "cell", lambda p: p.edit_info(cell=CELL.id))
edited("build_info.json gives version", "other_release", lambda p: p.edit_info(release="0.3.3"))
edited("build_info.json gives version", "other_cuda", lambda p: p.edit_info(cuda="12.8"))
edited("build_info.json gives version", "other_torch_inside", lambda p: p.edit_info(torch="2.10.0"))
edited("build_info.json says cp27", "other_python", lambda p: p.edit_info(python="cp27"))
edited("an architecture is '<b>'", "architecture", lambda p: p.edit_info(architectures={"sass": ["<b>"], "ptx": []}))
edited("2 dist-info folders", "two_dist_infos", lambda p: p.members.update({"other-1.dist-info/METADATA": b""}))
edited("METADATA has markup in Summary", "html_in_summary", _header("Summary: <script>alert(1)</script>"))
edited("METADATA has markup in Keywords", "html_in_keywords", _header('Keywords: <img src="x">'))
edited("METADATA has markup in Author", "comment_in_author", _header("Author: <!-- x"))
edited(
    "requires.python", "html_in_requires_python", lambda p: p.edit(_metadata(p), ">=3.9", '>=3.9"><script>x</script>')
)
edited("METADATA: ", "metadata_without_version", lambda p: p.edit(_metadata(p), "Metadata-Version: 2.4\n", ""))
edited(
    "METADATA: ", "metadata_with_unknown_version", lambda p: p.edit(_metadata(p), "Version: 2.4\n", "Version: 99.0\n")
)
edited("wheel of torch", "other_project", _named(nvdiffrast="torch"))
edited("METADATA says Version", "renamed_version", _named(**{"0.3.4": "0.3.5"}))
edited("METADATA says Version", "renamed_channel", _named(cu130="cu128"))
edited("WHEEL states", "renamed_platform", _named(manylinux_2_28_x86_64="win_amd64"))
edited("WHEEL states", "renamed_python", _named(**{CELL.python_tag: "cp27"}))
edited("Invalid wheel filename", "no_wheels_name", _named(**{"nvdiffrast-": ""}))


@case("cuda is 'cu13a'")
def _unsafe_channel(scene: Scene) -> Action:
    odd = replace(cell("2.12"), toolkit=replace(CELL.toolkit, cuda="13.a"))
    parts = text_parts(odd)
    parts.edit_info(compiler={"cxx": "12.2.0", "nvcc": "13.0.88"})
    return scene.stage(wheel(scene.folder, parts=parts))


@case("not a portable file name")
def _markup_in_name(scene: Scene) -> Action:
    odd = replace(cell("2.12"), platform=replace(CELL.platform, wheel_tag="<b>"))
    return scene.stage(wheel(scene.folder, parts=text_parts(odd)))


edited("build_info.json gives version .*cu130/", "channel_climbs_out", lambda p: p.edit_info(cuda="13.0/../x"))
edited("build_info.json gives version", "torch_with_slash", lambda p: p.edit_info(torch="2.12/../x"))
edited("a member|is not a portable name|leads out", "backslash", lambda p: p.members.update({"a\\..\\..\\b": b""}))


@case("does not match RECORD")
def _record_hash(scene: Scene) -> Action:
    parts = text_parts(cell("2.12"))
    record = parts.record()
    parts.members["nvdiffrast/__init__.py"] = b"changed = True\n"
    return scene.stage(audited(parts.write(scene.folder, record), id_=parts.cell.id))


@case("RECORD does not list")
def _record_lacks(scene: Scene) -> Action:
    parts = text_parts(cell("2.12"))
    record = parts.record()
    parts.members["nvdiffrast/more.py"] = b""
    return scene.stage(audited(parts.write(scene.folder, record), id_=parts.cell.id))


@case("which is not in the wheel")
def _record_names_more(scene: Scene) -> Action:
    parts = text_parts(cell("2.12"))
    record = parts.record() + "nvdiffrast/more.py,sha256=x,1\n"
    return scene.stage(audited(parts.write(scene.folder, record), id_=parts.cell.id))


@case("a row with 1 fields")
def _record_is_no_table(scene: Scene) -> Action:
    parts = text_parts(cell("2.12"))
    return scene.stage(audited(parts.write(scene.folder, "nothing\n"), id_=parts.cell.id))


# --- the archive


def _with_member(scene: Scene, name: str, content: bytes = b"", mode: int = 0) -> Path:
    made = text_parts(cell("2.12")).write(scene.folder)
    with zipfile.ZipFile(made, "a") as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        archive.writestr(info, content)
    return audited(made, id_=cell("2.12").id)


@case("leads out of the archive")
def _climbs_out(scene: Scene) -> Action:
    return scene.stage(_with_member(scene, "../../evil.py"))


@case("leads out of the archive")
def _absolute(scene: Scene) -> Action:
    return scene.stage(_with_member(scene, "/etc/evil"))


@case("is not a portable name")
def _drive(scene: Scene) -> Action:
    return scene.stage(_with_member(scene, "C:/evil"))


@case("is a symbolic link")
def _link_inside(scene: Scene) -> Action:
    return scene.stage(_with_member(scene, "nvdiffrast/link", b"/etc/passwd", stat.S_IFLNK | 0o777))


@case("is there twice")
@pytest.mark.filterwarnings("ignore:Duplicate name")
def _twice(scene: Scene) -> Action:
    return scene.stage(_with_member(scene, "nvdiffrast/__init__.py", b"other = 1"))


@case("not a whole zip archive")
def _not_a_wheel(scene: Scene) -> Action:
    path = scene.folder / cell("2.12").wheel
    path.write_text("this is no wheel")
    return scene.stage(audited(path, id_=cell("2.12").id))


@case("not a whole zip archive")
def _truncated(scene: Scene) -> Action:
    path = wheel(scene.folder, "2.12")
    path.write_bytes(path.read_bytes()[:-500])
    return scene.stage(audited(path, id_=cell("2.12").id))


@case("not a whole zip archive")
def _empty(scene: Scene) -> Action:
    path = scene.folder / cell("2.12").wheel
    path.write_bytes(b"")
    return scene.stage(audited(path, id_=cell("2.12").id))


@case("is damaged: its checksum is wrong|not a whole zip archive")
def _flipped_bit(scene: Scene) -> Action:
    path = wheel(scene.folder, "2.12")
    content = bytearray(path.read_bytes())
    content[content.index(b"A stand-in for the text") + 3] ^= 1
    path.write_bytes(content)
    return scene.stage(audited(path, id_=cell("2.12").id))


@case("no such file")
def _no_file(scene: Scene) -> Action:
    return scene.stage(scene.folder / cell("2.12").wheel)


@case("not a regular one")
def _a_link_to_a_wheel(scene: Scene) -> Action:
    made = wheel(scene.folder / "there", "2.12")
    link = scene.folder / made.name
    link.symlink_to(made)
    return scene.stage(audited(link, id_=cell("2.12").id))


@case("not a regular one")
def _a_folder(scene: Scene) -> Action:
    folder = scene.folder / cell("2.12").wheel
    folder.mkdir()
    return scene.stage(folder)


@case("Invalid wheel filename")
def _an_sdist(scene: Scene) -> Action:
    path = scene.folder / "nvdiffrast-0.3.4.tar.gz"
    path.write_bytes(b"x")
    return scene.stage(audited(path))


@case("not a whole zip archive")
def _one_bad_wheel_of_two(scene: Scene) -> Action:
    bad = scene.folder / cell("2.13").wheel
    bad.write_text("this is no wheel")
    return scene.stage(wheel(scene.folder, "2.12"), audited(bad, id_=cell("2.13").id))


# --- names


@case("is taken: the index has other bytes under that name")
def _taken(scene: Scene) -> Action:
    return scene.stage(wheel(scene.folder, text="other = 1\n"))


@case("is taken: the index has other bytes under that name")
def _taken_and_replace(scene: Scene) -> Action:
    return scene.stage(wheel(scene.folder, text="other = 1\n"), replace_staged=True)


@case("is taken: the index has other bytes under that name")
def _taken_by_a_staged_wheel(scene: Scene) -> Action:
    scene.staged("2.12")
    return scene.stage(wheel(scene.folder / "again", "2.12", text="other = 1\n"))


@case("have the same name and different bytes")
def _two_of_one_name(scene: Scene) -> Action:
    return scene.stage(wheel(scene.folder / "a", "2.12"), wheel(scene.folder / "b", "2.12", text="other = 1\n"))


# --- records


def _record(path: Path) -> Path:
    return path.parent / "records" / f"{file_sha256(path)}.audit.json"


@case("has no audit record for its sha256")
def _no_record(scene: Scene) -> Action:
    return scene.stage(text_parts(cell("2.12")).write(scene.folder))


@case("has no audit record for its sha256")
def _record_of_other_bytes(scene: Scene) -> Action:
    path = wheel(scene.folder, "2.12")
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"added later"
    return scene.stage(path)


@case("did not pass its audit; outcome failed: everything")
def _failing_record(scene: Scene) -> Action:
    return scene.stage(audited(wheel(scene.folder, "2.12"), outcome="failed", id_=cell("2.12").id))


@case("did not pass its audit; outcome untested: everything")
def _untested_record(scene: Scene) -> Action:
    return scene.stage(audited(wheel(scene.folder, "2.12"), outcome="untested", id_=cell("2.12").id))


@case("is a partial wheel")
def _partial_record(scene: Scene) -> Action:
    return scene.stage(audited(wheel(scene.folder, "2.12"), partial=True, id_=cell("2.12").id))


@case("is not a store for rehearsals")
def _partial_into_a_store_of_releases(scene: Scene) -> Action:
    return scene.stage(audited(wheel(scene.folder, "2.12"), partial=True, id_=cell("2.12").id), allow_partial=True)


@case("but the outcome of its checks is failed")
def _tampered_record(scene: Scene) -> Action:
    made = audited(wheel(scene.folder, "2.12"), outcome="failed", id_=cell("2.12").id)
    data = json.loads(_record(made).read_text())
    _record(made).write_text(json.dumps({**data, "outcome": "passed", "release": True}))
    return scene.stage(made)


@case("is about another wheel")
def _record_of_another_sha256(scene: Scene) -> Action:
    made, other = wheel(scene.folder, "2.12"), wheel(scene.folder, "2.13")
    _record(other).replace(_record(made))
    return scene.stage(made)


@case("its audit record is for another.whl")
def _record_of_another_name(scene: Scene) -> Action:
    made = wheel(scene.folder, "2.12")
    audit_record.save(replace(audit_record.load(_record(made)), wheel="another.whl"), made.parent)
    return scene.stage(made)


@case("its seal does not fit")
def _edited_record(scene: Scene) -> Action:
    made = wheel(scene.folder, "2.12")
    data = json.loads(_record(made).read_text())
    _record(made).write_text(json.dumps({**data, "wheel": "another.whl"}))
    return scene.stage(made)


@case("not a record")
def _malformed_record(scene: Scene) -> Action:
    made = wheel(scene.folder, "2.12")
    _record(made).write_text("{")
    return scene.stage(made)


@case("not a record")
def _malformed_gpu_record_beside_the_wheel(scene: Scene) -> Action:
    made = scene.staged()
    proved(scene.store)
    save_gpu_record(made, scene.folder, device=7)
    return scene.promote(records=scene.folder)


# --- the store


@case("is not a regular file")
def _a_link_in_the_pool(scene: Scene) -> Action:
    path = Store(scene.store).path(scene.entry)
    path.rename(scene.folder / path.name)
    path.symlink_to(scene.folder / path.name)
    return scene.stage(wheel(scene.folder, "2.12"))


@case("is not a folder, or is a link")
def _a_linked_folder_in_the_pool(scene: Scene) -> Action:
    path = Store(scene.store).path(scene.entry).parent
    path.rename(scene.folder / "elsewhere")
    path.symlink_to(scene.folder / "elsewhere")
    return scene.stage(wheel(scene.folder, "2.12"))


@case("is a symbolic link; a store must be one folder")
def _a_linked_pool(scene: Scene) -> Action:
    (scene.store / "pool").rename(scene.folder / "pool")
    (scene.store / "pool").symlink_to(scene.folder / "pool")
    return scene.stage(wheel(scene.folder, "2.12"))


@case("is not a regular file")
def _a_pipe_in_the_pool(scene: Scene) -> Action:
    os.mkfifo(Store(scene.store).path(scene.entry).with_name("pipe"))
    return scene.stage(wheel(scene.folder, "2.12"))


@case("is missing or not of")
def _a_wheel_gone_from_the_pool(scene: Scene) -> Action:
    Store(scene.store).path(scene.entry).unlink()
    return scene.stage(wheel(scene.folder, "2.12"))


@case("is damaged: its sha256 is not")
def _a_staged_wheel_changed_in_the_pool(scene: Scene) -> Action:
    made = scene.staged()
    proved(scene.store)
    path = Store(scene.store).pool / file_sha256(made) / made.name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    return scene.promote(waive_gpu="no GPU here")


@case("which is not a generation of this store")
def _dangling_current(scene: Scene) -> Action:
    (scene.store / "current").unlink()
    (scene.store / "current").symlink_to("generations/gone")
    return scene.stage(wheel(scene.folder, "2.12"))


@case("which is not a generation of this store")
def _current_points_out(scene: Scene) -> Action:
    (scene.store / "current").unlink()
    (scene.store / "current").symlink_to(scene.folder)
    return scene.promote()


@case("is not a symbolic link to a generation")
def _current_is_a_folder(scene: Scene) -> Action:
    (scene.store / "current").unlink()
    (scene.store / "current").mkdir()
    return scene.promote()


@case("not a catalog")
def _malformed_catalog(scene: Scene) -> Action:
    (scene.store / "current" / "catalog.json").write_text("[]")
    return scene.stage(wheel(scene.folder, "2.12"))


@case("has no catalog.json")
def _no_catalog(scene: Scene) -> Action:
    (scene.store / "current" / "catalog.json").unlink()
    return scene.stage(wheel(scene.folder, "2.12"))


@case("cuda is '../../x'")
def _unsafe_channel_in_the_catalog(scene: Scene) -> Action:
    scene.rewrite("staged", cuda="../../x")
    return scene.stage(wheel(scene.folder, "2.12"))


@case("torch is '2.11/..'")
def _unsafe_torch_in_the_catalog(scene: Scene) -> Action:
    scene.rewrite("staged", torch="2.11/..")
    return scene.promote()


@case("requires_python is '<script>'")
def _html_in_the_catalog(scene: Scene) -> Action:
    scene.rewrite("staged", requires_python="<script>")
    return scene.promote()


@case("not a portable file name")
def _unsafe_name_in_the_catalog(scene: Scene) -> Action:
    scene.rewrite("staged", name="../evil.whl")
    return scene.promote()


@case("sha256 is")
def _unsafe_sha256_in_the_catalog(scene: Scene) -> Action:
    scene.rewrite("staged", sha256="../../../etc")
    return scene.promote()


@case("ledger.jsonl:2: not an entry of a ledger")
def _malformed_ledger(scene: Scene) -> Action:
    path = scene.store / "ledger.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], "not json\n", *lines[1:]]))
    return lambda: ledger.append(scene.store, "proved", by=BY)


@case("is being changed by Somebody Else")
def _another_publisher(scene: Scene) -> Action:
    made = wheel(scene.folder, "2.12")

    def both() -> None:
        with Store(scene.store).exclusive("Somebody Else"):
            scene.stage(made)()

    return both


# --- promoting


@case("was not proven")
def _not_proven(scene: Scene) -> Action:
    scene.staged()
    return scene.promote(waive_gpu="no GPU here")


@case("no GPU has run nvdiffrast-0.3.4")
def _no_gpu(scene: Scene) -> Action:
    scene.staged()
    proved(scene.store)
    return scene.promote()


@case("no GPU has run nvdiffrast-0.3.4")
def _untested_by_a_gpu(scene: Scene) -> Action:
    save_gpu_record(scene.staged(), scene.store, "untested")
    proved(scene.store)
    return scene.promote()


@case("failed on a GPU")
def _failed_on_a_gpu(scene: Scene) -> Action:
    save_gpu_record(scene.staged(), scene.store, "failed")
    proved(scene.store)
    return scene.promote(waive_gpu="no GPU here")


@case("but its checks make it failed")
def _gpu_record_that_its_checks_do_not_bear_out(scene: Scene) -> Action:
    return scene.with_gpu_record("failed", outcome="passed")


@case("but its checks make it untested")
def _gpu_record_of_no_check(scene: Scene) -> Action:
    return scene.with_gpu_record(checks=[])


@case("names no device")
def _gpu_record_of_no_device(scene: Scene) -> Action:
    return scene.with_gpu_record(device="")


@case("has no contact sheet")
def _gpu_record_without_a_sheet(scene: Scene) -> Action:
    return scene.with_gpu_record(sheet="")


@case("not the contact sheet of its record")
def _gpu_record_with_another_sheet(scene: Scene) -> Action:
    return scene.with_gpu_record(sheet="0" * 64)


@case("is about another wheel")
def _gpu_record_of_another_wheel(scene: Scene) -> Action:
    made = scene.staged()
    proved(scene.store)
    save_gpu_record(made, scene.store, sha256="0" * 64)
    return scene.promote()


@case("a record of schema 2")
def _gpu_record_of_another_schema(scene: Scene) -> Action:
    made = scene.staged()
    proved(scene.store)
    save_gpu_record(made, scene.store, schema=2)
    return scene.promote()


@case("not a record")
def _malformed_waiver(scene: Scene) -> Action:
    made = scene.staged()
    proved(scene.store)
    (scene.store / "records" / f"{file_sha256(made)}.waiver.json").write_text('{"reason": "because"}')
    return scene.promote()


@case("not a reason: ''")
def _empty_reason(scene: Scene) -> Action:
    scene.staged()
    proved(scene.store)
    return scene.promote(waive_gpu="  ")


@case("not a reason")
def _reason_of_two_lines(scene: Scene) -> Action:
    return scene.promote(waive_gpu="one\ntwo")


@case("not a reason")
def _endless_reason(scene: Scene) -> Action:
    return scene.promote(waive_gpu="very " * 100)


@case("lacks nvdiffrast-0.3.4")
def _staged_without_what_readers_have(scene: Scene) -> Action:
    path = scene.store / "staged" / "catalog.json"
    made = scene.store / "generations" / "other"
    made.mkdir()
    (made / path.name).write_text(dump(Catalog()))
    (scene.store / "staged").unlink()
    (scene.store / "staged").symlink_to("generations/other")
    proved(scene.store)
    return scene.promote()


@case("has no audit record")
def _staged_past_the_audit(scene: Scene) -> Action:
    made = scene.staged()
    proved(scene.store)
    (scene.store / "records" / f"{file_sha256(made)}.audit.json").unlink()
    return scene.promote(waive_gpu="no GPU here")


@case("not a person's name")
def _no_name(scene: Scene) -> Action:
    return lambda: promotion.promote(scene.store, by="a\x1b[31mb")


@case("no wheel 'nvdiffrast-9'")
def _yank_what_is_not_there(scene: Scene) -> Action:
    return lambda: yanking.yank(scene.store, "nvdiffrast-9", reason="why not", by=BY)


@case("not a reason")
def _yank_without_a_reason(scene: Scene) -> Action:
    return lambda: yanking.yank(scene.store, scene.promoted.name, reason="", by=BY)


@case("no wheel '../x'")
def _unyank_what_is_not_there(scene: Scene) -> Action:
    return lambda: yanking.unyank(scene.store, "../x", by=BY)


# --- uploading


@case("credentials missing or wrong .status 403.")
def _wrong_credentials(scene: Scene) -> Action:
    return scene.send(password="not-the-password")


@case("credentials missing or wrong .status 401.")
def _index_wants_credentials(scene: Scene) -> Action:
    scene.server.reading = [401]
    return scene.send()


@case("gave up after 2 attempts .0 of 1 wheels are uploaded.")
def _server_breaks_down(scene: Scene) -> Action:
    scene.server.broken = [503] * 99
    return scene.send()


@case("gave up after 2 attempts")
def _server_hangs_up(scene: Scene) -> Action:
    scene.server.broken = ["cut"] * 99
    return scene.send()


@case("gave up after 2 attempts")
def _index_breaks_down(scene: Scene) -> Action:
    scene.server.reading = [500] * 99
    return scene.send()


@case("did not accept nvdiffrast-0.3.4")
def _server_refuses(scene: Scene) -> Action:
    scene.server.broken = [400] * 9
    return scene.send()


@case("has other bytes under the name")
def _server_has_other_bytes(scene: Scene) -> Action:
    scene.server.files = {scene.promoted.name: b"other"}
    return scene.send()


@case("without a sha256")
def _server_tells_no_hashes(scene: Scene) -> Action:
    scene.server.files, scene.server.silent = {scene.promoted.name: b"other"}, True
    return scene.send()


@case("only promoted wheels")
def _upload_what_is_staged(scene: Scene) -> Action:
    return lambda: store_upload.send_store(scene.store, upload.target("https://example.invalid/"), by=BY, staged=True)


@case("the URL contains credentials")
def _credentials_in_the_address(scene: Scene) -> Action:
    return lambda: upload.target("https://me:password@example.invalid/")


@case("not a plain http.s. URL")
def _not_http(scene: Scene) -> Action:
    return lambda: upload.target("file:///etc")


@case("not a URL, and not a repository's name")
def _not_a_repository(scene: Scene) -> Action:
    return lambda: upload.target("--config-file=x", "https://example.invalid/simple")


@case("the simple index of private is not known")
def _repository_without_an_index(scene: Scene) -> Action:
    return lambda: upload.target("private")


def test_the_list_has_at_least_60_distinct_cases() -> None:
    assert len({name for name, _, _ in CASES}) == len(CASES) >= 60


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(("message", "prepare"), [pytest.param(message, run, id=name) for name, message, run in CASES])
def test_is_refused_without_changes(
    scene: Scene, message: str, prepare: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    action = prepare(scene)
    before, uploaded = tree(scene.store), dict(scene.server.files)
    with pytest.raises(PipelineError, match=message) as refused:
        action()
    assert tree(scene.store) == before
    assert scene.server.files == uploaded
    shown = f"{refused.value} {refused.value.hint} {''.join(capsys.readouterr())}"
    assert scene.server.password not in shown
    assert "not-the-password" not in shown
    assert "me:password" not in shown


def test_refuses_to_promote_an_empty_store(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="nothing is staged"):
        promotion.promote(tmp_path / "store", by=BY)
    with pytest.raises(PipelineError, match="nothing to upload"):
        store_upload.send_store(tmp_path / "store", upload.target("http://localhost/"), by=BY)


def test_refuses_to_act_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "_git", lambda *arguments: None)
    with pytest.raises(UsageError, match="nobody is named"):
        staging.stage(tmp_path / "store", [wheel(tmp_path)])
    assert not (tmp_path / "store").exists()


def test_refuses_to_promote_a_partial_wheel(scene: Scene) -> None:
    """It is refused even if its records are already in the store."""
    made = scene.staged()
    proved(scene.store)
    (scene.store / "records" / f"{file_sha256(made)}.audit.json").unlink()
    audited(made, partial=True, id_=cell("2.12").id)
    _record(made).rename(scene.store / "records" / _record(made).name)
    with pytest.raises(PipelineError, match="is a partial wheel"):
        scene.promote(waive_gpu="no GPU here")()


def test_refuses_a_wheel_that_changes_while_it_is_staged(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    made = wheel(scene.folder, "2.12")
    before, add = tree(scene.store), Store.add

    def change(self: Store, path: Path, sha256: str, metadata: bytes) -> None:
        path.write_bytes(path.read_bytes() + b"more")
        add(self, path, sha256, metadata)

    monkeypatch.setattr(Store, "add", change)
    with pytest.raises(PipelineError, match="changed while it was staged"):
        scene.stage(made)()
    assert tree(scene.store) == before


@pytest.mark.parametrize("torn", ['{"schema": 1, "wha', '{"schema"', "\x00\x00", '{"no'])
def test_removes_a_torn_last_line_of_the_ledger(scene: Scene, torn: str) -> None:
    path, events = scene.store / "ledger.jsonl", ledger.read(scene.store)
    with path.open("a") as file:
        file.write(torn)
    assert ledger.read(scene.store) == events
    ledger.append(scene.store, "proved", by=BY, catalog="x")
    assert [event.what for event in ledger.read(scene.store)] == [*(event.what for event in events), "proved"]
    assert torn not in path.read_text()


def test_keeps_a_last_line_without_newline(scene: Scene) -> None:
    path, events = scene.store / "ledger.jsonl", ledger.read(scene.store)
    path.write_text(path.read_text().rstrip("\n"))
    assert ledger.read(scene.store) == events
    ledger.append(scene.store, "proved", by=BY, catalog="x")
    assert len(ledger.read(scene.store)) == len(events) + 1


def test_refuses_malformed_evidence(scene: Scene) -> None:
    sha256 = file_sha256(scene.promoted)
    path = scene.folder / "records" / f"{sha256}.gpu.json"
    path.parent.mkdir()
    path.write_text(json.dumps(gpu_record(scene.promoted, outcome="splendid")))
    with pytest.raises(PipelineError, match="not a record"):
        evidence.adopt_gpu(Store(scene.store), sha256, scene.folder)
    assert not (scene.store / "records" / path.name).exists()
