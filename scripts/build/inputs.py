"""The inputs of one cell's build: choose the engine, check what can be checked at once, then fetch what is missing."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from scripts import console
from scripts.build import cibuildwheel
from scripts.build.recipe import RECIPE
from scripts.errors import ToolchainError
from scripts.model import ROOT, Cell
from scripts.source import patching, upstream
from scripts.support import download_sizes, environments, interpreters
from scripts.support.files import file_sha256
from scripts.support.host import host_platform
from scripts.toolchain import compilers, providers
from scripts.wheel import materials
from scripts.wheel.materials import Materials


@dataclass(frozen=True)
class Options:
    """How to build, where the user may choose.

    ``architectures`` narrows the compiled architectures ("9.0"); an empty tuple means the toolkit's whole policy.
    ``objects`` is the folder of compiled objects that builds share, ``kept`` the folder of finished wheels; None keeps
    nothing.
    """

    engine: str
    architectures: tuple[str, ...]
    image: str | None
    source: Path | None
    output: Path
    objects: Path | None
    kept: Path | None


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Everything that one cell's wheel is made of, verified and on disk, and the engine that makes it.

    ``architectures`` is in the notation of TORCH_CUDA_ARCH_LIST. ``materials`` lists the other inputs by name, version
    and hash, for the bill of materials and the provenance. ``image`` is None with the host engine; ``compiler`` is None
    with a container, which has its own. ``python`` is None only with a container.
    """

    cell: Cell
    engine: str
    image: str | None
    architectures: tuple[str, ...]
    pristine: Path
    series: patching.Series
    cuda: providers.CudaHome
    compiler: compilers.HostCompiler | None
    python: Path | None
    torch_lock: Path
    materials: Materials

    @property
    def partial(self) -> bool:
        """Return whether the wheel serves fewer architectures than the toolkit's policy."""
        return not self.cell.toolkit.is_whole(self.architectures)


def choose_engine(cell: Cell, asked: str, image: str | None) -> str:
    """Return the engine that was asked for; ``auto`` means the host on Linux, unless ``image`` names a container image.

    The pinned image is used only by ``cibuildwheel``: ``auto`` must not download an image that nobody asked for.
    """
    if asked != "auto":
        return asked
    why = cibuildwheel.availability()
    if why is None and not cell.platform.is_windows and not image:
        why = "no --image; --engine cibuildwheel uses the pinned image"
    console.log(f"engine: {'cibuildwheel' if why is None else f'host (not cibuildwheel: {why})'}")
    return "cibuildwheel" if why is None else "host"


def container_image(cell: Cell, engine: str, named: str | None) -> str | None:
    """Return the container image that the wheel is built in, or None if the host builds it."""
    return named or cell.platform.image if engine == "cibuildwheel" else None


def gather(cell: Cell, options: Options) -> Inputs:
    """Choose the engine, check what can be checked at once, then fetch what is missing.

    Raises:
        PipelineError: if an input is missing or unsuitable; nothing has been compiled yet.
    """
    if cell.platform.name != host_platform():
        raise ToolchainError(f"{cell.id}: a {cell.platform.name} wheel cannot be built on {host_platform()}")
    torch_lock = environments.torch_lock(cell)
    engine = choose_engine(cell, options.engine, options.image)
    python = interpreters.find(cell.python)
    compiler = None
    # A container has its own compiler and Python, and checks them itself.
    if engine == "host":
        compiler = compilers.check_host(cell.toolkit, needs_gl=cell.release.has_gl)
        if python is None:
            raise ToolchainError(
                f"{cell.id}: CPython {cell.python} with its headers is not installed",
                hint=f"install it, e.g. apt-get install python{cell.python} python{cell.python}-dev",
            )
    _announce_downloads(cell, python if engine == "host" else None, torch_lock)
    image = container_image(cell, engine, options.image)
    architectures = options.architectures or cell.toolkit.policy
    pristine = upstream.fetch(cell.release, source=options.source)
    series = patching.read_series(cell.release.series)
    cuda = providers.provide(cell.toolkit)
    return Inputs(
        cell=cell,
        engine=engine,
        image=image,
        architectures=architectures,
        pristine=pristine,
        series=series,
        cuda=cuda,
        compiler=compiler,
        python=python,
        torch_lock=torch_lock,
        materials=materials.collect(cell, cuda, series, engine=engine, image=image, architectures=architectures),
    )


def _announce_downloads(cell: Cell, python: Path | None, torch_lock: Path) -> None:
    """Print the size of every download before compiling; a container (no ``python``) fetches torch itself."""
    toolkit_lock = providers.to_fetch(cell.toolkit)
    if toolkit_lock:
        download_sizes.announce(f"CUDA {cell.toolkit.cuda}", Path(sys.executable), [toolkit_lock])
    if python and not environments.is_made(python, [torch_lock], name=_environment_name(cell)):
        download_sizes.announce(f"torch {cell.torch.version}", python, [torch_lock])


def _environment_name(cell: Cell) -> str:
    return f"torch-{cell.torch.version}"


def torch_environment(inputs: Inputs) -> Path:
    """Return the locked environment, of this machine's Python, with the torch that the cell is built against."""
    assert inputs.python is not None
    environment = environments.create(inputs.python, [inputs.torch_lock], name=_environment_name(inputs.cell))
    compilers.check_major(inputs.cell.toolkit, environments.torch_cuda(environment))
    return environment


def input_key(inputs: Inputs) -> str:
    """Return a hash of everything that decides the wheel's bytes."""
    cell = inputs.cell
    state = {
        "recipe": RECIPE,
        "cell": cell.id,
        "source": repr(cell.release.source),
        "series": inputs.series.sha256,
        "cuda": [inputs.cuda.version, inputs.cuda.lock_sha256],
        "torch": file_sha256(inputs.torch_lock),
        "tools": file_sha256(ROOT / "requirements" / "pipeline.txt"),
        "architectures": inputs.architectures,
        "runtime": cell.cuda_runtime,
        "builder": [inputs.engine, inputs.compiler, inputs.image, inputs.python],
    }
    return hashlib.sha256(json.dumps(state, sort_keys=True, default=str).encode()).hexdigest()
