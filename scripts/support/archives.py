"""Unpack untrusted archives: every member is written below the destination, or nothing is written."""

from __future__ import annotations

import stat
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from scripts.errors import PipelineError

_WINDOWS_DEVICES = {"con", "prn", "aux", "nul", *(f"com{n}" for n in range(1, 10)), *(f"lpt{n}" for n in range(1, 10))}


class ArchiveError(PipelineError):
    """An archive is damaged, or contains a member that must not be unpacked."""


def unpack_zip(path: Path, destination: Path) -> list[Path]:
    """Unpack a zip archive, such as a wheel, below ``destination`` and return the files written.

    ``destination`` is created if needed. All names and checksums are verified before the first byte is written.
    Executable files get the mode 0755, all others 0644.

    Raises:
        ArchiveError: if the archive is damaged, contains a link, or contains a name that is absolute, duplicate, not
            portable, or leads out of the archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [(_safe_name(path, info.filename), info) for info in archive.infolist()]
            _refuse_clashes(path, [(name, info.is_dir()) for name, info in members])
            for _, info in members:
                if stat.S_ISLNK(info.external_attr >> 16):
                    raise _refused(path, info.filename, "is a symbolic link")
            damaged = archive.testzip()
            if damaged is not None:
                raise ArchiveError(f"{path}: {damaged!r} is damaged: its checksum is wrong", hint=_again(path))
            return [
                _write(destination / name, archive.read(info), executable=bool(info.external_attr >> 16 & 0o100))
                for name, info in members
                if not info.is_dir()
            ]
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise ArchiveError(f"{path}: not a whole zip archive: {error}", hint=_again(path)) from error


def unpack_tar(path: Path, destination: Path) -> list[Path]:
    """Unpack a tar archive (plain, gz, bz2 or xz) below ``destination`` and return the files and links written.

    Symbolic links must stay inside ``destination``. A hard link becomes a copy of its target. The archive is read
    completely before the first byte is written, so that a truncated archive leaves no files.

    Raises:
        ArchiveError: as :func:`unpack_zip`; also if a link leads out of the archive or through another link, or if a
            member is a device, fifo or socket.
    """
    try:
        with tarfile.open(path) as archive:
            members = [(_safe_name(path, member.name), member) for member in archive.getmembers()]
            _check_tar_members(path, members)
            _read_all(path, archive, [member for _, member in members])
            written = [
                _write(destination / name, _content(archive, member), executable=bool(member.mode & 0o100))
                for name, member in members
                if member.isfile() or member.islnk()
            ]
            # Links are created last, so that no file is written through a link.
            for name, member in members:
                if member.issym():
                    link = destination / name
                    link.parent.mkdir(parents=True, exist_ok=True)
                    link.symlink_to(member.linkname)
                    written.append(link)
            return written
    except (tarfile.TarError, OSError, EOFError, KeyError) as error:
        raise ArchiveError(f"{path}: not a whole tar archive: {error}", hint=_again(path)) from error


def _check_tar_members(path: Path, members: Iterable[tuple[PurePosixPath, tarfile.TarInfo]]) -> None:
    """Refuse links that leave the archive, special files and duplicate names."""
    members = [(name, member) for name, member in members if name != PurePosixPath()]
    _refuse_clashes(path, [(name, member.isdir()) for name, member in members])
    regular = {name for name, member in members if member.isfile()}
    for name, member in members:
        if member.issym():
            _inside(path, member.name, name.parent, member.linkname)
        elif member.islnk():
            if _safe_name(path, member.linkname) not in regular:
                raise _refused(path, member.name, f"is a hard link to {member.linkname!r}, not a file in it")
        elif not (member.isfile() or member.isdir()):
            raise _refused(path, member.name, "is not a file, a folder or a link")


def _inside(path: Path, member: str, folder: PurePosixPath, target: str) -> None:
    """Refuse a symbolic link in ``folder`` whose ``target`` may be outside of the archive.

    ".." is allowed only at the start of the target: after a name that may itself be a link, its meaning is unknown.
    """
    parts = [part for part in target.split("/") if part not in ("", ".")]
    climbs = next((count for count, part in enumerate(parts) if part != ".."), len(parts))
    if (
        not target
        or target.startswith("/")
        or "\\" in target
        or ":" in target
        or climbs > len(folder.parts)
        or ".." in parts[climbs:]
    ):
        raise _refused(path, member, f"is a link to {target!r}, outside of the archive")


def _refuse_clashes(path: Path, names: list[tuple[PurePosixPath, bool]]) -> None:
    """Refuse duplicate names, compared without case, and names below a file or a link."""
    seen: dict[str, bool] = {}
    for name, is_folder in names:
        key = str(name).lower()
        if key in seen and not (is_folder and seen[key]):
            raise _refused(path, str(name), "is there twice (upper and lower case are not distinguished)")
        seen[key] = is_folder
    for name, _ in names:
        for parent in name.parents:
            if seen.get(str(parent).lower(), True) is False:
                raise _refused(path, str(name), f"lies below {str(parent)!r}, which is a file or a link")


def _safe_name(path: Path, name: str) -> PurePosixPath:
    """Return ``name`` as a relative path; refuse "..", absolute names and names that are invalid on Windows."""
    parts = name.split("/")
    if not name or name.startswith("/") or ".." in parts:
        raise _refused(path, name, "leads out of the archive")
    if any(character in '\\:*?"<>|' or ord(character) < 32 for character in name):
        raise _refused(path, name, "is not a portable name")
    for part in parts:
        if part.split(".")[0].lower() in _WINDOWS_DEVICES or (part not in ("", ".") and part[-1] in ". "):
            raise _refused(path, name, "is not a portable name")
    return PurePosixPath(name)


def _read_all(path: Path, archive: tarfile.TarFile, members: list[tarfile.TarInfo]) -> None:
    """Read every file to its end: tarfile reports a truncated last member as a short file."""
    for member in members:
        if member.isfile() and len(_content(archive, member)) != member.size:
            raise ArchiveError(f"{path}: {member.name!r} is truncated", hint=_again(path))
    # The checksum of the compressed stream follows the last member; it is verified only when it is read.
    assert archive.fileobj is not None
    while archive.fileobj.read(1 << 20):
        pass


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = archive.extractfile(member)
    assert stream is not None
    with stream:
        return stream.read()


def _write(file: Path, content: bytes, *, executable: bool) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    # "x" refuses to replace an existing file.
    with file.open("xb") as stream:
        stream.write(content)
    file.chmod(0o755 if executable else 0o644)
    return file


def _refused(path: Path, member: str, why: str) -> ArchiveError:
    return ArchiveError(f"{path}: member {member!r} {why}", hint=f"do not use {path.name}; fetch it again or report it")


def _again(path: Path) -> str:
    return f"delete {path} and run the same command again"
