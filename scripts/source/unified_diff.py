"""Parses unified diffs and applies them exactly: no fuzz, and an offset only as large as the caller allows.

patch(1) applies a hunk at the best match. Here a hunk must match exactly one place, or PatchError shows both sides.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from scripts.errors import PatchError

_HEADER = re.compile(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")
_UNSUPPORTED = ("rename ", "copy ", "new file", "deleted file", "old mode", "new mode", "GIT binary", "Binary files")
_SHOWN_AROUND = 3


@dataclass(frozen=True)
class Hunk:
    """A hunk: the lines ``old`` at the 1-based line ``start`` become ``new``; both include their line ends.

    ``text`` is the hunk as it stands in the patch.
    """

    start: int
    old: tuple[str, ...]
    new: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class FilePatch:
    """The hunks for one file; ``path`` is relative to the tree."""

    path: str
    hunks: tuple[Hunk, ...]


def split_lines(text: str) -> list[str]:
    """Split ``text`` at newlines only and keep the line ends; str.splitlines also splits at form feeds."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def parse(text: str, name: str) -> tuple[FilePatch, ...]:
    """Parse a patch; errors refer to it as ``name``. Lines before the first ``---`` line are a description.

    Raises:
        PatchError: if the patch is malformed, or contains a change that only git supports, such as a rename or a mode;
            the message gives the line number in the patch.
    """
    lines = split_lines(text)
    files: list[FilePatch] = []
    at = 0
    while at < len(lines):
        if lines[at].startswith(_UNSUPPORTED):
            raise _malformed(name, at, "only changes of existing files are supported; put new files into the overlay")
        if not lines[at].startswith("--- "):
            at += 1
            continue
        path = _path(name, lines, at)
        if path in [file.path for file in files]:
            raise _malformed(name, at, f"{path} is patched twice")
        hunks, at = _parse_hunks(name, lines, at + 2)
        files.append(FilePatch(path, hunks))
    if not files:
        raise PatchError(f"{name}: contains no change")
    return tuple(files)


def apply(file: FilePatch, content: str, *, max_offset: int, name: str) -> str:
    """Return ``content`` with every hunk of ``file`` applied.

    The old lines of a hunk must occur exactly once within ``max_offset`` lines of the stated line, and after the
    previous hunk.

    Raises:
        PatchError: if a hunk does not match, matches more than once, matches too far from its stated line, or is
            already applied; the message shows the hunk and the lines of the file.
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
    """Return the file that the header at line ``at`` names; both sides of the header must name the same file."""
    after = lines[at + 1] if at + 1 < len(lines) else ""
    if not after.startswith("+++ "):
        raise _malformed(name, at + 1, "a line '--- a/FILE' must be followed by '+++ b/FILE'")
    old, new = (line[4:].rstrip("\n").split("\t")[0] for line in (lines[at], after))
    path = old.removeprefix("a/")
    if not (old.startswith("a/") and new == f"b/{path}"):
        raise _malformed(name, at, "the header must be '--- a/FILE' and '+++ b/FILE' with the same FILE")
    if not path or path.startswith("/") or "\\" in path or ".." in path.split("/"):
        raise _malformed(name, at, f"{path!r} is not a path inside the tree")
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
        raise _malformed(name, first, f"the hunk has -{len(old)} +{len(new)} lines, not -{old_count} +{new_count}")
    if not old:
        raise _malformed(name, first, "the hunk contains no line of the file, so its place is unknown")
    return Hunk(start, tuple(old), tuple(new), "".join(lines[first:at])), at


def _drop_newline(name: str, lines: list[str], at: int, old: list[str], new: list[str]) -> None:
    r"""Remove the newline of the last line, which ``\ No newline at end of file`` refers to, on its side or sides."""
    sign = lines[at - 1][0]
    for side, signs in ((old, " -"), (new, " +")):
        if sign in signs and side:
            side[-1] = side[-1].removesuffix("\n")
    if sign not in " +-":
        raise _malformed(name, at, "there is no line before '\\ No newline at end of file'")


def _place(file: FilePatch, hunk: Hunk, lines: list[str], done: int, *, max_offset: int, name: str) -> int:
    """Return the only index of ``lines``, from ``done`` on, where ``hunk`` applies."""
    stated = hunk.start - 1
    found = [index for index in _occurrences(hunk.old, lines) if index >= done]
    allowed = [index for index in found if abs(index - stated) <= max_offset]
    after = [index for index in _occurrences(hunk.new, lines) if done <= index and abs(index - stated) <= max_offset]
    # A hunk that only adds lines still matches after it was applied; the lines that it added show that it was.
    applied = bool(after) and (not allowed or len(hunk.new) > len(hunk.old))
    if len(allowed) == 1 and not applied:
        return allowed[0]
    if applied:
        why = f"the hunk is already applied at line {after[0] + 1}"
    elif allowed:
        why = f"its old lines occur more than once: at {_line_numbers(allowed)}"
    elif found:
        why = f"its old lines are at {_line_numbers(found)} instead of line {hunk.start}; allowed offset: {max_offset}"
    else:
        why = f"its old lines are not in the file (expected at line {hunk.start})"
        why += "; the file has CRLF line ends" if any(line.endswith("\r\n") for line in lines) else ""
    excerpt = _excerpt(lines, ((after if applied else allowed or found) or [stated])[0], len(hunk.old))
    raise PatchError(
        f"{name} does not apply to {file.path}: {why}\nthe hunk:\n{_indent(hunk.text)}\nthe file:\n{_indent(excerpt)}",
        hint="change the patch so that it matches this release, or create a separate series for the release",
    )


def _line_numbers(indexes: list[int]) -> str:
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


def _malformed(name: str, at: int, why: str) -> PatchError:
    return PatchError(f"{name}:{at + 1}: {why}")
