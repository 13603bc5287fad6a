"""The commands that install a wheel from an index: what the page shows, and what `prove` runs."""

from __future__ import annotations

from dataclasses import dataclass

from scripts.catalog import Entry

PROJECT = "nvdiffrast"


@dataclass(frozen=True)
class Commands:
    """``pip`` and ``uv`` are lines to run one after the other, safe in any shell as they stand; ``pyproject`` is TOML
    to merge into a project's file.
    """

    pip: tuple[str, ...]
    uv: tuple[str, ...]
    pyproject: str


def commands(base_url: str, entry: Entry) -> Commands:
    """How to get ``entry`` from the index whose root is ``base_url`` ("https://example.org/wheels", percent-encoded).

    The torch it is for must be installed already. Only our index is visible to the line that installs, so nothing but
    nvdiffrast can come of it: pip and uv take the wheel whose ``torch==X.Y.*`` the installed torch meets, or refuse and
    say which they know. With a second index in sight, both would rather replace torch by the newest that has a wheel,
    and anybody's higher nvdiffrast would win over ours. That is why numpy, the other requirement, has its own line.
    The release is pinned without its local part, which is what lets them choose; a yanked wheel is not chosen.
    """
    channel = f"{base_url.rstrip('/')}/whl/{entry.cuda}/"
    pin = f"{PROJECT}=={entry.release}"
    return Commands(
        pip=("pip install numpy", f"pip install --index-url {channel} {pin}"),
        uv=("uv pip install numpy", f"uv pip install --default-index {channel} {pin}"),
        pyproject=_pyproject(channel, pin, entry),
    )


def _pyproject(channel: str, pin: str, entry: Entry) -> str:
    """An explicit index serves only what names it: everything else still comes from the project's own."""
    name = f"{PROJECT}-{entry.cuda}"
    return f"""\
[project]
dependencies = ["{pin}", "torch=={entry.torch}.*"]

[[tool.uv.index]]
name = "{name}"
url = "{channel}"
explicit = true

[tool.uv.sources]
{PROJECT} = {{ index = "{name}" }}
"""
