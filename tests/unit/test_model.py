"""Conversions between spellings of versions."""

from __future__ import annotations

import pytest

from scripts.model import cuda_tag, cuda_version, version_line


@pytest.mark.parametrize(
    ("version", "line"), [("2.11.0", "2.11"), ("2.11.0+cu130", "2.11"), ("13.0.2", "13.0"), ("13.0", "13.0")]
)
def test_version_line_is_the_first_two_numbers(version: str, line: str) -> None:
    assert version_line(version) == line


@pytest.mark.parametrize(("version", "tag"), [("13.0", "cu130"), ("12.8", "cu128"), ("11.8", "cu118")])
def test_cuda_tag_and_version_convert_into_each_other(version: str, tag: str) -> None:
    assert cuda_tag(version) == tag
    assert cuda_version(tag) == version


def test_cuda_tag_ignores_the_patch_number() -> None:
    assert cuda_tag("13.0.2") == "cu130"
