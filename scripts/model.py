"""Frozen dataclasses shared by every stage; only `matrix` creates them. Conversions between spellings of versions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parent.parent

ProviderKind = Literal["pypi", "system", "redist"]


def version_line(version: str) -> str:
    """Return the first two numbers of a version: "2.11" for "2.11.0" and for "2.11.0+cu130"."""
    return ".".join(version.partition("+")[0].split(".")[:2])


def cuda_tag(version: str) -> str:
    """Return the tag of a CUDA version: "cu130" for "13.0" and for "13.0.2"."""
    return "cu" + version_line(version).replace(".", "")


def cuda_version(tag: str) -> str:
    """Return the CUDA version of a tag: "13.0" for "cu130"."""
    digits = tag.removeprefix("cu")
    return f"{digits[:-1]}.{digits[-1]}"


@dataclass(frozen=True)
class RegistryPin:
    """A release pinned as one file of a package registry."""

    package: str
    version: str
    filename: str
    sha256: str


@dataclass(frozen=True)
class GitPin:
    """A release pinned as a git commit and the tree of that commit."""

    url: str
    tag: str
    commit: str
    tree: str


@dataclass(frozen=True)
class Release:
    """One upstream version, pinned by content.

    ``series`` names its folder in patches/. ``has_gl`` is true if the release contains the OpenGL plugin.
    """

    version: str
    series: str
    source: RegistryPin | GitPin
    has_gl: bool = False


@dataclass(frozen=True)
class Bounds:
    """The oldest and the newest compiler version allowed, such as g++ 6 to 13; None means no limit."""

    minimum: str | None = None
    maximum: str | None = None


@dataclass(frozen=True)
class Provider:
    """A source of a toolkit; ``lock`` is a path relative to the repository, or None for ``system``."""

    kind: ProviderKind
    lock: str | None = None


@dataclass(frozen=True)
class Toolkit:
    """One CUDA version with its sources, GPU architectures and supported host compilers.

    SASS is compiled for every compute capability in ``architectures`` ("7.5"); PTX is compiled for ``ptx`` as well.
    """

    cuda: str
    providers: tuple[Provider, ...]
    architectures: tuple[str, ...]
    ptx: str
    gcc: Bounds
    msvc: Bounds

    @property
    def tag(self) -> str:
        """Return the CUDA tag, such as "cu130"."""
        return cuda_tag(self.cuda)

    @property
    def policy(self) -> tuple[str, ...]:
        """Return the architectures in the notation of TORCH_CUDA_ARCH_LIST, for example ("9.0", "12.0+PTX")."""
        return tuple(f"{number}+PTX" if number == self.ptx else number for number in self.architectures)

    def is_whole(self, architectures: Sequence[str]) -> bool:
        """Return whether ``architectures`` equal :attr:`policy`; a wheel with fewer of them must not be published."""
        return set(architectures) == set(self.policy)


@dataclass(frozen=True)
class TorchBuild:
    """One torch line ("2.11") with the exact version that wheels are built against.

    ``origin`` is the publisher of that build: "pypi" for PyPI's plain wheel, "pytorch" for PyTorch's channel.
    """

    line: str
    version: str
    origin: Literal["pypi", "pytorch"]


@dataclass(frozen=True)
class Platform:
    """A platform that wheels are built for.

    ``name`` is used in cell ids (linux_x86_64), ``wheel_tag`` in wheel names (manylinux_2_28_x86_64). ``image`` is the
    container image, pinned by digest.
    """

    name: str
    wheel_tag: str
    image: str | None = None

    @property
    def is_windows(self) -> bool:
        """Return whether wheels of this platform are for Windows."""
        return self.name.startswith("win")


@dataclass(frozen=True)
class Cell:
    """One wheel to build: a combination of release, Python, CUDA, torch and platform."""

    release: Release
    python: str
    toolkit: Toolkit
    torch: TorchBuild
    platform: Platform
    cuda_runtime: Literal["bundled", "torch"] = "bundled"

    @cached_property
    def id(self) -> str:
        """Return the cell's id, such as ``0.3.3.1-cp312-cu130-torch2.11-linux_x86_64``."""
        return (
            f"{self.release.version}-{self.python_tag}-{self.toolkit.tag}-torch{self.torch.line}-{self.platform.name}"
        )

    @property
    def python_tag(self) -> str:
        """Return the Python tag, such as "cp312"."""
        return "cp" + self.python.replace(".", "")

    @property
    def local_version(self) -> str:
        """Return the local version, ``cu130.torch2.11``; PEP 440 sorts its numbers as numbers, not as text."""
        return f"{self.toolkit.tag}.torch{self.torch.line}"

    @property
    def version(self) -> str:
        """Return the wheel's version, such as ``0.3.3.1+cu130.torch2.11``."""
        return f"{self.release.version}+{self.local_version}"

    @property
    def wheel(self) -> str:
        """Return the wheel's file name."""
        return f"nvdiffrast-{self.version}-{self.python_tag}-{self.python_tag}-{self.platform.wheel_tag}.whl"

    @property
    def channel(self) -> str:
        """Return the folder of the index that lists the wheel, such as ``/whl/cu130/``."""
        return f"/whl/{self.toolkit.tag}/"
