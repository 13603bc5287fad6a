"""Unified diffs, applied to the letter: no fuzz, no guessing, and an offset only as far as the caller allows.

patch(1) looks for the place that fits best; here a hunk has exactly one place, or it is refused with both sides shown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from scripts.errors import PatchError

_HEADER = re.compile(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")
_UNSUPPORTED = ("rename ", "copy ", "new file", "deleted file", "old mode", "new mode", "GIT binary", "Binary files")
_SHOWN_AROUND = 3


class MalformedPatchError(PatchError):
    """The patch itself cannot be read."""


class MismatchError(PatchError):
    """The lines that a hunk quotes are not in the file."""


class OffsetError(PatchError):
    """They are, but farther from the stated line than allowed."""


class AmbiguousError(PatchError):
    """They are there more than once within the allowed offset."""


class AlreadyAppliedError(PatchError):
    """The file already reads as the hunk would leave it."""


@dataclass(frozen=True)
class Hunk:
    """``old`` (lines with their ends) at 1-based line ``start`` becomes ``new``; ``text`` is the hunk as written."""

    start: int
    old: tuple[str, ...]
    new: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class FilePatch:
    """The hunks for one file, ``path`` relative to the tree."""

    path: str
    hunks: tuple[Hunk, ...]


def split_lines(text: str) -> list[str]:
    """Lines with their ends, cut at newlines alone: str.splitlines also cuts at form feeds and others."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def parse(text: str, name: str) -> tuple[FilePatch, ...]:
    """Read a patch; ``name`` is what errors call it. Lines before a ``---`` are its description.

    Raises:
        MalformedPatchError: with the patch's line number; also for what only git understands (renames, modes).
    """
    lines = split_lines(text)
    files: list[FilePatch] = []
    at = 0
    while at < len(lines):
        if lines[at].startswith(_UNSUPPORTED):
            raise _malformed(name, at, "only changes of existing files are understood; put new files into the overlay")
        if not lines[at].startswith("--- "):
            at += 1
            continue
        path = _path(name, lines, at)
        if path in [file.path for file in files]:
            raise _malformed(name, at, f"{path} is patched twice")
        hunks, at = _parse_hunks(name, lines, at + 2)
        files.append(FilePatch(path, hunks))
    if not files:
        raise MalformedPatchError(f"{name}: holds no change")
    return tuple(files)


def apply(file: FilePatch, content: str, *, max_offset: int, name: str) -> str:
    """``content`` with every hunk of ``file`` applied.

    Each hunk's lines must be found exactly once within ``max_offset`` lines of where it says, after the hunk before.

    Raises:
        MismatchError, OffsetError, AmbiguousError, AlreadyAppliedError: with the hunk and the file as found.
    """
    lines = split_lines(content)
    result: list[str] = []
    done = 0
    for hunk in file.hunks:
        at = _place(file, hunk, lines, done, max_offset=max_offset, name=name)
        result += lines[done:at]
        result += hunk.new
        done = at + len(hunk.old)
    return "".join(result + lines[done:])


def _path(name: str, lines: list[str], at: int) -> str:
    """The file named by the header at ``at``, the same on both sides."""
    after = lines[at + 1] if at + 1 < len(lines) else ""
    if not after.startswith("+++ "):
        raise _malformed(name, at + 1, "a line '--- a/FILE' must be followed by '+++ b/FILE'")
    old, new = (line[4:].rstrip("\n").split("\t")[0] for line in (lines[at], after))
    path = old.removeprefix("a/")
    if not (old.startswith("a/") and new == f"b/{path}"):
        raise _malformed(name, at, "the header must read '--- a/FILE' and '+++ b/FILE', the same file twice")
    if not path or path.startswith("/") or "\\" in path or ".." in path.split("/"):
        raise _malformed(name, at, f"{path!r} is not a path below the tree")
    return path


def _parse_hunks(name: str, lines: list[str], at: int) -> tuple[tuple[Hunk, ...], int]:
    hunks: list[Hunk] = []
    while at < len(lines) and lines[at].startswith("@@"):
        hunk, at = _parse_hunk(name, lines, at)
        hunks.append(hunk)
    if not hunks:
        raise _malformed(name, at, "a hunk '@@ -LINE,COUNT +LINE,COUNT @@' must follow the header")
    return tuple(hunks), at


def _parse_hunk(name: str, lines: list[str], at: int) -> tuple[Hunk, int]:
    header = _HEADER.match(lines[at])
    if header is None:
        raise _malformed(name, at, "a hunk must begin with '@@ -LINE,COUNT +LINE,COUNT @@'")
    start, old_count, _, new_count = (int(number) if number is not None else 1 for number in header.groups())
    old: list[str] = []
    new: list[str] = []
    first = at
    at += 1
    while at < len(lines) and (len(old) < old_count or len(new) < new_count or lines[at].startswith("\\")):
        sign, body = lines[at][0], lines[at][1:]
        if sign == "\\":
            _drop_newline(name, lines, at, old, new)
        elif sign in " +-":
            old += [body] if sign != "+" else []
            new += [body] if sign != "-" else []
        else:
            raise _malformed(name, at, "a line of a hunk must begin with a space, '+', '-' or '\\'")
        at += 1
    if (len(old), len(new)) != (old_count, new_count):
        raise _malformed(name, first, f"the hunk holds -{len(old)} +{len(new)} lines, not -{old_count} +{new_count}")
    if not old:
        raise _malformed(name, first, "the hunk quotes no line of the file: nothing anchors it")
    return Hunk(start, tuple(old), tuple(new), "".join(lines[first:at])), at


def _drop_newline(name: str, lines: list[str], at: int, old: list[str], new: list[str]) -> None:
    r"""``\ No newline at end of file`` speaks of the line before it, on the side or sides it is on."""
    sign = lines[at - 1][0]
    for side, signs in ((old, " -"), (new, " +")):
        if sign in signs and side:
            side[-1] = side[-1].removesuffix("\n")
    if sign not in " +-":
        raise _malformed(name, at, "'\\ No newline at end of file' follows no line")


def _place(file: FilePatch, hunk: Hunk, lines: list[str], done: int, *, max_offset: int, name: str) -> int:
    """The one index of ``lines`` where ``hunk`` applies, not before ``done``."""
    stated = hunk.start - 1
    found = [index for index in _occurrences(hunk.old, lines) if index >= done]
    allowed = [index for index in found if abs(index - stated) <= max_offset]
    after = [index for index in _occurrences(hunk.new, lines) if done <= index and abs(index - stated) <= max_offset]
    # A hunk that only adds lines still fits after it was applied; what it leaves behind tells.
    applied = bool(after) and (not allowed or len(hunk.new) > len(hunk.old))
    if len(allowed) == 1 and not applied:
        return allowed[0]
    kind: type[PatchError]
    if applied:
        kind, why = AlreadyAppliedError, f"line {after[0] + 1} already reads as the hunk would leave it"
    elif allowed:
        kind, why = AmbiguousError, f"the lines it quotes are there at {_numbered(allowed)}"
    elif found:
        kind, why = (
            OffsetError,
            f"expected at line {hunk.start}, found at {_numbered(found)}, allowed: {max_offset} off",
        )
    else:
        kind, why = MismatchError, f"the lines it quotes are not in the file (expected at line {hunk.start})"
        why += "; the file has CRLF line ends" if any(line.endswith("\r\n") for line in lines) else ""
    shown = _excerpt(lines, ((after if applied else allowed or found) or [stated])[0], len(hunk.old))
    raise kind(
        f"{name} does not apply to {file.path}: {why}\n"
        f"the hunk:\n{_indent(hunk.text)}\nthe file as found:\n{_indent(shown)}",
        hint="bring the patch in line with this release's file, or give the release a series of its own",
    )


def _numbered(indexes: list[int]) -> str:
    return " and ".join(f"line {index + 1}" for index in indexes)


def _occurrences(wanted: tuple[str, ...], lines: list[str]) -> list[int]:
    if not wanted:
        return []
    return [
        index
        for index in range(len(lines) - len(wanted) + 1)
        if lines[index] == wanted[0] and tuple(lines[index : index + len(wanted)]) == wanted
    ]


def _excerpt(lines: list[str], index: int, length: int) -> str:
    first = max(0, min(index, len(lines)) - _SHOWN_AROUND)
    last = min(len(lines), index + length + _SHOWN_AROUND)
    return "\n".join(f"{number + 1:5} {lines[number].rstrip()}" for number in range(first, last)) or "(empty)"


def _indent(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.rstrip("\n").split("\n"))


def _malformed(name: str, at: int, why: str) -> MalformedPatchError:
    return MalformedPatchError(f"{name}:{at + 1}: {why}")
