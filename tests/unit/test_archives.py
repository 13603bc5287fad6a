"""scripts.support.archives: no archive can write outside of the destination."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from scripts.support.archives import ArchiveError, unpack_tar, unpack_zip

ESCAPES = ["../out", "a/../../out", "/out", "C:/out", "a\\..\\..\\out", "..\\out", "con", "a/NUL.txt", "a/b. ", "x\n"]


def make_zip(path: Path, *members: tuple[str, bytes, int]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content, mode in members:
            info = zipfile.ZipInfo()
            info.filename = name
            info.external_attr = mode << 16
            archive.writestr(info, content)
    return path


def make_tar(path: Path, *members: tarfile.TarInfo, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for member in members:
            content = b"x" * member.size
            archive.addfile(member, io.BytesIO(content) if member.isreg() else None)
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    info.size = 3 if kind == tarfile.REGTYPE else 0
    return info


def below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")) if folder.exists() else []


def test_unpacks_zip_content_and_modes(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", ("p/", b"", 0o40755), ("p/run", b"1", 0o100755), ("p/read", b"2", 0o100600))
    written = unpack_zip(archive, tmp_path / "to")
    assert written == [tmp_path / "to/p/run", tmp_path / "to/p/read"]
    assert [stat.S_IMODE(file.stat().st_mode) for file in written] == [0o755, 0o644]
    assert [file.read_bytes() for file in written] == [b"1", b"2"]


@pytest.mark.parametrize("name", ESCAPES)
def test_rejects_zip_names_outside_of_the_destination(tmp_path: Path, name: str) -> None:
    archive = make_zip(tmp_path / "a.zip", ("good", b"1", 0), (name, b"2", 0))
    with pytest.raises(ArchiveError, match=r"leads out of|not a portable name"):
        unpack_zip(archive, tmp_path / "d" / "to")
    assert below(tmp_path) == ["a.zip"]


@pytest.mark.parametrize(("one", "two"), [("a", "a"), ("a/B", "a/b"), ("a", "a/b"), ("a/./b", "a/b")])
def test_rejects_duplicate_zip_names(tmp_path: Path, one: str, two: str) -> None:
    archive = make_zip(tmp_path / "a.zip", (one, b"1", 0), (two, b"2", 0))
    with pytest.raises(ArchiveError, match=r"is there twice|which is a file"):
        unpack_zip(archive, tmp_path / "to")
    assert below(tmp_path / "to") == []


def test_rejects_links_in_a_zip(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", ("link", b"/etc/passwd", stat.S_IFLNK | 0o777))
    with pytest.raises(ArchiveError, match="symbolic link"):
        unpack_zip(archive, tmp_path / "to")


def test_rejects_a_damaged_zip_before_writing(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", ("one", b"1111", 0), ("two", b"2222", 0))
    archive.write_bytes(archive.read_bytes().replace(b"2222", b"2223"))
    with pytest.raises(ArchiveError, match=r"'two' is damaged|CRC"):
        unpack_zip(archive, tmp_path / "to")
    archive.write_bytes(archive.read_bytes()[:40])
    with pytest.raises(ArchiveError, match="not a whole zip archive"):
        unpack_zip(archive, tmp_path / "to")
    assert below(tmp_path / "to") == []


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_unpacks_tar_content_modes_and_inner_links(tmp_path: Path, mode: str) -> None:
    archive = make_tar(
        tmp_path / "a.tar",
        member("lib", tarfile.DIRTYPE, mode=0o700),
        member("lib/libx.so.1", mode=0o777),
        member("lib/libx.so", tarfile.SYMTYPE, "libx.so.1"),
        member("lib64", tarfile.SYMTYPE, "./lib"),
        member("bin/x", tarfile.SYMTYPE, "../lib/libx.so.1"),
        member("copy", tarfile.LNKTYPE, "lib/libx.so.1"),
        mode=mode,
    )
    unpack_tar(archive, tmp_path / "to")
    to = tmp_path / "to"
    assert below(to) == ["bin", "bin/x", "copy", "lib", "lib/libx.so", "lib/libx.so.1", "lib64"]
    assert {(to / name).read_bytes() for name in ("lib64/libx.so", "bin/x", "copy")} == {b"xxx"}
    assert stat.S_IMODE((to / "lib/libx.so.1").stat().st_mode) == 0o755
    assert not (to / "copy").is_symlink()


@pytest.mark.parametrize("name", ESCAPES)
def test_rejects_tar_names_outside_of_the_destination(tmp_path: Path, name: str) -> None:
    archive = make_tar(tmp_path / "a.tar", member("good"), member(name))
    with pytest.raises(ArchiveError, match=r"leads out of|not a portable name"):
        unpack_tar(archive, tmp_path / "d" / "to")
    assert below(tmp_path) == ["a.tar"]


@pytest.mark.parametrize(
    "link", ["/etc/passwd", "../out", "a/../../out", "x/../../../out", "..", "C:\\Windows", "", "d/../../../out"]
)
def test_rejects_tar_links_outside_of_the_destination(tmp_path: Path, link: str) -> None:
    archive = make_tar(tmp_path / "a.tar", member("good"), member("link", tarfile.SYMTYPE, link))
    with pytest.raises(ArchiveError, match="outside of the archive"):
        unpack_tar(archive, tmp_path / "to")
    assert below(tmp_path / "to") == []


@pytest.mark.parametrize(
    "members",
    [
        # A file below a link, in both orders.
        [member("d", tarfile.SYMTYPE, "e"), member("d/file")],
        [member("d/file"), member("d", tarfile.SYMTYPE, "e")],
        [member("same"), member("same")],
        [member("same"), member("SAME", tarfile.SYMTYPE, "good")],
        [member("d", tarfile.SYMTYPE, "e"), member("d", tarfile.DIRTYPE)],
        [member("link", tarfile.LNKTYPE, "../out")],
        [member("link", tarfile.LNKTYPE, "/etc/passwd")],
        [member("link", tarfile.LNKTYPE, "nowhere")],
        [member("pipe", tarfile.FIFOTYPE)],
        [member("disk", tarfile.BLKTYPE)],
    ],
)
def test_rejects_unsafe_tar_members(tmp_path: Path, members: list[tarfile.TarInfo]) -> None:
    with pytest.raises(ArchiveError):
        unpack_tar(make_tar(tmp_path / "a.tar", *members), tmp_path / "to")
    assert below(tmp_path / "to") == []


def test_rejects_links_that_leave_the_destination_together(tmp_path: Path) -> None:
    """Each link alone stays inside; followed one after the other they leave the destination."""
    archive = make_tar(
        tmp_path / "a.tar",
        member("a/b/c/file"),
        member("short", tarfile.SYMTYPE, "a/b/c"),
        member("a/out", tarfile.SYMTYPE, "../short/../../../../../etc"),
    )
    with pytest.raises(ArchiveError, match="outside of the archive"):
        unpack_tar(archive, tmp_path / "to")


def test_rejects_links_that_leave_through_other_links(tmp_path: Path) -> None:
    archive = make_tar(
        tmp_path / "a.tar",
        member("file"),
        member("d/e", tarfile.SYMTYPE, ".."),
        member("d/f", tarfile.SYMTYPE, "e/../out"),
    )
    with pytest.raises(ArchiveError, match="outside of the archive"):
        unpack_tar(archive, tmp_path / "to")


def test_a_truncated_tar_writes_no_file(tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "a.tar.gz", *(member(f"file{n}") for n in range(50)), mode="w:gz")
    content = archive.read_bytes()
    for length in (0, 5, len(content) // 2, len(content) - 9):
        archive.write_bytes(content[:length])
        with pytest.raises(ArchiveError, match=r"not a whole tar archive|truncated"):
            unpack_tar(archive, tmp_path / "to")
        assert below(tmp_path / "to") == []


def test_does_not_overwrite_existing_files(tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "good").write_text("mine")
    with pytest.raises(ArchiveError):
        unpack_tar(make_tar(tmp_path / "a.tar", member("good")), tmp_path / "to")
    with pytest.raises(ArchiveError):
        unpack_zip(make_zip(tmp_path / "a.zip", ("good", b"theirs", 0)), tmp_path / "to")
    assert (tmp_path / "to" / "good").read_text() == "mine"
