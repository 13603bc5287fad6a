"""Patches apply to the letter or not at all; the patched tree is the same whoever makes it, whenever."""

from __future__ import annotations

import difflib
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripts.errors import PatchError
from scripts.model import RegistryPin, Release
from scripts.source import patching, unified_diff
from scripts.source.unified_diff import (
    AlreadyAppliedError,
    AmbiguousError,
    MalformedPatchError,
    MismatchError,
    OffsetError,
)

FILE = "one\ntwo\nthree\nfour\nfive\nsix\nseven\n"
RELEASE = Release("9.9", "9", RegistryPin("example", "9.9", "example-9.9-py3-none-any.whl", "0" * 64))


def diff(old: str, new: str, context: int = 3) -> str:
    """What `diff -u` would write, the missing newline at the end included."""
    lines = difflib.unified_diff(
        unified_diff.split_lines(old), unified_diff.split_lines(new), "a/f", "b/f", n=context, lineterm="\n"
    )
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def applied(patch: str, content: str, max_offset: int = 0) -> str:
    (file,) = unified_diff.parse(patch, "p")
    return unified_diff.apply(file, content, max_offset=max_offset, name="p")


unlike = st.lists(st.text(st.characters(exclude_characters="\n", codec="utf-8"), max_size=4), unique=True, max_size=12)
alike = st.lists(st.sampled_from(["", "a", "b", "\x0c", "\r"]), max_size=12)
ends = st.sampled_from(["\n", ""])


@st.composite
def edits(draw: st.DrawFn, lines: st.SearchStrategy[list[str]]) -> tuple[str, str]:
    """A text and another that a few edits made of it."""
    old = draw(lines)
    new = list(old)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(new)))
        new[at : at + draw(st.integers(0, 3))] = draw(st.lists(st.sampled_from(["new", "newer", ""]), max_size=2))
    return "\n".join(old) + draw(ends), "\n".join(new) + draw(ends)


@given(edits(unlike))
@settings(max_examples=300)
def test_what_difflib_tells_apart_is_applied(texts: tuple[str, str]) -> None:
    old, new = texts
    patch = diff(old, new)
    if not patch or not old:
        return
    try:
        assert applied(patch, old) == new
    except AlreadyAppliedError:
        # Only where lines repeat (the edits bring some) may a hunk look as if it had been applied.
        assert len(set(new.split("\n"))) < len(new.split("\n"))


@given(edits(alike), st.integers(0, 3))
@settings(max_examples=300)
def test_where_lines_repeat_it_refuses_rather_than_guess(texts: tuple[str, str], context: int) -> None:
    old, new = texts
    patch = diff(old, new, context)
    try:
        result = applied(patch, old)
    except PatchError:
        return
    assert result == new


@given(edits(unlike), st.integers(0, 5))
@settings(max_examples=100)
def test_an_offset_is_followed_as_far_as_allowed_and_no_farther(texts: tuple[str, str], offset: int) -> None:
    old, new = texts
    patch = diff(old, new)
    moved = "".join(f"moved {number}\n" for number in range(offset))
    if not patch or not old or "\n@@ -0" in patch:
        return
    try:
        assert applied(patch, moved + old, offset) == moved + new
    except (AlreadyAppliedError, AmbiguousError):
        return
    if offset:
        with pytest.raises(PatchError):
            applied(patch, moved + old, offset - 1)


@pytest.mark.skipif(shutil.which("patch") is None, reason="needs patch(1): apt install patch")
@given(edits(unlike))
@settings(max_examples=40, deadline=None)
def test_patch_agrees(texts: tuple[str, str]) -> None:
    old, new = texts
    patch = diff(old, new)
    # patch(1) takes carriage returns and what looks like its own headers in its own way.
    if not patch or not old or re.search(r"\r|^(\+\+\+|---|\*\*\*) .*\n(?!\+\+\+ b/f)", patch.split("\n", 2)[2], re.M):
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "f"
        file.write_bytes(old.encode())
        command = ["patch", "--batch", "--fuzz=0", "--binary", "--silent", "-p1"]
        subprocess.run(command, cwd=folder, input=patch.encode(), check=True)
        theirs = file.read_bytes().decode() if file.exists() else ""
    try:
        assert applied(patch, old) == theirs
    except AlreadyAppliedError:
        assert len(set(new.split("\n"))) < len(new.split("\n"))


def test_the_error_shows_the_hunk_and_the_file_as_found() -> None:
    patch = diff(FILE, FILE.replace("four", "4"), 1)
    with pytest.raises(MismatchError) as caught:
        applied(patch, FILE.replace("five", "FIVE"))
    told = str(caught.value)
    assert "p does not apply to f: the lines it quotes are not in the file (expected at line 3)" in told
    assert "    @@ -3,3 +3,3 @@\n     three\n    -four\n    +4\n     five" in told
    assert "        3 three\n        4 four\n        5 FIVE\n" in told
    assert caught.value.hint


@pytest.mark.parametrize(
    ("content", "max_offset", "kind", "words"),
    [
        ("zero\n" + FILE, 0, OffsetError, "expected at line 3, found at line 4, allowed: 0 off"),
        ("zero\n" * 3 + FILE, 2, OffsetError, "found at line 6, allowed: 2 off"),
        (FILE.replace("four", "4"), 0, AlreadyAppliedError, "line 3 already reads as the hunk would leave it"),
        (FILE + FILE, 7, AmbiguousError, "are there at line 3 and line 10"),
        (FILE.replace("\n", "\r\n"), 9, MismatchError, "the file has CRLF line ends"),
        ("", 9, MismatchError, "(empty)"),
        (FILE.replace("five", "five "), 9, MismatchError, "not in the file"),
    ],
)
def test_each_way_of_not_applying_has_its_name(
    content: str, max_offset: int, kind: type[PatchError], words: str
) -> None:
    with pytest.raises(kind, match=re.escape(words)):
        applied(diff(FILE, FILE.replace("four", "4"), 1), content, max_offset)


@pytest.mark.parametrize(("before", "after"), [(0, 1), (1, 0), (1, 1)])
def test_lines_are_not_added_twice(before: int, after: int) -> None:
    """A hunk with context on one side only still finds its lines after it was applied."""
    context = FILE.split("\n")
    old = context[3 - before : 3 + after]
    body = "".join(f" {line}\n" for line in old[:before]) + "+new\n" + "".join(f" {line}\n" for line in old[before:])
    patch = f"--- a/f\n+++ b/f\n@@ -{4 - before},{len(old)} +{4 - before},{len(old) + 1} @@\n{body}"
    once = applied(patch, FILE, 2)
    assert once == FILE.replace("four", "new\nfour")
    with pytest.raises(AlreadyAppliedError):
        applied(patch, once, 2)


def test_a_hunk_never_goes_before_the_one_above_it() -> None:
    """The second hunk's lines are within its offset, but in lines that the first has done with."""
    patch = "--- a/f\n+++ b/f\n@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n@@ -4 +4 @@\n-c\n+C\n"
    with pytest.raises(MismatchError):
        applied(patch, "a\nb\nc\nd\n", 1)


HEADER = "--- a/f\n+++ b/f\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "p: holds no change"),
        ("words\n", "p: holds no change"),
        (HEADER, "p:3: a hunk"),
        ("--- a/f\n@@ -1 +1 @@\n", "p:2: a line '--- a/FILE' must be followed by"),
        ("--- a/f\n+++ b/g\n@@ -1 +1 @@\n-a\n+b\n", "p:1: the header"),
        ("--- /dev/null\n+++ b/g\n@@ -0,0 +1 @@\n+b\n", "p:1: the header"),
        ("--- a/../f\n+++ b/../f\n@@ -1 +1 @@\n-a\n+b\n", "not a path below the tree"),
        ("rename from f\n" + HEADER + "@@ -1 +1 @@\n-a\n+b\n", "p:1: only changes of existing files"),
        (HEADER + "@@ -1,2 +1 @@\n-a\n+b\n", "p:3: the hunk holds -1 +1 lines, not -2 +1"),
        (HEADER + "@@ -1 +1 @@\n-a\n\n+b\n", "p:5: a line of a hunk must begin with"),
        (HEADER + "@@ one @@\n-a\n+b\n", "p:3: a hunk must begin"),
        (HEADER + "@@ -3,0 +4 @@\n+b\n", "p:3: the hunk quotes no line of the file"),
        ((HEADER + "@@ -1 +1 @@\n-a\n+b\n") * 2, "p:6: f is patched twice"),
    ],
)
def test_a_malformed_patch_is_located(text: str, words: str) -> None:
    with pytest.raises(MalformedPatchError, match=re.escape(words)):
        unified_diff.parse(text, "p")


# --- series, overlays and the tree


class House:
    """A folder of patches and a pristine release, both of our own making."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.patches = folder / "patches"
        self.pristine = folder / "pristine"
        self.write("pristine/pkg/ops.py", FILE)
        self.write("pristine/setup.py", "upstream's\n")
        self.write("pristine/run.sh", "#!/bin/sh\n").chmod(0o775)
        self.write("patches/9/series", "# order\nloader.patch offset<=2  # why\n")
        self.patch(diff(FILE, FILE.replace("four", "4")))
        self.write("patches/common/overlay/pkg/_loader.py", "ours\n")
        self.write("patches/9/overlay/setup.py", "ours too\n")
        self.write("patches/9/replaces", "setup.py\n")

    def write(self, name: str, content: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return path

    def patch(self, text: str) -> None:
        self.write("patches/9/loader.patch", text.replace("a/f\n", "a/pkg/ops.py\n").replace("b/f\n", "b/pkg/ops.py\n"))

    def prepare(self, to: str = "tree") -> patching.PatchedTree:
        return patching.prepare(RELEASE, self.pristine, self.folder / to, patches=self.patches)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def snapshot(tree: Path) -> dict[str, tuple[object, ...]]:
    return {
        path.relative_to(tree).as_posix(): (
            oct(path.stat().st_mode),
            path.stat().st_mtime_ns,
            path.read_bytes() if path.is_file() else None,
        )
        for path in [tree, *tree.rglob("*")]
    }


def test_patches_then_overlays_then_the_origin(house: House) -> None:
    tree = house.prepare()
    assert tree.path == house.folder / "tree"
    assert (tree.path / "pkg/ops.py").read_text() == FILE.replace("four", "4")
    assert (tree.path / "pkg/_loader.py").read_text() == "ours\n"
    assert (tree.path / "setup.py").read_text() == "ours too\n"
    assert json.loads((tree.path / "build_origin.json").read_text()) == {
        "release": "9.9",
        "series": "9",
        "series_sha256": tree.series_hash,
        "source": {
            "package": "example",
            "version": "9.9",
            "filename": "example-9.9-py3-none-any.whl",
            "sha256": "0" * 64,
        },
    }
    assert (house.pristine / "pkg/ops.py").read_text() == FILE


def test_a_patch_of_all_series_lies_in_common(house: House) -> None:
    moved = house.patches / "common" / "loader.patch"
    before = patching.read_series("9", house.patches).sha256
    (house.patches / "9" / "loader.patch").rename(moved)
    tree = house.prepare()
    assert (tree.path / "pkg/ops.py").read_text() == FILE.replace("four", "4")
    assert tree.series_hash == before
    moved.write_text("words\n" + moved.read_text())
    assert patching.read_series("9", house.patches).sha256 != before


def test_the_same_in_gives_the_same_bytes_modes_and_times(house: House) -> None:
    first = house.prepare("first")
    os.utime(house.pristine / "setup.py", (1, 1))
    (house.pristine / "pkg/ops.py").chmod(0o600)
    umask = os.umask(0o077)
    try:
        second = house.prepare("second")
    finally:
        os.umask(umask)
    assert snapshot(first.path) == snapshot(second.path)
    assert first.series_hash == second.series_hash
    assert (second.path / "run.sh").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("patches/9/series", "loader.patch offset<=3\n"),
        ("patches/9/loader.patch", "words\n" + diff(FILE, FILE.replace("four", "4")).replace("/f\n", "/pkg/ops.py\n")),
        ("patches/common/overlay/pkg/_loader.py", "changed\n"),
        ("patches/common/overlay/more.py", ""),
        ("patches/9/overlay/setup.py", "changed\n"),
        ("patches/9/replaces", "setup.py\nmore.py\n"),
    ],
)
def test_whatever_decides_the_tree_changes_the_hash(house: House, name: str, content: str) -> None:
    before = patching.read_series("9", house.patches).sha256
    house.write(name, content)
    assert patching.read_series("9", house.patches).sha256 != before


def test_comments_and_compiled_litter_do_not_change_it(house: House) -> None:
    before = house.prepare()
    house.write("patches/9/series", "loader.patch offset<=2\n")
    house.write("patches/common/overlay/pkg/__pycache__/_loader.cpython-311.pyc", "litter")
    house.write("pristine/pkg/__pycache__/ops.cpython-311.pyc", "litter")
    after = house.prepare("other")
    assert after.series_hash == before.series_hash
    assert snapshot(after.path) == snapshot(before.path)


def test_an_overlay_does_not_hide_a_file_unasked(house: House) -> None:
    house.write("patches/9/replaces", "")
    with pytest.raises(PatchError, match=r"the overlay's setup\.py would hide upstream's own file"):
        house.prepare()
    assert not (house.folder / "tree").exists()


def test_one_path_in_both_overlays_is_refused(house: House) -> None:
    house.write("patches/9/overlay/pkg/_loader.py", "which?\n")
    with pytest.raises(PatchError, match=r"pkg/_loader\.py is in two overlays"):
        house.prepare()


def test_a_patch_for_a_file_that_is_not_there(house: House) -> None:
    (house.pristine / "pkg/ops.py").unlink()
    with pytest.raises(
        PatchError, match=r"9/loader\.patch does not apply: pkg/ops\.py is not in the release\nthe hunk:\n@@"
    ):
        house.prepare()


@pytest.mark.parametrize(
    ("series", "words"),
    [
        ("loader.patch offset<=\n", "series:1: 'loader.patch offset<=' is not"),
        ("\nloader.patch fuzz<=1\n", "series:2: 'loader.patch fuzz<=1' is not"),
        ("../9/loader.patch\n", "series:1: '../9/loader.patch' is not"),
        ("loader.patch\nother.patch\n", "series:2: there is no "),
        ("# loader.patch\n", "loader.patch is in the folder and in no line"),
    ],
)
def test_a_wrong_series_file_is_located(house: House, series: str, words: str) -> None:
    house.write("patches/9/series", series)
    with pytest.raises(PatchError, match=re.escape(words)):
        house.prepare()


def test_a_series_that_is_not_there(house: House) -> None:
    with pytest.raises(PatchError, match="there is no series '8'"):
        patching.read_series("8", house.patches)


def test_a_tree_of_ours_is_replaced_and_anything_else_is_not(house: House) -> None:
    house.prepare()
    house.write("tree/left", "over")
    house.prepare()
    assert not (house.folder / "tree/left").exists()
    house.write("theirs/file", "precious")
    with pytest.raises(PatchError, match="holds something that is no patched tree"):
        house.prepare("theirs")
    assert (house.folder / "theirs/file").read_text() == "precious"


def test_an_error_leaves_the_old_tree_and_nothing_beside_it(house: House) -> None:
    old = snapshot(house.prepare().path)
    house.patch(diff(FILE.replace("four", "fear"), FILE))
    with pytest.raises(PatchError):
        house.prepare()
    assert snapshot(house.folder / "tree") == old
    assert sorted(path.name for path in house.folder.iterdir()) == ["patches", "pristine", "tree"]


def test_bytes_that_are_no_text_survive(house: House) -> None:
    odd = b"\xff\xfe\r\n\x0c\n" + FILE.encode()
    (house.pristine / "pkg/ops.py").write_bytes(odd)
    tree = house.prepare()
    assert (tree.path / "pkg/ops.py").read_bytes() == odd.replace(b"four", b"4")


@pytest.mark.parametrize("name", ["0.3", "0.4"])
def test_our_own_series_can_be_read_and_replaces_only_what_it_lays_over(name: str) -> None:
    series = patching.read_series(name)
    assert series.replaces <= set(series.overlay)
    for patch in series.patches:
        unified_diff.parse(patch.path.read_text(encoding="utf-8"), patch.path.name)
