"""Make the wheel of one cell from its inputs: patch, compile, repair, add the bill of materials."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import uv

from scripts import console
from scripts.audit.checks import BUILD_INFO
from scripts.build import cibuildwheel, repair
from scripts.build.inputs import Inputs, Options, input_key, torch_environment
from scripts.build.recipe import SOURCE_DATE_EPOCH
from scripts.errors import BuildError, CommandError
from scripts.model import ROOT, Cell
from scripts.source import patching
from scripts.support import environments, process
from scripts.support.files import complete_folder, replace_atomic
from scripts.wheel import sbom, wheel_file, wheel_policy
from scripts.wheel.build_info import BuildInfo
from scripts.wheel.wheel_file import Wheel

# Variables by which a shell could change the compilers' output.
_UNSET = ("CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS", "CPATH", "NVCC_APPEND_FLAGS", "NVCC_PREPEND_FLAGS")
# How much of a failed build's output is shown: the number of lines, and of characters of each line.
_SHOWN_LINES, _SHOWN_CHARACTERS = 25, 300


def make_wheel(inputs: Inputs, options: Options) -> Path:
    """Write the cell's finished wheel into ``options.output``; compile it unless a wheel of the same inputs is kept.

    Raises:
        PipelineError: if a stage fails; ``options.output`` is as it was.
    """
    if options.kept is None:
        with tempfile.TemporaryDirectory(prefix="nvdiffrast-") as scratch:
            return _copy(_make(inputs, options, Path(scratch)), options.output)
    folder = options.kept / input_key(inputs)
    if folder.is_dir():
        console.log(f"{inputs.cell.id}: no input has changed, the wheel of an earlier build is used")
    else:
        with complete_folder(folder) as new:
            _make(inputs, options, new)
    return _copy(folder / inputs.cell.wheel, options.output)


def _copy(wheel: Path, output: Path) -> Path:
    """Copy ``wheel`` into the folder ``output``; the copy appears complete or not at all."""
    with replace_atomic(output / wheel.name) as temporary:
        shutil.copyfile(wheel, temporary)
        temporary.chmod(0o644)
    return output / wheel.name


def _make(inputs: Inputs, options: Options, destination: Path) -> Path:
    """Build the wheel without regard to kept ones."""
    build = _build_in_container if inputs.engine == "cibuildwheel" else _build_on_host
    with (
        console.step(f"build {inputs.cell.id} ({inputs.engine})"),
        tempfile.TemporaryDirectory(prefix="nvdiffrast-") as scratch,
    ):
        work = Path(scratch)
        tree = patching.prepare(inputs.cell.release, inputs.pristine, work / "tree").path
        wheel = build(tree, inputs, options, work, destination)
        _add_bill_of_materials(wheel_file.unpack(wheel, work / "unpacked"), inputs)
    return wheel


def _build_on_host(tree: Path, inputs: Inputs, options: Options, work: Path, destination: Path) -> Path:
    linked = _compile(tree, inputs, options, work / "linked")
    libraries = inputs.cuda.path / "lib64"
    return repair.repair(linked, inputs.cell, destination, library_path=libraries, epoch=SOURCE_DATE_EPOCH)


def _build_in_container(tree: Path, inputs: Inputs, options: Options, work: Path, destination: Path) -> Path:
    return cibuildwheel.run(
        tree,
        inputs.cell,
        cuda_home=inputs.cuda.path,
        torch_lock=inputs.torch_lock,
        cache=options.objects or work / "objects",
        architectures=inputs.architectures,
        epoch=SOURCE_DATE_EPOCH,
        destination=destination,
        image=inputs.image,
    )


def _compile(tree: Path, inputs: Inputs, options: Options, output: Path) -> Path:
    """Compile the wheel with uv, a PEP 517 front end, in the cell's locked environment. It is not repaired yet.

    Raises:
        BuildError: if the compilation fails.
    """
    cell = inputs.cell
    python = environments.interpreter(torch_environment(inputs))
    variables = _environment(inputs, options)
    variables["PATH"] = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    command: list[str | os.PathLike[str]] = [uv.find_uv_bin(), "build", "--wheel", "--no-build-isolation"]
    command += ["--no-config", "--python", python, "--out-dir", output, tree]
    log = ROOT / "build" / "logs" / f"{cell.id}.log"
    try:
        process.call(command, env=variables, show=is_progress, log=log)
    except CommandError as error:
        console.log(_failure_excerpt(log.read_text(encoding="utf-8")))
        raise BuildError(
            f"{cell.id}: the build failed; all of its output is in {log.relative_to(ROOT)}",
            hint=reproducing_command(cell, options),
        ) from error
    return next(output.glob("*.whl"))


def _environment(inputs: Inputs, options: Options) -> dict[str, str]:
    assert inputs.compiler is not None
    variables = dict.fromkeys(_UNSET, "")
    variables |= {
        "BUILD_BINARY_WHEEL": "1",
        "TORCH_CUDA_ARCH_LIST": ";".join(inputs.architectures),
        "CUDA_HOME": str(inputs.cuda.path),
        "CXX": str(inputs.compiler.path),
        "CC": str(inputs.compiler.path),
        "NVDIFFRAST_CELL": inputs.cell.id,
        "NVDIFFRAST_PARTIAL": str(int(inputs.partial)),
        "NVDIFFRAST_SYMBOL_LIMITS": wheel_policy.newest_symbols(inputs.cell),
        "SOURCE_DATE_EPOCH": str(SOURCE_DATE_EPOCH),
        "PYTHONHASHSEED": "0",
    }
    if options.objects is not None:
        variables["NVDIFFRAST_BUILD_CACHE"] = str(options.objects)
    return variables


def is_progress(line: str) -> bool:
    """Return whether a line of a build's output is shown: a finished file or an error, but no command of ninja."""
    return line.startswith(("[", "error:", "failed:", "FAILED")) and " -MMD " not in line


def _failure_excerpt(output: str) -> str:
    """Return the lines of a build's output from the first failure on, or the last lines if no failure is marked."""
    lines = [line[:_SHOWN_CHARACTERS] for line in output.splitlines()]
    failed = next((number for number, line in enumerate(lines) if line.startswith(("FAILED", "failed:"))), None)
    shown = lines[-_SHOWN_LINES:] if failed is None else lines[failed : failed + _SHOWN_LINES]
    return "\n".join(shown)


def reproducing_command(cell: Cell, options: Options) -> str:
    """Return the command that builds this cell again."""
    command = f"nox -s build -- {cell.id} --engine {options.engine}"
    if options.source:
        command += f" --source {options.source}"
    return command + "".join(f" --arch {number}" for number in options.architectures)


def read_build_info(wheel: Wheel, inputs: Inputs) -> BuildInfo:
    """Return the build_info.json of a wheel that was made from ``inputs``.

    Raises:
        AuditError: if the file is missing or malformed.
        BuildError: if the wheel was built with another series of patches than the one in ``inputs``.
    """
    info = BuildInfo.parse(wheel.read(BUILD_INFO))
    if info.series_sha256 != inputs.series.sha256:
        raise BuildError(
            f"{inputs.cell.id}: patches/ has another series ({inputs.series.sha256}) than the wheel was built with "
            f"({info.series_sha256})",
            hint="do not change patches/ during a build; build again",
        )
    return info


def _add_bill_of_materials(wheel: Wheel, inputs: Inputs) -> None:
    """Add the bill of materials to the repaired wheel; nothing is added after it."""
    info = read_build_info(wheel, inputs)
    sbom.inject(wheel.path, sbom.make(wheel, info, inputs.materials, epoch=SOURCE_DATE_EPOCH))
