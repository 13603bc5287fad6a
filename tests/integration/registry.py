"""Pinned files of a package index for tests, or a skip that says what is missing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from scripts.errors import CommandError
from scripts.support.process import call


def install(requirement: str, sha256: str, folder: Path, *options: str) -> Path:
    """Install one wheel, held to its hash, into ``folder``; skip the test where no package index can be reached."""
    listed = folder.with_suffix(".txt")
    listed.write_text(f"{requirement} --hash=sha256:{sha256}\n", encoding="utf-8")
    return install_locked(listed, folder, *options)


def install_locked(listed: Path, folder: Path, *options: str) -> Path:
    """Install the wheels that a hash-locked file lists into ``folder``; skip as :func:`install` does."""
    command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
    try:
        call([*command, "--only-binary", ":all:", "--target", folder, *options, "-r", listed], echo=False, quiet=True)
    except CommandError as error:
        if "hash" in error.output.lower():
            raise
        pytest.skip(f"cannot fetch {listed.stem} from a package index: {error.output.strip()[-300:]}")
    return folder
