"""The engine ``cibuildwheel``: one cell, built in a container on Linux and natively on Windows.

The configuration is generated from the cell. Whatever belongs to this machine alone (which container engine, where its
files are mounted, its certificates and proxies) stays out of it and goes to cibuildwheel beside it, so that the text is
the same wherever the cell is built. Inside the container everything that a compiler sees lies at a fixed path:
cibuildwheel puts the project into /project, the image has its interpreters in /opt/python, and the rest is mounted
under /opt/cell.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath

import uv

from scripts.audit import audit
from scripts.errors import AuditError, BuildError, CommandError, ToolchainError
from scripts.matrix import matrix
from scripts.model import ROOT, Cell
from scripts.support import process
from scripts.support.command_line import run_main
from scripts.toolchain import compilers
from scripts.wheel import wheel_policy

_INSIDE = PurePosixPath("/opt/cell")
_PIPELINE = _INSIDE / "pipeline"
_TOOLS = _INSIDE / "tools"
_UV_CACHE = _INSIDE / "uv"
_CERTIFICATES = _INSIDE / "certificates.pem"
# This pipeline's own stages, inside the container.
_STAGE = f"env PYTHONPATH={_PIPELINE} {_TOOLS}/bin/python"
_INSTALL = "pip install --require-hashes --no-deps --only-binary :all:"
# The compiler of the official manylinux_2_28 images; a toolkit that wants an older one gets it from the distribution.
_IMAGE_GCC = 14
_STAGES_PYTHON = (3, 11)
# Handed on by name: their values may hold a password, and a command line is no place for one.
_PASSED = (
    "MAX_JOBS",
    "UV_DEFAULT_INDEX",
    "UV_INDEX_URL",
    "UV_HTTP_TIMEOUT",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "https_proxy",
    "http_proxy",
    "no_proxy",
)


@dataclass(frozen=True)
class Inputs:
    """The folders and files that a build reads, and the cache that it reads and writes; host paths."""

    cuda_home: Path
    torch_lock: Path
    cache: Path

    @property
    def inside(self) -> Inputs:
        """The same, where a container finds them."""
        return Inputs(*(Path(_INSIDE / name) for name in ("cuda", "torch.txt", "cache")))


def _toml(value: str | Sequence[str] | Mapping[str, object]) -> str:
    """One TOML value; JSON's strings and arrays are TOML's as well."""
    if isinstance(value, Mapping):
        pairs = (f"{key} = {_toml(item)}" for key, item in value.items())  # type: ignore[arg-type]
        return "{ " + ", ".join(pairs) + " }"
    return json.dumps(value)


def _environment(
    cell: Cell, *, cuda_home: PurePath, cache: PurePath, architectures: Sequence[str], epoch: int
) -> dict[str, str]:
    values = {
        "BUILD_BINARY_WHEEL": "1",
        "CUDA_HOME": cuda_home.as_posix(),
        "NVDIFFRAST_BUILD_CACHE": cache.as_posix(),
        "NVDIFFRAST_CELL": cell.id,
        "NVDIFFRAST_LOCAL_VERSION": cell.local_version,
        "NVDIFFRAST_PARTIAL": str(int(not cell.toolkit.is_whole(architectures))),
        "NVDIFFRAST_TORCH_REQUIREMENT": f"torch=={cell.torch.line}.*",
        "PYTHONHASHSEED": "0",
        "SOURCE_DATE_EPOCH": str(epoch),
        "TORCH_CUDA_ARCH_LIST": ";".join(architectures),
    }
    if _is_windows(cell):
        # torch takes the compiler of the developer shell that this runs in, and refuses to guess.
        return {**values, "CUDA_PATH": cuda_home.as_posix(), "DISTUTILS_USE_SDK": "1"}
    values["CXX"] = "g++"
    values["NVDIFFRAST_SYMBOL_LIMITS"] = wheel_policy.newest_symbols(cell)
    if compiler := _older_gcc(cell):
        values["PATH"] = f"/opt/rh/gcc-toolset-{compiler}/root/usr/bin:$PATH"
    return values


def _older_gcc(cell: Cell) -> int | None:
    """The major version of the g++ to install, where the toolkit does not take the image's own."""
    maximum = cell.toolkit.gcc.maximum
    if maximum is None or (major := int(maximum.split(".")[0])) >= _IMAGE_GCC:
        return None
    return major


def _stages_python(cell: Cell) -> str:
    """The interpreter in the image that runs this pipeline's own stages: the cell's, where it is new enough."""
    own = tuple(int(part) for part in cell.python.split("."))
    tag = cell.python_tag if own >= _STAGES_PYTHON else "cp311"
    return f"/opt/python/{tag}-{tag}/bin/python"


def _before_all(cell: Cell) -> list[str]:
    """Once per container: what the image lacks, the pipeline's own tools, and the check that it will all do."""
    packages = "libglvnd-devel"
    if compiler := _older_gcc(cell):
        packages += f" gcc-toolset-{compiler}-gcc-c++"
    return [
        f"if command -v dnf; then dnf install -y {packages}; fi",
        f"uv venv --python {_stages_python(cell)} {_TOOLS}",
        f"uv {_INSTALL} --python {_TOOLS}/bin/python -r {_PIPELINE}/requirements/pipeline.txt",
        f"{_STAGE} -m scripts.build.cibuildwheel check {cell.id}",
    ]


def _quoted(path: PurePath | str) -> str:
    """Both sh and cmd.exe take double quotes; no path here holds a $ or a %."""
    return f'"{path.as_posix() if isinstance(path, PurePath) else path}"'


def _repair(cell: Cell, python: str, cuda_home: PurePath) -> str:
    options = f"--cell {cell.id} --output {_quoted('{dest_dir}')} --library-path {_quoted(cuda_home)}"
    return f"{python} -m scripts.build.repair {_quoted('{wheel}')} {options}"


def _platform_options(cell: Cell, *, image: str, cuda_home: PurePath) -> dict[str, str | list[str]]:
    if _is_windows(cell):
        return {
            "build": f"{cell.python_tag}-win_amd64",
            "archs": ["AMD64"],
            "repair-wheel-command": _repair(cell, _this_python(), cuda_home),
        }
    return {
        "build": f"{cell.python_tag}-manylinux_x86_64",
        "archs": ["x86_64"],
        "manylinux-x86_64-image": image,
        "before-all": _before_all(cell),
        "repair-wheel-command": _repair(cell, _STAGE, cuda_home),
    }


def _is_windows(cell: Cell) -> bool:
    return cell.platform.name == "win_amd64"


def _this_python() -> str:
    return _quoted(Path(sys.executable))


def _uv(cell: Cell) -> str:
    """The image has uv on its PATH; on Windows it is this environment's, which need not be activated."""
    return f"{_this_python()} -m uv" if _is_windows(cell) else "uv"


def configuration(
    cell: Cell, *, image: str, cuda_home: Path, torch_lock: Path, cache: Path, architectures: Sequence[str], epoch: int
) -> str:
    """cibuildwheel's configuration for one cell, as TOML; the same arguments give the same text.

    ``cuda_home``, ``torch_lock`` and ``cache`` are paths as the build sees them: under /opt/cell in a container.
    ``architectures`` are in torch's notation ("8.0", "9.0+PTX"); ``epoch`` is SOURCE_DATE_EPOCH, in seconds.
    """
    partial = " --allow-partial" if not cell.toolkit.is_whole(architectures) else ""
    options: dict[str, str | Sequence[str] | Mapping[str, object]] = {
        **_platform_options(cell, image=image, cuda_home=cuda_home),
        # An isolated environment would have a random name, and torch's checks embed the paths of its headers.
        "build-frontend": {"name": "build[uv]", "args": ["--no-isolation"]},
        "before-build": [f"{_uv(cell)} {_INSTALL} -r {_quoted(torch_lock)}"],
        "audit-requires": [],
        "audit-command": f"{_this_python()} -m scripts.build.cibuildwheel audit{partial} {_quoted('{wheel}')}",
        "environment": _environment(cell, cuda_home=cuda_home, cache=cache, architectures=architectures, epoch=epoch),
    }
    lines = [f"{name} = {_toml(value)}" for name, value in options.items()]
    return "\n".join([f"# {cell.id}", "[tool.cibuildwheel]", *lines, ""])


def _answers(engine: str) -> bool:
    try:
        process.call([engine, "info"], echo=False, quiet=True)
    except CommandError:
        return False
    return True


def _engine() -> str | None:
    """The container engine that answers here: the one that CIBW_CONTAINER_ENGINE names, else docker, else podman."""
    named = os.environ.get("CIBW_CONTAINER_ENGINE")
    if named:
        return named if _answers(shlex.split(named.replace(";", " "))[0]) else None
    return next((name for name in ("docker", "podman") if _answers(name)), None)


def availability() -> str | None:
    """Why this engine cannot be used here, with what would change it; None where it can."""
    if sys.platform == "win32" or (sys.platform == "linux" and _engine()):
        return None
    if sys.platform != "linux":
        return f"no wheel is built on {sys.platform}: use Linux or Windows"
    named = os.environ.get("CIBW_CONTAINER_ENGINE")
    if named:
        return f"CIBW_CONTAINER_ENGINE names {named!r}, which does not answer: start it, or unset the variable"
    return "neither docker nor podman answers: start docker's daemon, or install podman (apt-get install podman runc)"


def _mount(source: Path, target: PurePath, *, writable: bool = False) -> str:
    return f"--mount=type=bind,source={source.resolve()},target={target}" + ("" if writable else ",readonly")


def _certificates() -> Path | None:
    """The bundle that this machine's tools were told to trust, which an image from elsewhere does not know."""
    for variable in ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE"):
        if (value := os.environ.get(variable)) and Path(value).is_file():
            return Path(value)
    return None


def _create_arguments(inputs: Inputs, uv_cache: Path) -> list[str]:
    """What is mounted where, and which variables the container inherits."""
    inside = inputs.inside
    arguments = [
        _mount(ROOT, _PIPELINE),
        _mount(inputs.cuda_home, inside.cuda_home),
        _mount(inputs.torch_lock, inside.torch_lock),
        _mount(inputs.cache, inside.cache, writable=True),
        _mount(uv_cache, _UV_CACHE, writable=True),
        f"--env=UV_CACHE_DIR={_UV_CACHE}",
        "--env=UV_LINK_MODE=copy",
        *(f"--env={name}" for name in _PASSED if name in os.environ),
    ]
    if bundle := _certificates():
        variables = [f"--env={name}={_CERTIFICATES}" for name in ("SSL_CERT_FILE", "PIP_CERT")]
        arguments += [_mount(bundle, _CERTIFICATES), *variables]
    return arguments


def _uv_cache(engine: str, cache: Path) -> Path:
    """uv's own cache where the container's files come out as this user's; docker would leave root's files there."""
    if engine.startswith("podman") or os.geteuid() == 0:
        return Path(process.call([uv.find_uv_bin(), "cache", "dir"], echo=False, quiet=True).strip())
    return cache / "uv"


def _container(inputs: Inputs) -> str:
    """CIBW_CONTAINER_ENGINE: the engine, the user's own settings for it, and what this build adds."""
    engine = _engine()
    if engine is None:
        raise ToolchainError(
            f"the cibuildwheel engine needs containers: {availability()}",
            hint="start docker or install podman, or build without a container: nox -s build -- --engine host",
        )
    uv_cache = _uv_cache(engine, inputs.cache)
    for folder in (inputs.cache, uv_cache):
        folder.mkdir(parents=True, exist_ok=True)
    # The host's own files are not for the container to see.
    return f"{engine}; disable_host_mount: true; create_args: {shlex.join(_create_arguments(inputs, uv_cache))}"


def _image(cell: Cell, image: str | None) -> str:
    """The image that was asked for, else the one of the matrix."""
    if chosen := image or cell.platform.image:
        return chosen
    raise ToolchainError(
        f"{cell.id}: the matrix names no image for {cell.platform.name}, and none was given",
        hint="add --image NAME; `nox -s image` makes an image and prints its name",
    )


def _check(inputs: Inputs) -> None:
    for path, what in ((inputs.cuda_home, "CUDA toolkit"), (inputs.torch_lock, "locked torch requirements")):
        if not path.exists():
            raise ToolchainError(f"{path}: no {what} there", hint="nox -s lock")
        if "," in str(path):
            raise ToolchainError(f"{path}: a container cannot mount a path with a comma", hint="move the folder")


def _call(tree: Path, config: Path, output: Path, *, platform: str, env: Mapping[str, str]) -> None:
    options = ["--platform", platform, "--config-file", os.fspath(config), "--output-dir", os.fspath(output)]
    try:
        process.call([sys.executable, "-m", "cibuildwheel", *options, "."], cwd=tree, env=env)
    except CommandError as error:
        raise BuildError(f"cibuildwheel failed: {error}", hint="read its output above") from error


def run(
    tree: Path,
    cell: Cell,
    *,
    cuda_home: Path,
    torch_lock: Path,
    cache: Path,
    architectures: Sequence[str],
    epoch: int,
    destination: Path,
    image: str | None = None,
) -> Path:
    """Build, repair and audit one cell from its patched ``tree``, and return the wheel in ``destination``.

    Raises:
        ToolchainError: no container engine, no image, or an input is missing.
        BuildError: cibuildwheel failed, or did not make the wheel that the cell names.
    """
    inputs = Inputs(cuda_home=cuda_home, torch_lock=torch_lock, cache=cache)
    _check(inputs)
    # The audit command runs on this machine, in the folder of the project that is built.
    env = {"PYTHONPATH": str(ROOT), "SOURCE_DATE_EPOCH": str(epoch)}
    windows = _is_windows(cell)
    if not windows:
        env["CIBW_CONTAINER_ENGINE"] = _container(inputs)
    seen = inputs if windows else inputs.inside
    text = configuration(
        cell,
        image="" if windows else _image(cell, image),
        cuda_home=seen.cuda_home,
        torch_lock=seen.torch_lock,
        cache=seen.cache,
        architectures=architectures,
        epoch=epoch,
    )
    destination.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination, prefix=".cibuildwheel-") as scratch:
        config = Path(scratch) / "cibuildwheel.toml"
        config.write_text(text, encoding="utf-8")
        _call(tree, config, Path(scratch) / "wheels", platform="windows" if windows else "linux", env=env)
        return _take(Path(scratch) / "wheels", cell, destination)


def _take(made: Path, cell: Cell, destination: Path) -> Path:
    """Move the cell's wheel into its place; anything else there is a failure."""
    names = sorted(path.name for path in made.iterdir())
    if names != [cell.wheel]:
        raise BuildError(
            f"{cell.id}: expected {cell.wheel}, cibuildwheel made {', '.join(names) or 'nothing'}",
            hint=f"look at the patched tree: nox -s patch -- {cell.release.version}",
        )
    return (made / cell.wheel).replace(destination / cell.wheel)


def check(cell: Cell) -> None:
    """What an image must have before anything is compiled in it: the compiler that CXX names, and the GL headers.

    Raises:
        ToolchainError: the compiler is out of the toolkit's bounds, or headers are missing.
    """
    compilers.check_host(cell.toolkit, needs_gl=cell.release.series == "0.3")


def audit_file(wheel: Path, *, allow_partial: bool) -> None:
    """Audit what can be seen in the file; no environment to import it in is at hand here, whoever built it has one.

    Raises:
        AuditError: a check failed; untested ones are shown and left to the audit that follows the build.
    """
    start = time.monotonic()
    record = audit.audit(wheel, allow_partial=allow_partial, finished=False)
    audit.show(record, time.monotonic() - start)
    if record.outcome == "failed":
        raise AuditError(f"{wheel.name} is not what its cell says", hint="the failed checks above say what differs")


def main() -> int:
    """What cibuildwheel itself runs: ``check CELL`` inside the container, ``audit WHEEL`` on this machine."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check").add_argument("cell")
    auditing = commands.add_parser("audit")
    auditing.add_argument("wheel", type=Path)
    auditing.add_argument("--allow-partial", action="store_true")
    parsed = parser.parse_args()
    if parsed.command == "check":
        check(*matrix.load().select([parsed.cell]))
    else:
        audit_file(parsed.wheel, allow_partial=parsed.allow_partial)
    return 0


if __name__ == "__main__":
    run_main(main)
