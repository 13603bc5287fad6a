"""Tests of scripts.source.unified_diff and scripts.source.patching."""

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

FILE = "one\ntwo\nthree\nfour\nfive\nsix\nseven\n"
RELEASE = Release("9.9", "9", RegistryPin("example", "9.9", "example-9.9-py3-none-any.whl", "0" * 64))


def diff(old: str, new: str, context: int = 3) -> str:
    """Return what `diff -u` prints, including the marker of a missing newline at the end."""
    lines = difflib.unified_diff(
        unified_diff.split_lines(old), unified_diff.split_lines(new), "a/f", "b/f", n=context, lineterm="\n"
    )
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def apply_patch(patch: str, content: str, max_offset: int = 0) -> str:
    (file,) = unified_diff.parse(patch, "p")
    return unified_diff.apply(file, content, max_offset=max_offset, name="p")


distinct_lines = st.lists(
    st.text(st.characters(exclude_characters="\n", codec="utf-8"), max_size=4), unique=True, max_size=12
)
repeating_lines = st.lists(st.sampled_from(["", "a", "b", "\x0c", "\r"]), max_size=12)
line_ends = st.sampled_from(["\n", ""])


@st.composite
def edits(draw: st.DrawFn, lines: st.SearchStrategy[list[str]]) -> tuple[str, str]:
    """Return a text and an edited copy of it."""
    old = draw(lines)
    new = list(old)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(new)))
        new[at : at + draw(st.integers(0, 3))] = draw(st.lists(st.sampled_from(["new", "newer", ""]), max_size=2))
    return "\n".join(old) + draw(line_ends), "\n".join(new) + draw(line_ends)


def assert_seems_already_applied(error: PatchError, new: str) -> None:
    """Check that a hunk was refused as already applied; only repeated lines in ``new`` justify that."""
    assert "already applied" in str(error)
    assert len(set(new.split("\n"))) < len(new.split("\n"))


@given(edits(distinct_lines))
@settings(max_examples=300)
def test_applies_diffs_of_difflib(texts: tuple[str, str]) -> None:
    old, new = texts
    patch = diff(old, new)
    if not patch or not old:
        return
    try:
        assert apply_patch(patch, old) == new
    except PatchError as error:
        assert_seems_already_applied(error, new)


@given(edits(repeating_lines), st.integers(0, 3))
@settings(max_examples=300)
def test_applies_correctly_or_refuses_if_lines_repeat(texts: tuple[str, str], context: int) -> None:
    old, new = texts
    patch = diff(old, new, context)
    try:
        result = apply_patch(patch, old)
    except PatchError:
        return
    assert result == new


@given(edits(distinct_lines), st.integers(0, 5))
@settings(max_examples=100)
def test_applies_up_to_the_allowed_offset(texts: tuple[str, str], offset: int) -> None:
    old, new = texts
    patch = diff(old, new)
    moved = "".join(f"moved {number}\n" for number in range(offset))
    if not patch or not old or "\n@@ -0" in patch:
        return
    try:
        assert apply_patch(patch, moved + old, offset) == moved + new
    except PatchError as error:
        assert re.search("already applied|more than once", str(error))
        return
    if offset:
        with pytest.raises(PatchError):
            apply_patch(patch, moved + old, offset - 1)


@pytest.mark.skipif(shutil.which("patch") is None, reason="needs patch(1): apt install patch")
@given(edits(distinct_lines))
@settings(max_examples=40, deadline=None)
def test_agrees_with_the_patch_program(texts: tuple[str, str]) -> None:
    old, new = texts
    patch = diff(old, new)
    # patch(1) treats carriage returns and lines that look like its headers differently.
    if not patch or not old or re.search(r"\r|^(\+\+\+|---|\*\*\*) .*\n(?!\+\+\+ b/f)", patch.split("\n", 2)[2], re.M):
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "f"
        file.write_bytes(old.encode())
        command = ["patch", "--batch", "--fuzz=0", "--binary", "--silent", "-p1"]
        subprocess.run(command, cwd=folder, input=patch.encode(), check=True)
        expected = file.read_bytes().decode() if file.exists() else ""
    try:
        assert apply_patch(patch, old) == expected
    except PatchError as error:
        assert_seems_already_applied(error, new)


def test_error_shows_the_hunk_and_the_file() -> None:
    patch = diff(FILE, FILE.replace("four", "4"), 1)
    with pytest.raises(PatchError) as caught:
        apply_patch(patch, FILE.replace("five", "FIVE"))
    message = str(caught.value)
    assert "p does not apply to f: its old lines are not in the file (expected at line 3)" in message
    assert "    @@ -3,3 +3,3 @@\n     three\n    -four\n    +4\n     five" in message
    assert "        3 three\n        4 four\n        5 FIVE\n" in message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("content", "max_offset", "message"),
    [
        ("zero\n" + FILE, 0, "its old lines are at line 4 instead of line 3; allowed offset: 0"),
        ("zero\n" * 3 + FILE, 2, "at line 6 instead of line 3; allowed offset: 2"),
        (FILE.replace("four", "4"), 0, "the hunk is already applied at line 3"),
        (FILE + FILE, 7, "its old lines occur more than once: at line 3 and line 10"),
        (FILE.replace("\n", "\r\n"), 9, "the file has CRLF line ends"),
        ("", 9, "(empty)"),
        (FILE.replace("five", "five "), 9, "its old lines are not in the file"),
    ],
)
def test_error_states_why_a_hunk_does_not_apply(content: str, max_offset: int, message: str) -> None:
    with pytest.raises(PatchError, match=re.escape(message)):
        apply_patch(diff(FILE, FILE.replace("four", "4"), 1), content, max_offset)


@pytest.mark.parametrize(("before", "after"), [(0, 1), (1, 0), (1, 1)])
def test_does_not_add_lines_twice(before: int, after: int) -> None:
    """A hunk with context on one side only still matches after it was applied."""
    context = FILE.split("\n")
    old = context[3 - before : 3 + after]
    body = "".join(f" {line}\n" for line in old[:before]) + "+new\n" + "".join(f" {line}\n" for line in old[before:])
    patch = f"--- a/f\n+++ b/f\n@@ -{4 - before},{len(old)} +{4 - before},{len(old) + 1} @@\n{body}"
    once = apply_patch(patch, FILE, 2)
    assert once == FILE.replace("four", "new\nfour")
    with pytest.raises(PatchError, match="already applied"):
        apply_patch(patch, once, 2)


def test_does_not_apply_a_hunk_before_the_previous_one() -> None:
    """The lines of the second hunk are within its offset, but the first hunk has already changed them."""
    patch = "--- a/f\n+++ b/f\n@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n@@ -4 +4 @@\n-c\n+C\n"
    with pytest.raises(PatchError, match="its old lines are not in the file"):
        apply_patch(patch, "a\nb\nc\nd\n", 1)


HEADER = "--- a/f\n+++ b/f\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "p: contains no change"),
        ("words\n", "p: contains no change"),
        (HEADER, "p:3: a hunk"),
        ("--- a/f\n@@ -1 +1 @@\n", "p:2: a line '--- a/FILE' must be followed by"),
        ("--- a/f\n+++ b/g\n@@ -1 +1 @@\n-a\n+b\n", "p:1: the header"),
        ("--- /dev/null\n+++ b/g\n@@ -0,0 +1 @@\n+b\n", "p:1: the header"),
        ("--- a/../f\n+++ b/../f\n@@ -1 +1 @@\n-a\n+b\n", "not a path inside the tree"),
        ("rename from f\n" + HEADER + "@@ -1 +1 @@\n-a\n+b\n", "p:1: only changes of existing files"),
        (HEADER + "@@ -1,2 +1 @@\n-a\n+b\n", "p:3: the hunk has -1 +1 lines, not -2 +1"),
        (HEADER + "@@ -1 +1 @@\n-a\n\n+b\n", "p:5: a line of a hunk must begin with"),
        (HEADER + "@@ one @@\n-a\n+b\n", "p:3: a hunk must begin"),
        (HEADER + "@@ -3,0 +4 @@\n+b\n", "p:3: the hunk contains no line of the file"),
        ((HEADER + "@@ -1 +1 @@\n-a\n+b\n") * 2, "p:6: f is patched twice"),
    ],
)
def test_rejects_a_malformed_patch(text: str, message: str) -> None:
    with pytest.raises(PatchError, match=re.escape(message)):
        unified_diff.parse(text, "p")


# --- series, overlays and the tree


class Workspace:
    """A folder of patches and a pristine release, both written by the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.patches = folder / "patches"
        self.pristine = folder / "pristine"
        self.write("pristine/pkg/ops.py", FILE)
        self.write("pristine/setup.py", "upstream\n")
        self.write("pristine/run.sh", "#!/bin/sh\n").chmod(0o775)
        self.write("patches/9/series", "# order\nloader.patch offset<=2  # why\n")
        self.patch(diff(FILE, FILE.replace("four", "4")))
        self.write("patches/common/overlay/pkg/_loader.py", "overlay\n")
        self.write("patches/9/overlay/setup.py", "new setup\n")
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
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def snapshot(tree: Path) -> dict[str, tuple[object, ...]]:
    return {
        path.relative_to(tree).as_posix(): (
            oct(path.stat().st_mode),
            path.stat().st_mtime_ns,
            path.read_bytes() if path.is_file() else None,
        )
        for path in [tree, *tree.rglob("*")]
    }


def test_applies_patches_and_overlays_and_writes_the_origin(workspace: Workspace) -> None:
    tree = workspace.prepare()
    assert tree.path == workspace.folder / "tree"
    assert (tree.path / "pkg/ops.py").read_text() == FILE.replace("four", "4")
    assert (tree.path / "pkg/_loader.py").read_text() == "overlay\n"
    assert (tree.path / "setup.py").read_text() == "new setup\n"
    assert json.loads((tree.path / "build_origin.json").read_text()) == {
        "release": "9.9",
        "series": "9",
        "series_sha256": tree.series_sha256,
        "source": {
            "package": "example",
            "version": "9.9",
            "filename": "example-9.9-py3-none-any.whl",
            "sha256": "0" * 64,
        },
    }
    assert (workspace.pristine / "pkg/ops.py").read_text() == FILE


def test_reads_a_shared_patch_from_common(workspace: Workspace) -> None:
    moved = workspace.patches / "common" / "loader.patch"
    before = patching.read_series("9", workspace.patches).sha256
    (workspace.patches / "9" / "loader.patch").rename(moved)
    tree = workspace.prepare()
    assert (tree.path / "pkg/ops.py").read_text() == FILE.replace("four", "4")
    assert tree.series_sha256 == before
    moved.write_text("words\n" + moved.read_text())
    assert patching.read_series("9", workspace.patches).sha256 != before


def test_same_input_gives_same_contents_modes_and_times(workspace: Workspace) -> None:
    first = workspace.prepare("first")
    os.utime(workspace.pristine / "setup.py", (1, 1))
    (workspace.pristine / "pkg/ops.py").chmod(0o600)
    umask = os.umask(0o077)
    try:
        second = workspace.prepare("second")
    finally:
        os.umask(umask)
    assert snapshot(first.path) == snapshot(second.path)
    assert first.series_sha256 == second.series_sha256
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
def test_hash_changes_with_everything_that_affects_the_tree(workspace: Workspace, name: str, content: str) -> None:
    before = patching.read_series("9", workspace.patches).sha256
    workspace.write(name, content)
    assert patching.read_series("9", workspace.patches).sha256 != before


def test_hash_does_not_change_with_comments_and_bytecode(workspace: Workspace) -> None:
    before = workspace.prepare()
    workspace.write("patches/9/series", "loader.patch offset<=2\n")
    workspace.write("patches/common/overlay/pkg/__pycache__/_loader.cpython-311.pyc", "bytecode")
    workspace.write("pristine/pkg/__pycache__/ops.cpython-311.pyc", "bytecode")
    after = workspace.prepare("other")
    assert after.series_sha256 == before.series_sha256
    assert snapshot(after.path) == snapshot(before.path)


def test_rejects_an_overlay_file_that_replaces_an_unlisted_file(workspace: Workspace) -> None:
    workspace.write("patches/9/replaces", "")
    with pytest.raises(PatchError, match=r"the overlay file setup\.py would replace upstream's file"):
        workspace.prepare()
    assert not (workspace.folder / "tree").exists()


def test_rejects_a_path_in_both_overlays(workspace: Workspace) -> None:
    workspace.write("patches/9/overlay/pkg/_loader.py", "other\n")
    with pytest.raises(PatchError, match=r"two overlays contain pkg/_loader\.py"):
        workspace.prepare()


def test_rejects_a_patch_of_a_missing_file(workspace: Workspace) -> None:
    (workspace.pristine / "pkg/ops.py").unlink()
    with pytest.raises(
        PatchError, match=r"9/loader\.patch does not apply: the release has no pkg/ops\.py\nthe hunk:\n@@"
    ):
        workspace.prepare()


@pytest.mark.parametrize(
    ("series", "message"),
    [
        ("loader.patch offset<=\n", "series:1: 'loader.patch offset<=' is not"),
        ("\nloader.patch fuzz<=1\n", "series:2: 'loader.patch fuzz<=1' is not"),
        ("../9/loader.patch\n", "series:1: '../9/loader.patch' is not"),
        ("loader.patch\nother.patch\n", "series:2: there is no "),
        ("# loader.patch\n", "series does not list loader.patch"),
    ],
)
def test_rejects_a_malformed_series_file(workspace: Workspace, series: str, message: str) -> None:
    workspace.write("patches/9/series", series)
    with pytest.raises(PatchError, match=re.escape(message)):
        workspace.prepare()


def test_rejects_a_missing_series(workspace: Workspace) -> None:
    with pytest.raises(PatchError, match="there is no series '8'"):
        patching.read_series("8", workspace.patches)


def test_replaces_only_a_patched_tree(workspace: Workspace) -> None:
    workspace.prepare()
    workspace.write("tree/left", "over")
    workspace.prepare()
    assert not (workspace.folder / "tree/left").exists()
    workspace.write("other/file", "precious")
    with pytest.raises(PatchError, match="contains files that are not a patched tree"):
        workspace.prepare("other")
    assert (workspace.folder / "other/file").read_text() == "precious"


def test_error_leaves_the_old_tree_and_no_temporary_files(workspace: Workspace) -> None:
    old = snapshot(workspace.prepare().path)
    workspace.patch(diff(FILE.replace("four", "fear"), FILE))
    with pytest.raises(PatchError):
        workspace.prepare()
    assert snapshot(workspace.folder / "tree") == old
    assert sorted(path.name for path in workspace.folder.iterdir()) == ["patches", "pristine", "tree"]


def test_preserves_bytes_that_are_not_text(workspace: Workspace) -> None:
    odd = b"\xff\xfe\r\n\x0c\n" + FILE.encode()
    (workspace.pristine / "pkg/ops.py").write_bytes(odd)
    tree = workspace.prepare()
    assert (tree.path / "pkg/ops.py").read_bytes() == odd.replace(b"four", b"4")


@pytest.mark.parametrize("name", ["0.3", "0.4"])
def test_series_of_this_repository_replace_only_overlay_files(name: str) -> None:
    series = patching.read_series(name)
    assert series.replaces <= set(series.overlay)
    for patch in series.patches:
        unified_diff.parse(patch.path.read_text(encoding="utf-8"), patch.path.name)
