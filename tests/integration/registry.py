"""Install pinned wheels from a package index for tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from scripts.errors import CommandError
from scripts.support.process import call


def install(requirement: str, sha256: str, folder: Path, *options: str) -> Path:
    """Install one wheel with the given hash into ``folder``, and return ``folder``; skip the test if this fails.

    Raises:
        CommandError: if the hash of the file is wrong.
    """
    listed = folder.with_suffix(".txt")
    listed.write_text(f"{requirement} --hash=sha256:{sha256}\n", encoding="utf-8")
    return install_locked(listed, folder, *options)


def install_locked(listed: Path, folder: Path, *options: str) -> Path:
    """Install the wheels of a requirements file with hashes into ``folder``, like :func:`install`."""
    command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
    try:
        call([*command, "--only-binary", ":all:", "--target", folder, *options, "-r", listed], echo=False, quiet=True)
    except CommandError as error:
        if "hash" in error.output.lower():
            raise
        pytest.skip(f"cannot fetch {listed.stem} from a package index: {error.output.strip()[-300:]}")
    return folder
