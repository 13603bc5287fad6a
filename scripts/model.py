"""The words of the house as frozen dataclasses; `matrix` makes them, every other stage reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parent.parent

ProviderKind = Literal["pypi", "system", "redist"]


@dataclass(frozen=True)
class RegistryPin:
    """A release held by one file of a package registry."""

    package: str
    version: str
    filename: str
    sha256: str


@dataclass(frozen=True)
class GitPin:
    """A release held by a commit and the tree it must have."""

    url: str
    tag: str
    commit: str
    tree: str


@dataclass(frozen=True)
class Release:
    """One upstream version, pinned by content; ``series`` names its folder in patches/."""

    version: str
    series: str
    source: RegistryPin | GitPin

    @property
    def has_gl(self) -> bool:
        """Whether it has the OpenGL plugin, which 0.4 dropped."""
        return self.series == "0.3"


@dataclass(frozen=True)
class Bounds:
    """Closed bounds of a compiler's version, e.g. g++ 6 to 13; None is open."""

    minimum: str | None = None
    maximum: str | None = None


@dataclass(frozen=True)
class Provider:
    """Where a toolkit comes from; ``lock`` is relative to the repository, None for ``system``."""

    kind: ProviderKind
    lock: str | None = None


@dataclass(frozen=True)
class Toolkit:
    """One CUDA version: who provides it, what is compiled for, which host compilers it takes.

    ``architectures`` are compute capabilities ("7.5") that get SASS; ``ptx`` is the one that gets PTX as well.
    """

    cuda: str
    providers: tuple[Provider, ...]
    architectures: tuple[str, ...]
    ptx: str
    gcc: Bounds
    msvc: Bounds

    @property
    def tag(self) -> str:
        """``cu130`` for CUDA 13.0."""
        return "cu" + self.cuda.replace(".", "")

    @property
    def policy(self) -> tuple[str, ...]:
        """The architectures in the notation of TORCH_CUDA_ARCH_LIST, PTX with the one that gets it: "12.0+PTX"."""
        return tuple(f"{number}+PTX" if number == self.ptx else number for number in self.architectures)

    def is_whole(self, architectures: Sequence[str]) -> bool:
        """Whether ``architectures``, in that notation, are the whole policy; a wheel for less is no release."""
        return set(architectures) == set(self.policy)


@dataclass(frozen=True)
class TorchBuild:
    """One torch line ("2.11"), the exact version built against, and where that build is published.

    ``origin`` is "pypi" for the plain wheel of PyPI, "pytorch" for PyTorch's own channel of that CUDA.
    """

    line: str
    version: str
    origin: Literal["pypi", "pytorch"]


@dataclass(frozen=True)
class Platform:
    """``name`` as in cell ids (linux_x86_64); ``wheel_tag`` as in wheel names (manylinux_2_28_x86_64)."""

    name: str
    wheel_tag: str
    image: str | None = None

    @property
    def is_windows(self) -> bool:
        """Return whether wheels of this platform are for Windows."""
        return self.name.startswith("win")


@dataclass(frozen=True)
class Cell:
    """release x Python x CUDA x torch x platform: one wheel."""

    release: Release
    python: str
    toolkit: Toolkit
    torch: TorchBuild
    platform: Platform
    cuda_runtime: Literal["bundled", "torch"] = "bundled"

    @cached_property
    def id(self) -> str:
        """``0.3.3.1-cp312-cu130-torch2.11-linux_x86_64``."""
        return (
            f"{self.release.version}-{self.python_tag}-{self.toolkit.tag}-torch{self.torch.line}-{self.platform.name}"
        )

    @property
    def python_tag(self) -> str:
        """``cp312`` for "3.12"."""
        return "cp" + self.python.replace(".", "")

    @property
    def local_version(self) -> str:
        """``cu130.torch2.11``: segments that PEP 440 compares as numbers, so 2.10 sorts after 2.9."""
        return f"{self.toolkit.tag}.torch{self.torch.line}"

    @property
    def version(self) -> str:
        """``0.3.3.1+cu130.torch2.11``."""
        return f"{self.release.version}+{self.local_version}"

    @property
    def wheel(self) -> str:
        """The file name that index and audit expect."""
        return f"nvdiffrast-{self.version}-{self.python_tag}-{self.python_tag}-{self.platform.wheel_tag}.whl"

    @property
    def channel(self) -> str:
        """The index folder, ``/whl/cu130/``."""
        return f"/whl/{self.toolkit.tag}/"
