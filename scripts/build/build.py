"""Build cells: fetch, patch, provide a toolchain, compile, repair, audit; one wheel and one record each.

A finished wheel is kept under a key of everything that went into it, so the same command after an interruption, or
after a change that concerns other cells, goes on where it stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import uv
from packaging.version import Version

from scripts import console
from scripts.audit import audit
from scripts.audit.checks import BUILD_INFO
from scripts.build import cibuildwheel, repair
from scripts.errors import BuildError, CommandError, PipelineError, ToolchainError, UsageError
from scripts.index import install_commands
from scripts.matrix import matrix
from scripts.matrix.matrix import Matrix
from scripts.model import ROOT, Cell
from scripts.source import patching, upstream
from scripts.support import download_sizes, environments, interpreters, process
from scripts.support.command_line import run_main
from scripts.support.files import cache_root, complete_folder, file_sha256
from scripts.support.host import host_platform
from scripts.toolchain import compilers, providers
from scripts.wheel import audit_record, materials, provenance, sbom, wheel_file, wheel_policy
from scripts.wheel.build_info import BuildInfo
from scripts.wheel.materials import Ingredients
from scripts.wheel.wheel_file import Wheel

# Every timestamp inside a wheel: 2020-01-01 UTC. Nothing that varies, or rebuilds would differ.
SOURCE_DATE_EPOCH = 1_577_836_800
# Variables by which a shell could change what the compilers make.
_UNSET = ("CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS", "CPATH", "NVCC_APPEND_FLAGS", "NVCC_PREPEND_FLAGS")
# Raise when the same inputs give other bytes because this module or one it calls has changed.
_RECIPE = "3"
# How much of a failed build is shown: lines, and characters of each.
_LINES, _LINE = 25, 300


@dataclass(frozen=True)
class Options:
    """How to build, as far as the cell does not say.

    ``architectures`` narrows what is compiled ("9.0"); empty is the toolkit's whole policy. ``objects`` is the folder
    of compiled objects that builds share, ``kept`` the folder of finished wheels; None keeps nothing.
    """

    engine: str
    architectures: tuple[str, ...]
    image: str | None
    source: Path | None
    output: Path
    objects: Path | None
    kept: Path | None

    def for_cell(self, cell: Cell) -> tuple[str, ...]:
        """What to compile ``cell`` for, in the notation of TORCH_CUDA_ARCH_LIST."""
        return self.architectures or cell.toolkit.policy


@dataclass(frozen=True)
class Inputs:
    """Everything that a cell's wheel is made of, verified and on disk, and the engine that makes it.

    With the host engine ``compiler`` and ``python`` are there; a container has its own.
    """

    engine: str
    pristine: Path
    series_sha256: str
    cuda: providers.CudaHome
    compiler: compilers.HostCompiler | None
    python: Path | None
    torch_lock: Path


@dataclass(frozen=True)
class Result:
    """One line of the summary."""

    cell: Cell
    outcome: str
    detail: str
    seconds: float
    wheel: Path | None = None


def host_cell(planned: Matrix, release: str | None) -> Cell:
    """Return the cell of :func:`default_cell`, and report why it was chosen."""
    cell, passed_over = default_cell(planned, release)
    console.log(f"cell {cell.id}: this Python, the torch of `pip install torch`, the newest release")
    for reason in passed_over:
        console.log(f"  not {reason}")
    return cell


def default_cell(planned: Matrix, release: str | None = None) -> tuple[Cell, tuple[str, ...]]:
    """Return the cell that a plain `build` makes here, and the reasons why no preferred cell was chosen.

    It has this machine's Python and platform, the torch that `pip install torch` gives (:func:`_default_torch`), and
    the newest upstream release that can be fetched, or the named ``release``.

    Raises:
        UsageError: the matrix has no cell for this Python, this platform and that release.
        BuildError: every candidate lacks a lock, a toolkit or a source; the message has all reasons.
    """
    python = _python_line()
    candidates = [
        cell
        for cell in planned.cells
        if cell.python == python
        and cell.platform.name == host_platform()
        and (release is None or cell.release.version == release)
    ]
    if not candidates:
        raise UsageError(
            f"the matrix has no cell for CPython {python} on {host_platform()}"
            + (f" and release {release}" if release else ""),
            hint="nox -s plan",
        )
    passed_over: dict[str, None] = {}
    for cell in _default_torch(candidates):
        reason = _missing_input(cell, fetch_release=release is None)
        if reason is None:
            return cell, tuple(passed_over)
        passed_over[reason] = None
    raise BuildError(f"no cell can be built here: {'; '.join(passed_over)}", hint="nox -s plan")


def _python_line() -> str:
    """Return the line of the Python that runs this, such as "3.12"."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _default_torch(cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells of the torch builds that `pip install torch` gives, newest torch first, then newest release.

    Those are the builds that PyPI itself serves with CUDA. Where it serves none (Windows), all builds are candidates.
    """
    chosen = [cell for cell in cells if cell.torch.origin == "pypi"] or list(cells)
    return sorted(chosen, key=lambda cell: (Version(cell.torch.version), Version(cell.release.version)), reverse=True)


def _missing_input(cell: Cell, *, fetch_release: bool) -> str | None:
    """Return the first input of the cell that cannot be provided here, with the reason, or None."""
    if not (ROOT / environments.torch_lock_name(cell)).exists():
        return f"torch {cell.torch.version}: unlocked"
    if reason := providers.availability(cell.toolkit):
        return f"CUDA {cell.toolkit.cuda}: {reason}"
    if fetch_release and (reason := upstream.availability(cell.release)):
        return f"{cell.release.version}: {reason}"
    return None


def choose_engine(cell: Cell, asked: str, image: str | None) -> str:
    """The engine that was asked for; ``auto`` is a container where there are an engine and an image, else the host."""
    if asked != "auto":
        return asked
    why = cibuildwheel.availability()
    if why is None and cell.platform.name.startswith("linux") and not (image or cell.platform.image):
        why = "the matrix pins no image for it"
    console.log(f"engine: {'cibuildwheel' if why is None else f'host (not cibuildwheel: {why})'}")
    return "cibuildwheel" if why is None else "host"


def gather(cell: Cell, options: Options) -> Inputs:
    """Choose the engine, check what can be checked at once, then fetch what is missing.

    Raises:
        PipelineError: something is missing or unsuitable; nothing has been compiled yet.
    """
    if cell.platform.name != host_platform():
        raise ToolchainError(f"{cell.id}: a {cell.platform.name} wheel cannot be built on {host_platform()}")
    torch_lock = environments.torch_lock(cell)
    engine = choose_engine(cell, options.engine, options.image)
    python = interpreters.find(cell.python)
    compiler = None
    # A container brings both, and checks its own.
    if engine == "host":
        compiler = compilers.check_host(cell.toolkit, needs_gl=cell.release.has_gl)
        if python is None:
            raise ToolchainError(
                f"{cell.id}: no CPython {cell.python} with its headers here",
                hint=f"install it, e.g. apt-get install python{cell.python} python{cell.python}-dev",
            )
    _announce_downloads(cell, python if engine == "host" else None, torch_lock)
    return Inputs(
        engine=engine,
        pristine=upstream.fetch(cell.release, source=options.source),
        series_sha256=patching.read_series(cell.release.series).sha256,
        cuda=providers.provide(cell.toolkit),
        compiler=compiler,
        python=python,
        torch_lock=torch_lock,
    )


def _announce_downloads(cell: Cell, python: Path | None, torch_lock: Path) -> None:
    """Say how much is downloaded before anything is compiled; a container, ``python`` None, fetches torch itself."""
    toolkit_lock = providers.to_fetch(cell.toolkit)
    if toolkit_lock:
        download_sizes.announce(f"CUDA {cell.toolkit.cuda}", Path(sys.executable), [toolkit_lock])
    if python and not environments.is_made(python, [torch_lock], name=_environment_name(cell)):
        download_sizes.announce(f"torch {cell.torch.version}", python, [torch_lock])


def input_key(cell: Cell, inputs: Inputs, options: Options) -> str:
    """A key over everything that decides the wheel's bytes."""
    state = {
        "recipe": _RECIPE,
        "cell": cell.id,
        "source": repr(cell.release.source),
        "series": inputs.series_sha256,
        "cuda": [inputs.cuda.version, inputs.cuda.lock_sha256],
        "torch": file_sha256(inputs.torch_lock),
        "tools": file_sha256(ROOT / "requirements" / "pipeline.txt"),
        "architectures": options.for_cell(cell),
        "runtime": cell.cuda_runtime,
        "builder": [inputs.engine, inputs.compiler, options.image or cell.platform.image, inputs.python],
    }
    return hashlib.sha256(json.dumps(state, sort_keys=True, default=str).encode()).hexdigest()


def _environment(cell: Cell, inputs: Inputs, options: Options) -> dict[str, str]:
    assert inputs.compiler is not None
    variables = dict.fromkeys(_UNSET, "")
    variables |= {
        "BUILD_BINARY_WHEEL": "1",
        "TORCH_CUDA_ARCH_LIST": ";".join(options.for_cell(cell)),
        "CUDA_HOME": str(inputs.cuda.path),
        "CXX": str(inputs.compiler.path),
        "CC": str(inputs.compiler.path),
        "NVDIFFRAST_CELL": cell.id,
        "NVDIFFRAST_PARTIAL": str(int(not cell.toolkit.is_whole(options.for_cell(cell)))),
        "NVDIFFRAST_SYMBOL_LIMITS": wheel_policy.newest_symbols(cell),
        "SOURCE_DATE_EPOCH": str(SOURCE_DATE_EPOCH),
        "PYTHONHASHSEED": "0",
    }
    if options.objects is not None:
        variables["NVDIFFRAST_BUILD_CACHE"] = str(options.objects)
    return variables


def is_progress(line: str) -> bool:
    """Whether a line of a build's output is shown: a finished file, or an error; not ninja's own compile commands."""
    return line.startswith(("[", "error:", "failed:", "FAILED")) and " -MMD " not in line


def _compiler_said(output: str) -> str:
    """The part of a build's output that tells why it failed: from the first failure on, or its end."""
    lines = [line[:_LINE] for line in output.splitlines()]
    failed = next((number for number, line in enumerate(lines) if line.startswith(("FAILED", "failed:"))), None)
    shown = lines[-_LINES:] if failed is None else lines[failed : failed + _LINES]
    return "\n".join(shown)


def reproducing_command(cell: Cell, options: Options) -> str:
    """The one command that builds this cell again."""
    command = f"nox -s build -- {cell.id} --engine {options.engine}"
    if options.source:
        command += f" --source {options.source}"
    return command + "".join(f" --arch {number}" for number in options.architectures)


def _environment_name(cell: Cell) -> str:
    return f"torch-{cell.torch.version}"


def torch_environment(cell: Cell, inputs: Inputs) -> Path:
    """The locked environment, of this machine's Python, with the torch that the cell is built against."""
    assert inputs.python is not None
    environment = environments.create(inputs.python, [inputs.torch_lock], name=_environment_name(cell))
    compilers.check_major(cell.toolkit, environments.torch_cuda(environment))
    return environment


def _compile_on_host(tree: Path, cell: Cell, inputs: Inputs, options: Options, output: Path) -> Path:
    """The wheel before repair, by any PEP 517 front end's way: uv build, in the cell's locked environment."""
    python = environments.interpreter(torch_environment(cell, inputs))
    variables = _environment(cell, inputs, options)
    variables["PATH"] = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    command: list[str | os.PathLike[str]] = [uv.find_uv_bin(), "build", "--wheel", "--no-build-isolation"]
    command += ["--no-config", "--python", python, "--out-dir", output, tree]
    log = ROOT / "build" / "logs" / f"{cell.id}.log"
    try:
        process.call(command, env=variables, show=is_progress, log=log)
    except CommandError as error:
        console.log(_compiler_said(log.read_text(encoding="utf-8")))
        raise BuildError(
            f"{cell.id}: the build failed; all of its output is in {log.relative_to(ROOT)}",
            hint=reproducing_command(cell, options),
        ) from error
    return next(output.glob("*.whl"))


def _make_on_host(cell: Cell, inputs: Inputs, options: Options, work: Path, destination: Path) -> Path:
    tree = patching.prepare(cell.release, inputs.pristine, work / "tree").path
    raw = _compile_on_host(tree, cell, inputs, options, work / "raw")
    os.environ["SOURCE_DATE_EPOCH"] = str(SOURCE_DATE_EPOCH)
    return repair.repair(raw, cell, destination, library_path=inputs.cuda.path / "lib64")


def _make_in_container(cell: Cell, inputs: Inputs, options: Options, work: Path, destination: Path) -> Path:
    tree = patching.prepare(cell.release, inputs.pristine, work / "tree").path
    return cibuildwheel.run(
        tree,
        cell,
        cuda_home=inputs.cuda.path,
        torch_lock=inputs.torch_lock,
        cache=options.objects or work / "objects",
        architectures=options.for_cell(cell),
        epoch=SOURCE_DATE_EPOCH,
        destination=destination,
        image=options.image,
    )


def _make(cell: Cell, inputs: Inputs, options: Options, destination: Path) -> Path:
    make = _make_in_container if inputs.engine == "cibuildwheel" else _make_on_host
    title = f"build {cell.id} ({inputs.engine})"
    with console.step(title), tempfile.TemporaryDirectory(prefix="nvdiffrast-") as work:
        wheel = make(cell, inputs, options, Path(work), destination)
        _add_bill(wheel, cell, inputs, options, Path(work) / "finished")
    return wheel


def made_of(wheel: Wheel, cell: Cell, inputs: Inputs, options: Options) -> Ingredients:
    """What ``wheel`` was made of, as its bill of materials and its provenance state it."""
    return materials.collect(
        cell,
        inputs.cuda,
        BuildInfo.parse(wheel.read(BUILD_INFO)),
        engine=inputs.engine,
        image=options.image or cell.platform.image,
        architectures=options.for_cell(cell),
    )


def _add_bill(made: Path, cell: Cell, inputs: Inputs, options: Options, folder: Path) -> None:
    """Put the bill of materials into the repaired wheel: it is the last thing that goes in."""
    wheel = wheel_file.unpack(made, folder)
    info = BuildInfo.parse(wheel.read(BUILD_INFO))
    sbom.inject(made, sbom.make(wheel, info, made_of(wheel, cell, inputs, options), epoch=SOURCE_DATE_EPOCH))


def make_wheel(cell: Cell, inputs: Inputs, options: Options) -> Path:
    """The cell's repaired wheel in ``options.output``, built unless one from the same inputs is kept.

    Raises:
        PipelineError: of the stage that failed; ``options.output`` is as it was.
    """
    if options.kept is None:
        with tempfile.TemporaryDirectory(prefix="nvdiffrast-") as folder:
            return _place(_make(cell, inputs, options, Path(folder)), options.output)
    final = options.kept / input_key(cell, inputs, options)
    if final.is_dir():
        console.log(f"{cell.id}: nothing that goes into it has changed, the wheel is kept")
    else:
        with complete_folder(final) as beside:
            _make(cell, inputs, options, beside)
    return _place(final / cell.wheel, options.output)


def _place(wheel: Path, output: Path) -> Path:
    """Copy ``wheel`` into ``output`` under its name, whole or not at all."""
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=output, prefix=".", delete=False) as beside:
        beside.write(wheel.read_bytes())
    Path(beside.name).chmod(0o644)
    return Path(beside.name).replace(output / wheel.name)


def _audit(wheel: Path, cell: Cell, inputs: Inputs, options: Options) -> audit_record.Record:
    # Without that Python here the import is untested.
    environment = torch_environment(cell, inputs) if inputs.python else None
    partial = not cell.toolkit.is_whole(options.for_cell(cell))
    record = audit.audit(wheel, cell, torch_environment=environment, allow_partial=partial)
    for kind, content in statements(wheel, cell, inputs, options).items():
        audit_record.state(record.sha256, kind, content, options.output)
    record = audit_record.with_evidence(record, options.output)
    audit_record.save(record, options.output)
    return record


def statements(path: Path, cell: Cell, inputs: Inputs, options: Options) -> dict[str, bytes]:
    """What lies beside the record of a wheel: a copy of its bill of materials, and its provenance."""
    with tempfile.TemporaryDirectory(prefix="nvdiffrast-") as folder:
        wheel = wheel_file.unpack(path, Path(folder))
        name = sbom.member(wheel.dist_info)
        bill, its = wheel.read(name), made_of(wheel, cell, inputs, options)
    stated = name, hashlib.sha256(bill).hexdigest()
    statement = provenance.make(path.name, file_sha256(path), stated, its, recipe=_RECIPE, epoch=SOURCE_DATE_EPOCH)
    return {"sbom": bill, "provenance": statement}


def build(cell: Cell, options: Options) -> Result:
    """Build and audit one cell; a failure is a result as well."""
    start = time.monotonic()
    try:
        inputs = gather(cell, options)
        wheel = make_wheel(cell, inputs, options)
        with console.step(f"audit {wheel.name}"):
            record = _audit(wheel, cell, inputs, options)
    except PipelineError as error:
        console.log(f"error: {error}")
        if error.hint:
            console.log(f"next:  {error.hint}")
        return Result(cell, "failed", type(error).__name__, time.monotonic() - start)
    wrong = [f"{check.name}: {check.detail}" for check in record.checks if check.outcome != "passed"]
    return Result(cell, record.outcome, "; ".join(wrong), time.monotonic() - start, wheel)


def summarize(results: Sequence[Result]) -> None:
    """Print the closing table, what did not pass, and how to install each wheel."""
    rows = []
    for result in results:
        made = result.wheel
        size = f"{made.stat().st_size / 1e6:.2f} MB" if made else "-"
        rows.append((result.cell.id, result.outcome, size, f"{result.seconds:.0f} s"))
    console.table("built", ("cell", "audit", "size", "time"), rows)
    for result in results:
        if result.wheel:
            print(f"{file_sha256(result.wheel)}  {result.wheel}")
        if result.detail:
            console.mark(result.outcome, f"{result.cell.id}: {result.detail}")
    for result in results:
        if result.wheel and result.outcome != "failed":
            say_how_to_install(result.cell, result.wheel)


def say_how_to_install(cell: Cell, wheel: Path) -> None:
    """Print the commands that install a built wheel, with a path that is right in the current folder."""
    here = Path.cwd()
    shown = wheel.relative_to(here) if wheel.is_relative_to(here) else wheel
    print(f"To install it in an environment of CPython {cell.python}:")
    for line in install_commands.file_commands(cell, str(shown)):
        print(f"  {line}")


def arguments(session: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser for the options that the sessions build and reproduce share."""
    parser = argparse.ArgumentParser(prog=f"nox -s {session} --", description=description)
    parser.add_argument("cells", nargs="*", metavar="CELL", help="cell ids or globs; none is this host's cell")
    parser.add_argument("--release", help="the upstream release, instead of the newest that can be had")
    parser.add_argument("--arch", action="append", default=[], metavar="9.0", help="compile for this architecture only")
    parser.add_argument("--engine", choices=("auto", "host", "cibuildwheel"), default="auto")
    parser.add_argument("--image", help="the container image, instead of the one that the matrix pins")
    parser.add_argument("--source", type=Path, help="take the release from this checkout, mirror or wheel; verified")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="where wheels and records go (dist/)")
    return parser


def chosen_cells(parsed: argparse.Namespace) -> tuple[Cell, ...]:
    """The cells that the command line names."""
    planned = matrix.load()
    if not parsed.cells:
        return (host_cell(planned, parsed.release),)
    return tuple(cell for cell in planned.select(parsed.cells) if parsed.release in (None, cell.release.version))


def parsed_options(parsed: argparse.Namespace, *, fresh: bool = False) -> Options:
    """Options as the command line has them; ``fresh`` takes nothing from earlier builds."""
    cache = cache_root()
    return Options(
        engine=parsed.engine,
        architectures=tuple(parsed.arch),
        image=parsed.image,
        source=parsed.source,
        output=parsed.output.absolute(),
        objects=None if fresh else cache / "objects",
        kept=None if fresh else cache / "wheels",
    )


def main() -> int:
    """``nox -s build -- [CELL...]``."""
    parser = arguments("build", __doc__)
    parser.add_argument("--fresh", action="store_true", help="take nothing from earlier builds")
    parsed = parser.parse_args()
    options = parsed_options(parsed, fresh=parsed.fresh)
    results = [build(cell, options) for cell in chosen_cells(parsed)]
    summarize(results)
    outcomes = {result.outcome for result in results}
    return BuildError.exit_code if "failed" in outcomes else 0


if __name__ == "__main__":
    run_main(main, uses_cache=True)
