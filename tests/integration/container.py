"""A local build image, for machines that reach a package index and a Debian mirror but no image registry.

``python -m tests.integration.container`` builds the image if it is not there and prints its name, for
``nox -s build -- --engine cibuildwheel --image NAME``. It stands in for the official manylinux image as far as
cibuildwheel can see: ``/opt/python/cpXY-cpXY`` with pip and build, uv, a C++ compiler, and the GL headers. Its glibc is
Debian's, so the ceiling of the wheel's platform tag is held by repair and audit, not by the image.

The interpreters are copies of this machine's own; the image is therefore not a pinned input, and no release is built
in it.
"""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import uv

from scripts.errors import CommandError, ToolchainError
from scripts.model import ROOT
from scripts.support import interpreters, process
from scripts.support.command_line import run_main
from scripts.support.files import cache_root

DISTRIBUTION = "bookworm"
PACKAGES = ("ca-certificates", "g++", "gcc", "libegl-dev", "libgl-dev", "make")
COMMANDS = ("podman", "runc", "fuse-overlayfs", "debootstrap", "tar")
INSTALL = "apt-get install -y --no-install-recommends podman runc fuse-overlayfs debootstrap"
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
_SHARED_PREFIXES = (Path("/usr"), Path("/usr/local"))
_LOCK = ROOT / "requirements" / "pipeline.txt"
_DESCRIBE = "import sys; print(sys.base_prefix); print('.'.join(map(str, sys.version_info[:3])))"
# What an interpreter needs to build extensions is less than what lies under its prefix.
_LEFT_BEHIND = ("site-packages", "test", "__pycache__", "*.a", "idlelib", "share")


@dataclass(frozen=True)
class Interpreter:
    """One CPython of this machine: ``version`` with its patch level, ``prefix`` as ``sys.base_prefix``."""

    version: str
    prefix: Path

    @property
    def tag(self) -> str:
        """``cp312`` for 3.12.1."""
        return "cp" + "".join(self.version.split(".")[:2])


def unavailable() -> str | None:
    """Why the image cannot be built or used here, with the command that would change it; None where it can."""
    if sys.platform != "linux":
        return "needs Linux"
    missing = [name for name in COMMANDS if process.which(name) is None]
    if missing:
        return f"{', '.join(missing)} not installed; {INSTALL}"
    if os.geteuid() != 0:
        return "debootstrap needs root; run the same command as root"
    return None


def _describe(version: str) -> Interpreter | None:
    """An interpreter of ``version`` that owns its prefix; a distribution's own shares /usr with everything else."""
    found = interpreters.find(version)
    if found is None:
        return None
    prefix, exact = process.call([found, "-I", "-c", _DESCRIBE], echo=False, quiet=True).splitlines()
    return None if Path(prefix) in _SHARED_PREFIXES else Interpreter(version=exact, prefix=Path(prefix))


def find_interpreters() -> tuple[Interpreter, ...]:
    """The interpreters that the image will hold, oldest first.

    Raises:
        ToolchainError: there is none that can be copied.
    """
    found = tuple(interpreter for version in PYTHONS if (interpreter := _describe(version)))
    if not found:
        raise ToolchainError(
            "the image needs a Python with a folder of its own, and there is only the distribution's here",
            hint="uv python install 3.12, or pyenv install 3.12",
        )
    return found


def image_name(held: Sequence[Interpreter]) -> str:
    """A name that changes with the recipe, so that an image of an older recipe is never taken for this one."""
    installed = [f"{name} {metadata.version(name)}" for name in ("build", "uv")]
    parts = [*installed, *(f"python {interpreter.version}" for interpreter in held)]
    recipe = hashlib.sha256(Path(__file__).read_bytes() + "\n".join(parts).encode())
    return f"localhost/nvdiffrast-wheels-build:{recipe.hexdigest()[:12]}"


def _copy_interpreter(interpreter: Interpreter, root: Path) -> None:
    home = root / "opt" / "python" / f"{interpreter.tag}-{interpreter.tag}"
    shutil.copytree(interpreter.prefix, home, symlinks=True, ignore=shutil.ignore_patterns(*_LEFT_BEHIND))
    short = ".".join(interpreter.version.split(".")[:2])
    library = home / "lib" / f"python{short}"
    (library / "site-packages").mkdir()
    (library / "EXTERNALLY-MANAGED").unlink(missing_ok=True)
    binary = home / "bin" / f"python{short}"
    # An interpreter built with --enable-shared looks for its library under the prefix that it was built for. $ORIGIN
    # would want /proc, which a bare chroot has not.
    process.call(["patchelf", "--set-rpath", f"/{home.relative_to(root)}/lib", binary], quiet=True)
    for name in ("python", "python3"):
        (home / "bin" / name).unlink(missing_ok=True)
        (home / "bin" / name).symlink_to(binary.name)
    process.call(["chroot", root, f"/{binary.relative_to(root)}", "-m", "ensurepip", "--default-pip"], quiet=True)
    site = library / "site-packages"
    wanted: list[str | Path] = ["--python", sys.executable, "--python-version", interpreter.version, "--target", site]
    process.call([uv.find_uv_bin(), "pip", "install", *wanted, "-c", _LOCK, "build"], quiet=True)


def _fill(root: Path, held: Sequence[Interpreter]) -> None:
    packages = ",".join(PACKAGES)
    process.call(["debootstrap", "--variant=minbase", f"--include={packages}", DISTRIBUTION, root], quiet=True)
    for interpreter in held:
        _copy_interpreter(interpreter, root)
    # cibuildwheel runs its own helpers with whatever lies here.
    (root / "opt/python/cp39-cp39").symlink_to(f"{held[0].tag}-{held[0].tag}")
    shutil.copy2(uv.find_uv_bin(), root / "usr/local/bin/uv")
    shutil.rmtree(root / "var/cache/apt", ignore_errors=True)


def _make_archive(archive: Path, held: Sequence[Interpreter]) -> None:
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=archive.parent, prefix="image-") as scratch:
        root = Path(scratch) / "root"
        _fill(root, held)
        partial = Path(scratch) / archive.name
        process.call(["tar", "--numeric-owner", "-C", root, "-cf", partial, "."], quiet=True)
        partial.replace(archive)


def _exists(image: str) -> bool:
    try:
        process.call(["podman", "image", "exists", image], echo=False, quiet=True)
    except CommandError:
        return False
    return True


def ensure_image() -> str:
    """The name of the local build image, built if it is not there (about two minutes) or imported from its archive.

    Raises:
        ToolchainError: a command, root, or an interpreter is missing.
        CommandError: debootstrap, uv or podman failed.
    """
    if reason := unavailable():
        raise ToolchainError(f"the local build image cannot be made: {reason}")
    held = find_interpreters()
    image = image_name(held)
    if _exists(image):
        return image
    archive = cache_root() / "images" / f"{image.rpartition(':')[2]}.tar"
    if not archive.is_file():
        _make_archive(archive, held)
    process.call(["podman", "import", "--os", "linux", "--arch", "amd64", archive, image], quiet=True)
    return image


def _runs(image: str, env: Mapping[str, str]) -> bool:
    try:
        process.call(["podman", "run", "--rm", "--pull=never", image, "true"], env=env, echo=False, quiet=True)
    except CommandError:
        return False
    return True


def _lower(limit: int, most: int) -> int:
    hard = resource.getrlimit(limit)[1]
    return most if hard == resource.RLIM_INFINITY else min(hard, most)


def environment(image: str) -> dict[str, str]:
    """What podman needs in its environment to run ``image`` here: nothing, or a containers.conf of ours.

    Inside another container the limits that podman asks for by default are refused, and it has no bridge to make.
    """
    if _runs(image, {}):
        return {}
    # Within this process's own hard limits, and within those that podman gives itself.
    limits = (("nofile", resource.RLIMIT_NOFILE, 20000), ("nproc", resource.RLIMIT_NPROC, 32768))
    ulimits = [f"{name}={_lower(limit, most)}:{_lower(limit, most)}" for name, limit, most in limits]
    settings = cache_root() / "images" / "containers.conf"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text(f'[containers]\ndefault_ulimits = {ulimits}\nnetns = "host"\n\n[engine]\nruntime = "runc"\n')
    env = {"CONTAINERS_CONF": str(settings)}
    if not _runs(image, env):
        raise ToolchainError(
            f"podman cannot start {image} here, not even with {settings}",
            hint=f"see why: CONTAINERS_CONF={settings} podman run --rm {image} true",
        )
    return env


def main() -> int:
    """Print the image's name, alone on standard output; what podman needs besides goes to standard error."""
    image = ensure_image()
    for name, value in environment(image).items():
        print(f"podman runs it here with: export {name}={value}", file=sys.stderr)
    print(image)
    return 0


if __name__ == "__main__":
    run_main(main)
