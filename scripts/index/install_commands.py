"""The commands that install a wheel from an index; the page shows them and `prove` runs them."""

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
    """The commands for a wheel of nvdiffrast.

    ``pip`` and ``uv`` are lines to run in this order, safe in every shell; ``pyproject`` is TOML for pyproject.toml.
    """

    pip: tuple[str, ...]
    uv: tuple[str, ...]
    pyproject: str


def commands(base_url: str, entry: Entry) -> Commands:
    """Return the commands that install ``entry`` from the index at the percent-encoded ``base_url``.

    The torch that the wheel requires must be installed already. The installing line uses only our index, so it can
    install only nvdiffrast: pip and uv choose the wheel whose ``torch==X.Y.*`` matches the installed torch, or fail and
    list the known wheels. With a second index, both would rather replace torch by the newest version that has a wheel,
    and prefer a higher nvdiffrast version from anybody. Therefore numpy, the other requirement, has its own line.
    The version is pinned without its local part, so that pip and uv can choose; they do not choose a yanked wheel.
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
    """The command for each tool that installs torch, safe in every shell."""

    pip: str
    uv: str


def torch_commands(version: str, cuda: str, origin: Literal["pypi", "pytorch"]) -> TorchCommands:
    """Return the commands that install torch ``version``, which may end in ".*", for the CUDA tag ``cuda`` ("cu126").

    With ``origin`` "pytorch" only PyTorch's channel for this CUDA is used, because PyPI has another build with the same
    version.
    """
    requirement = _quoted(f"torch=={version}") if "*" in version else f"torch=={version}"
    channel = f"{PYTORCH_CHANNEL}{cuda}"
    return TorchCommands(
        pip=f"pip install {requirement}" + (f" --index-url {channel}" if origin == "pytorch" else ""),
        uv=f"uv pip install {requirement}" + (f" --default-index {channel}" if origin == "pytorch" else ""),
    )


def file_commands(cell: Cell, wheel: str) -> tuple[str, ...]:
    """Return the pip commands that install torch and the file ``wheel`` of a cell, in this order."""
    torch = torch_commands(cell.torch.version, cell.toolkit.tag, cell.torch.origin).pip
    file = shlex.quote(wheel)
    # PyTorch's channel has only torch and its requirements; the wheel's other requirements come from PyPI.
    return (f"{torch} {file}",) if cell.torch.origin == "pypi" else (torch, f"pip install {file}")


@dataclass(frozen=True)
class PackageCommands:
    """The commands for a package without compiled code: lines to run in this order, safe in every shell."""

    pip: tuple[str, ...]
    uv: tuple[str, ...]


def package_commands(
    base_url: str, package: PureWheel, packages: Sequence[PureWheel], channel: str = CPU
) -> PackageCommands:
    """Return the commands that install a package without compiled code; torch must be installed already.

    As for nvdiffrast, the installing line uses only our index, so that it never installs a package of somebody else
    with the name of one of ours; requirements from other indexes have their own line. ``packages`` are all packages
    of the index.
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
    """Return the package's project and all projects of ``packages`` that it requires, directly or indirectly."""
    projects, pending = set[str](), [package]
    known = {one.project for one in packages}
    while pending:
        one = pending.pop()
        projects.add(one.project)
        required = {canonicalize_name(Requirement(text).name) for text in one.requires} & known - projects
        pending += [other for other in packages if other.project in required]
    return projects


def from_others(package: PureWheel, packages: Sequence[PureWheel]) -> list[str]:
    """Return the requirements of :func:`ours` from other indexes, without torch: "numpy", "pillow>=10"."""
    projects = ours(package, packages)
    texts = {text for one in (*packages, package) if one.project in projects for text in one.requires}
    return sorted(text for text in texts if canonicalize_name(Requirement(text).name) not in projects | {"torch"})


def _quoted(requirement: str) -> str:
    return f'"{requirement}"' if Requirement(requirement).specifier else requirement


def _pyproject(channel: str, pin: str, entry: Entry) -> str:
    """Return TOML with an explicit index: only nvdiffrast comes from it, other packages come from the default index."""
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
