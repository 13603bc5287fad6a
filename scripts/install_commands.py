"""The commands that install a wheel from an index: what the page shows, and what `prove` runs."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scripts.catalog import CPU, Entry, PureWheel
from scripts.model import Cell
from scripts.torch_table import PYTORCH_CHANNEL

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


def torch_arguments(version: str, cuda: str, origin: Literal["pypi", "pytorch"]) -> str:
    """Return what follows ``pip install`` or ``uv pip install`` to get a torch: "torch==2.14.1".

    ``version`` may end in ".*". ``cuda`` is a tag ("cu126"): a torch that is not the plain one of PyPI comes from
    PyTorch's own channel of that CUDA, and from nowhere else, so that PyPI's build of the same number is not chosen.
    """
    requirement = _quoted(f"torch=={version}") if "*" in version else f"torch=={version}"
    return requirement if origin == "pypi" else f"{requirement} --index-url {PYTORCH_CHANNEL}{cuda}"


def file_commands(cell: Cell, wheel: str) -> tuple[str, ...]:
    """Return the pip commands that install the file ``wheel`` of a cell and its torch, to be run in this order."""
    torch = torch_arguments(cell.torch.version, cell.toolkit.tag, cell.torch.origin)
    file = shlex.quote(wheel)
    if cell.torch.origin == "pypi":
        return (f"pip install {torch} {file}",)
    # The channel is for torch and what it needs; what the wheel needs comes from the usual index.
    return f"pip install {torch}", f"pip install {file}"


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
