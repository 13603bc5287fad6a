"""The doctor's table of torch builds: the builds that it can recommend, and where each of them is published.

`nox -s golden -- --doctor` writes it from torch_builds.yaml. Every wheel contains the table, so it is written only when
all wheels are rebuilt, not for every new torch. The doctor does not recommend builds that are missing in the table.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from packaging.version import Version

from scripts.matrix.torch_builds import TorchTable
from scripts.model import ROOT, cuda_tag, version_line

PATH = ROOT / "patches" / "common" / "overlay" / "nvdiffrast" / "torch_builds.json"
Row = tuple[str, str, str, str, tuple[str, ...]]
"""Platform, CUDA tag, torch line, origin ("pypi" or "pytorch"), CPython lines."""


def rows(table: TorchTable) -> list[Row]:
    """Return the newest build of every torch line for each CUDA; builds of PyPI come first, they are preferred."""
    found = {row[:4]: row for row in (*_plain(table), *_channels(table))}
    return sorted(found.values(), key=lambda row: (row[3] != "pypi", row[0], int(row[1][2:]), Version(row[2])))


def text(table: TorchTable) -> str:
    """Return the content of the file, with one row per line."""
    lines = ",\n".join(f"  {json.dumps(row)}" for row in rows(table))
    return f'{{\n "as_of": {json.dumps(table.date)},\n "builds": [\n{lines}\n ]\n}}\n'


def _plain(table: TorchTable) -> Iterator[Row]:
    for version in sorted(table.pypi, key=Version):
        build = table.pypi[version]
        yield "linux_x86_64", cuda_tag(build.cuda), version_line(version), "pypi", build.pythons


def _channels(table: TorchTable) -> Iterator[Row]:
    for tag, channel in table.channels.items():
        for version in sorted(channel.builds, key=Version):
            for platform, pythons in channel.builds[version].items():
                yield platform, tag, version_line(version), "pytorch", pythons
