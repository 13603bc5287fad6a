"""The commands that install a wheel from an index: what the page shows, and what `prove` runs."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scripts.index.catalog import CPU, Entry, PureWheel
from scripts.matrix.torch_builds import PYTORCH_CHANNEL
from scripts.model import Cell

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


@dataclass(frozen=True)
class TorchCommands:
    """One line for each tool that installs a torch, safe in any shell as it stands."""

    pip: str
    uv: str


def torch_commands(version: str, cuda: str, origin: Literal["pypi", "pytorch"]) -> TorchCommands:
    """Return how to get a torch for a CUDA, given as a tag ("cu126"); ``version`` may end in ".*".

    A torch that is not the plain one of PyPI comes from PyTorch's own channel of that CUDA, and from nowhere else: PyPI
    has another build of the same number.
    """
    requirement = _quoted(f"torch=={version}") if "*" in version else f"torch=={version}"
    channel = f"{PYTORCH_CHANNEL}{cuda}"
    return TorchCommands(
        pip=f"pip install {requirement}" + (f" --index-url {channel}" if origin == "pytorch" else ""),
        uv=f"uv pip install {requirement}" + (f" --default-index {channel}" if origin == "pytorch" else ""),
    )


def file_commands(cell: Cell, wheel: str) -> tuple[str, ...]:
    """Return the pip commands that install the file ``wheel`` of a cell and its torch, to be run in this order."""
    torch = torch_commands(cell.torch.version, cell.toolkit.tag, cell.torch.origin).pip
    file = shlex.quote(wheel)
    # PyTorch's channel is for torch and what it needs; what the wheel needs comes from the usual index.
    return (f"{torch} {file}",) if cell.torch.origin == "pypi" else (torch, f"pip install {file}")


@dataclass(frozen=True)
class PackageCommands:
    """Lines for each tool to run one after the other, safe in any shell as they stand."""

    pip: tuple[str, ...]
    uv: tuple[str, ...]


def package_commands(
    base_url: str, package: PureWheel, packages: Sequence[PureWheel], channel: str = CPU
) -> PackageCommands:
    """How to get a package without compiled code from a channel of the index, beside a torch that is there already.

    As for nvdiffrast the line that installs sees our index alone, so that nobody else's package of a name of ours can
    come of it; what it needs of others has a line of its own. ``packages`` are all that the index has.
    """
    others = [_quoted(one) for one in from_others(package, packages)]
    address = f"{base_url.rstrip('/')}/whl/{channel}/"
    pin = f"{package.project}=={package.version}"
    return PackageCommands(
        pip=(*(f"pip install {' '.join(others)}" for _ in others[:1]), f"pip install --index-url {address} {pin}"),
        uv=(
            *(f"uv pip install {' '.join(others)}" for _ in others[:1]),
            f"uv pip install --default-index {address} {pin}",
        ),
    )


def ours(package: PureWheel, packages: Sequence[PureWheel]) -> set[str]:
    """The package's project and those of ours that it needs, and they need."""
    found, ahead = set[str](), [package]
    known = {one.project for one in packages}
    while ahead:
        one = ahead.pop()
        found.add(one.project)
        needed = {canonicalize_name(Requirement(text).name) for text in one.requires} & known - found
        ahead += [other for other in packages if other.project in needed]
    return found


def from_others(package: PureWheel, packages: Sequence[PureWheel]) -> list[str]:
    """What the package and those of ours that it needs require of others, torch aside: "numpy", "pillow>=10"."""
    mine = ours(package, packages)
    texts = {text for one in (*packages, package) if one.project in mine for text in one.requires}
    return sorted(text for text in texts if canonicalize_name(Requirement(text).name) not in mine | {"torch"})


def _quoted(requirement: str) -> str:
    return f'"{requirement}"' if Requirement(requirement).specifier else requirement


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
