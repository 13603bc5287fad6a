"""Every mistake in build_matrix.yaml is reported with its line, its column and a correction."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripts.errors import MatrixError
from scripts.matrix import matrix

SAMPLE = """\
default_toolkit: "13.0"
cuda_runtime: bundled
python: ["3.10", "3.11"]
platforms:
  linux_x86_64: {wheel_tag: manylinux_2_28_x86_64}
  win_amd64: {wheel_tag: win_amd64}
releases:
  "0.3.3.1":
    series: "0.3"
    registry:
      package: one
      version: "0.3.3.1"
      filename: one-0.3.3.1-py3-none-any.whl
      sha256: cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc
  "0.4.0":
    series: "0.4"
    git:
      url: https://example.org/two
      tag: v0.4.0
      commit: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
      tree: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb
toolkits:
  "12.6":
    providers: [redist, system]
    architectures: ["8.0", "9.0"]
    ptx: "9.0"
    gcc: {minimum: "9", maximum: "13"}
    msvc: {minimum: "14.29", maximum: "14.43"}
    torch:
      "2.9.1": {}
  "13.0":
    providers: [pypi, system]
    architectures: ["7.5", "12.0"]
    ptx: "12.0"
    gcc: {minimum: "9", maximum: "15"}
    msvc: {minimum: "14.29"}
    torch:
      "2.9.1": {}
      "2.14.1": {platforms: [linux_x86_64]}
exclusions:
  - cells: "0.3.3.1-*-cu126-*-win_amd64"
    reason: not wanted
"""
TABLE = """\
channels:
  cu126:
    observed: "2026-08"
    builds:
      "2.9.1": {linux_x86_64: ["3.10", "3.11"], win_amd64: ["3.10", "3.11"]}
  cu130:
    observed: "2026-08"
    builds:
      "2.9.1": {linux_x86_64: ["3.10", "3.11"], win_amd64: ["3.10", "3.11"]}
pypi:
  observed: "2026-11-21"
  builds:
    "2.14.1": {cuda: "13.0.3", linux_x86_64: ["3.10", "3.11"]}
    "2.15.0": {cuda: "13.2.2", linux_x86_64: ["3.11"]}
"""
SHA = "sha256: " + "c" * 64
COMMIT = "commit: " + "a" * 40

# Old text, new text, text at the position of the problem (its first occurrence after the change), path, message.
BREAKS = {
    "unknown key": (
        "cuda_runtime: bundled",
        "cuda_runtime: bundled\npyhton: []",
        "pyhton",
        "pyhton",
        "unknown key; did you mean `python`?",
    ),
    "unknown key deep down": (
        'gcc: {minimum: "9", maximum: "13"}',
        'gcc: {minimum: "9", zzz: "13"}',
        "zzz",
        'toolkits["12.6"].gcc.zzz',
        "unknown key; remove it",
    ),
    "duplicate key": (
        "cuda_runtime: bundled",
        "cuda_runtime: bundled\ncuda_runtime: torch",
        "cuda_runtime: torch",
        "cuda_runtime",
        "duplicate key, first on line 2",
    ),
    "duplicate release": (
        '  "0.4.0":',
        '  "0.3.3.1":',
        '"0.3.3.1":\n    series: "0.4"',
        'releases["0.3.3.1"]',
        "first on line 8",
    ),
    "missing key": ('    ptx: "9.0"\n', "", '"12.6":', 'toolkits["12.6"].ptx', "`ptx` is missing; add it"),
    "number for text": ('"3.10"', "3.10", "3.10", "python[0]", '3.10 is read as the number 3.1; quote it: "3.10"'),
    "whole number for text": (
        'minimum: "9", maximum: "13"',
        'minimum: 9, maximum: "13"',
        "9, max",
        "",
        'quote it: "9"',
    ),
    "number for a key": (
        '"12.6":',
        "12.6:",
        "12.6:",
        'toolkits["12.6"]',
        'is read as the number 12.6; quote it: "12.6"',
    ),
    "text for a list": ("[redist, system]", "redist", "redist", 'toolkits["12.6"].providers', "write a list"),
    "list for a mapping": ('{minimum: "14.29"}', "[]", "[]", 'toolkits["13.0"].msvc', "found a list; write a mapping"),
    "nothing for a mapping": (
        '    msvc: {minimum: "14.29"}',
        "    msvc:",
        "msvc:\n",
        'toolkits["13.0"].msvc',
        "found nothing",
    ),
    "truth value for text": ('ptx: "9.0"', "ptx: true", "true", 'toolkits["12.6"].ptx', "read as the truth value true"),
    "unknown provider": (
        "[redist, system]",
        "[apt, system]",
        "apt",
        'toolkits["12.6"].providers[0]',
        "'apt' is not known",
    ),
    "unknown runtime": ("bundled", "static", "static", "cuda_runtime", "write 'bundled' or 'torch'"),
    "empty list": ('["3.10", "3.11"]', "[]", "[]", "python", "is empty"),
    "malformed sha256": (
        SHA,
        "sha256: 1234x",
        "1234x",
        'releases["0.3.3.1"].registry.sha256',
        "64 lower-case hexadecimal",
    ),
    "malformed commit": (
        COMMIT,
        "commit: main",
        "main",
        'releases["0.4.0"].git.commit',
        "40 lower-case hexadecimal digits",
    ),
    "commit of digits alone": (COMMIT, "commit: " + "1" * 40, "1" * 40, 'releases["0.4.0"].git.commit', "quote it"),
    "git without tree": (
        "      tree: " + "b" * 40 + "\n",
        "",
        "git:",
        'releases["0.4.0"].git.tree',
        "it pins the content",
    ),
    "release without pin": (
        SAMPLE[SAMPLE.index("    git:") : SAMPLE.index("toolkits:")],
        "",
        '"0.4.0":',
        'releases["0.4.0"]',
        "a release without a content pin; add `registry:`",
    ),
    "unknown series": ('series: "0.4"', 'series: "0.9"', '"0.9"', 'releases["0.4.0"].series', "no folder patches/0.9"),
    "exclusion of nothing": (
        "0.3.3.1-*-cu126-*-win_amd64",
        "*-cp39-*",
        '"*-cp39-*"',
        "exclusions[0].cells",
        "excludes no cell",
    ),
    "exclusion of what is excluded": (
        "    reason: not wanted\n",
        "    reason: not wanted\n  - {cells: 0.3.3.1-cp310-cu126-*-win_amd64, reason: again}\n",
        "0.3.3.1-cp310-cu126",
        "exclusions[1].cells",
        "excludes no cell",
    ),
    "exclusion without reason": (
        "    reason: not wanted\n",
        "",
        "cells:",
        "exclusions[0].reason",
        "every exclusion needs a reason",
    ),
    "exclusion with an empty reason": ("not wanted", '" "', '" "', "exclusions[0].reason", "is not a sentence"),
    "toolkit nobody uses": (
        "0.3.3.1-*-cu126-*-win_amd64",
        "*-cu126-*",
        '"12.6"',
        'toolkits["12.6"]',
        "no cell uses it: every combination is excluded",
    ),
    "torch nobody uses": (
        "0.3.3.1-*-cu126-*-win_amd64",
        "*-torch2.14-*",
        '"2.14.1"',
        'toolkits["13.0"].torch["2.14.1"]',
        "no cell uses it",
    ),
    "release nobody uses": (
        "0.3.3.1-*-cu126-*-win_amd64",
        "0.4.0-*",
        '"0.4.0"',
        'releases["0.4.0"]',
        "no cell uses it",
    ),
    "architecture too new": (
        '["8.0", "9.0"]',
        '["8.0", "9.0", "12.0"]',
        '"12.0"',
        "[2]",
        "12.0 needs CUDA 12.8 or newer, not 12.6",
    ),
    "architecture too old": ('["7.5", "12.0"]', '["7.0", "12.0"]', '"7.0"', "[0]", "CUDA 13.0 no longer has 7.0"),
    "no such architecture": ('["7.5", "12.0"]', '["7.7", "12.0"]', '"7.7"', "[0]", "no such architecture 7.7"),
    "architecture twice": ('["7.5", "12.0"]', '["7.5", "7.5", "12.0"]', '"7.5", "12', "[1]", "7.5 is listed twice"),
    "PTX not of the newest": (
        'ptx: "9.0"',
        'ptx: "8.0"',
        '"8.0"\n',
        'toolkits["12.6"].ptx',
        "write the newest of `architectures`, 9.0",
    ),
    "bounds exchanged": (
        '"9", maximum: "13"',
        '"13", maximum: "9"',
        '{minimum: "13"',
        'toolkits["12.6"].gcc',
        "above maximum",
    ),
    "no nvcc on PyPI": (
        "[redist, system]",
        "[redist, pypi]",
        "pypi]",
        'toolkits["12.6"].providers[1]',
        "from CUDA 13.0 on",
    ),
    "no such default": (
        'default_toolkit: "13.0"',
        'default_toolkit: "13.1"',
        '"13.1"',
        "default_toolkit",
        "write one of 12.6, 13.0",
    ),
    "torch without a Python": (
        '["3.10", "3.11"]',
        '["3.10", "3.11", "3.14"]',
        '"2.9.1"',
        'toolkits["12.6"].torch["2.9.1"]',
        "does not exist for CPython 3.14 on linux_x86_64 (known: 3.10, 3.11)",
    ),
    "torch without a platform": (
        "{platforms: [linux_x86_64]}",
        "{}",
        '"2.14.1"',
        'toolkits["13.0"].torch["2.14.1"]',
        "torch 2.14.1 for CUDA 13.0 does not exist for CPython 3.10, 3.11 on win_amd64 (known: none)",
    ),
    "torch of another CUDA": (
        '"2.14.1": {platforms: [linux_x86_64]}',
        '"2.15.0": {platforms: [linux_x86_64]}',
        '"2.15.0"',
        'toolkits["13.0"].torch["2.15.0"]',
        "torch 2.15.0 for CUDA 13.0 does not exist",
    ),
    "torch line twice": (
        '"2.14.1": {',
        '"2.9.0": {',
        '"2.9.0"',
        'toolkits["13.0"].torch["2.9.0"]',
        "a second torch 2.9 beside 2.9.1",
    ),
    "torch without patch": ('"2.14.1"', '"2.14"', '"2.14"', 'toolkits["13.0"].torch["2.14"]', "three numbers"),
    "platform off the axis": (
        "[linux_x86_64]",
        "[linux_riscv]",
        "linux_riscv",
        ".platforms[0]",
        "is not on the axis `platforms`",
    ),
    "image by tag": (
        "{wheel_tag: win_amd64}",
        "{wheel_tag: win_amd64, image: a:1}",
        "a:1",
        "platforms.win_amd64.image",
        "by digest",
    ),
    "a tag of YAML": ("bundled", "!secret bundled", "!secret", "cuda_runtime", "the tag !secret is not supported"),
    "an alias to itself": (
        "[redist, system]",
        "&a [*a]",
        "&a",
        'toolkits["12.6"].providers[0]',
        "an alias that refers to itself",
    ),
    "not YAML": ("cuda_runtime: bundled", "cuda_runtime: [bundled", ': ["3.10"', "(top)", "not YAML"),
}
_LINE = re.compile(r"build_matrix\.yaml:(\d+):(\d+): (\S.*?): (.+)")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "torch_builds.yaml"
    path.write_text(TABLE)
    return path


def broken(text: str, folder: Path, table: Path) -> list[tuple[int, int, str, str]]:
    """Return the problems of a matrix: line, column, path and message."""
    path = folder / "build_matrix.yaml"
    path.write_text(text)
    with pytest.raises(MatrixError) as raised:
        matrix.load(path, table)
    assert raised.value.hint
    found = [_LINE.fullmatch(line) for line in str(raised.value).splitlines()]
    assert all(found), str(raised.value)
    return [(int(one[1]), int(one[2]), one[3], one[4]) for one in found if one]


def place(text: str, needle: str) -> tuple[int, int]:
    before = text[: text.index(needle)]
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


def test_the_sample_is_valid(tmp_path: Path, table: Path) -> None:
    path = tmp_path / "build_matrix.yaml"
    path.write_text(SAMPLE)
    # Per release 4 cells of CUDA 12.6 and 4 + 2 cells of CUDA 13.0, without the two excluded cells.
    assert len(matrix.load(path, table).cells) == 18


@pytest.mark.parametrize("name", BREAKS)
def test_reports_the_position_of_each_mistake(name: str, tmp_path: Path, table: Path) -> None:
    old, new, needle, trail, message = BREAKS[name]
    assert old in SAMPLE
    text = SAMPLE.replace(old, new, 1)
    problems = broken(text, tmp_path, table)
    wanted = [one for one in problems if one[:2] == place(text, needle) and trail in one[2] and message in one[3]]
    assert wanted, problems


def test_reports_the_cause_without_its_consequences(tmp_path: Path, table: Path) -> None:
    """Report one problem per mistake, without its consequences."""
    several = {
        "torch without a Python",
        "an alias to itself",
        "duplicate release",
        "no such architecture",
        "torch line twice",
    }
    for name in BREAKS.keys() - several:
        old, new, *_ = BREAKS[name]
        assert len(broken(SAMPLE.replace(old, new, 1), tmp_path, table)) == 1, name


def test_reports_all_problems_in_the_order_of_the_file(tmp_path: Path, table: Path) -> None:
    text = SAMPLE
    for name in ("unknown key", "duplicate key", "number for text", "malformed sha256", "no nvcc on PyPI"):
        old, new, *_ = BREAKS[name]
        text = text.replace(old, new, 1)
    text = text.replace('["7.5", "12.0"]', '["7.0", "12.0"]').replace("not wanted", "5")
    problems = broken(text, tmp_path, table)
    assert [one[:2] for one in problems] == sorted(one[:2] for one in problems)
    assert [one[0] for one in problems] == [3, 4, 5, 16, 26, 35, 44]


def test_a_malformed_exclusion_still_excludes_its_cells(tmp_path: Path, table: Path) -> None:
    text = SAMPLE.replace("{platforms: [linux_x86_64]}", "{}").replace("0.3.3.1-*-cu126-*-win", "*-torch2.14-win")
    assert [one[2] for one in broken(text.replace("    reason: not wanted\n", ""), tmp_path, table)] == [
        "exclusions[0].reason"
    ]


def test_names_missing_files(tmp_path: Path, table: Path) -> None:
    with pytest.raises(MatrixError, match=r"cannot read .*absent\.yaml"):
        matrix.load(tmp_path / "absent.yaml", table)
    (tmp_path / "build_matrix.yaml").write_text("")
    with pytest.raises(MatrixError, match=r"build_matrix\.yaml:1:1: \(top\): found nothing; write a mapping"):
        matrix.load(tmp_path / "build_matrix.yaml", table)


def test_reports_the_position_of_a_mistake_in_the_table(tmp_path: Path, table: Path) -> None:
    path = tmp_path / "build_matrix.yaml"
    path.write_text(SAMPLE)
    table.write_text(TABLE.replace("    observed:", "    observd:", 1))
    with pytest.raises(MatrixError, match=r"torch_builds\.yaml:3:14: channels\.cu126\.observd: "):
        matrix.load(path, table)
