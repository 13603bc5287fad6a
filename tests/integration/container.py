"""Build a local build image on machines that reach a package index and a Debian mirror, but no image registry.

``python -m tests.integration.container`` builds the image if it does not exist, and prints its name for
``nox -s build -- --engine cibuildwheel --image NAME``. The image replaces the official manylinux image and has
everything that cibuildwheel uses: ``/opt/python/cpXY-cpXY`` with pip and build, uv, a C++ compiler, and the GL headers.
Its glibc is Debian's, so repair and audit enforce the limit of the wheel's platform tag, not the image.

The interpreters are copies of this machine's interpreters. The image is therefore not a pinned input, and wheels for
publication are not built in it.
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
# Files below an interpreter's prefix that are not needed to build extensions.
_LEFT_BEHIND = ("site-packages", "test", "__pycache__", "*.a", "idlelib", "share")


@dataclass(frozen=True)
class Interpreter:
    """A CPython of this machine; ``version`` includes the patch level, ``prefix`` is its ``sys.base_prefix``."""

    version: str
    prefix: Path

    @property
    def tag(self) -> str:
        """Return the tag of the version: ``cp312`` for 3.12.1."""
        return "cp" + "".join(self.version.split(".")[:2])


def unavailable() -> str | None:
    """Return why the image cannot be built or used here, and the command that helps; None if it can be used."""
    if sys.platform != "linux":
        return "needs Linux"
    missing = [name for name in COMMANDS if process.which(name) is None]
    if missing:
        return f"{', '.join(missing)} not installed; {INSTALL}"
    if os.geteuid() != 0:
        return "debootstrap needs root; run the same command as root"
    return None


def _describe(version: str) -> Interpreter | None:
    """Return the interpreter of ``version``; None if it is not installed or shares its prefix, for example /usr."""
    found = interpreters.find(version)
    if found is None:
        return None
    prefix, exact = process.call([found, "-I", "-c", _DESCRIBE], echo=False, quiet=True).splitlines()
    return None if Path(prefix) in _SHARED_PREFIXES else Interpreter(version=exact, prefix=Path(prefix))


def find_interpreters() -> tuple[Interpreter, ...]:
    """Return the interpreters that are copied into the image, oldest first.

    Raises:
        ToolchainError: if no interpreter can be copied.
    """
    found = tuple(interpreter for version in PYTHONS if (interpreter := _describe(version)))
    if not found:
        raise ToolchainError(
            "the image needs a Python that is installed in its own folder, but this machine has only those in /usr",
            hint="uv python install 3.12, or pyenv install 3.12",
        )
    return found


def image_name(held: Sequence[Interpreter]) -> str:
    """Return a name that contains a hash of this file and the versions, so that an outdated image is not reused."""
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
    # An interpreter built with --enable-shared searches its library below the prefix for which it was built. $ORIGIN
    # needs /proc, which does not exist in the chroot.
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
    # cibuildwheel runs its own scripts with the interpreter in this folder.
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
    """Return the name of the local build image; build it, or import its archive, if podman does not have it.

    A build takes about two minutes.

    Raises:
        ToolchainError: if a command or an interpreter is missing, or if the user is not root.
        CommandError: if debootstrap, uv or podman fails.
    """
    if reason := unavailable():
        raise ToolchainError(f"the local build image cannot be built: {reason}")
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
    """Return the environment variables that podman needs to run ``image`` here.

    The result is empty if podman works without settings. Otherwise it names a written containers.conf: inside another
    container, podman may not set its default limits and cannot create a network bridge.

    Raises:
        ToolchainError: if podman cannot start the image with these settings.
    """
    if _runs(image, {}):
        return {}
    # The limits must not exceed the hard limits of this process or the limits of podman.
    limits = (("nofile", resource.RLIMIT_NOFILE, 20000), ("nproc", resource.RLIMIT_NPROC, 32768))
    ulimits = [f"{name}={_lower(limit, most)}:{_lower(limit, most)}" for name, limit, most in limits]
    settings = cache_root() / "images" / "containers.conf"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text(f'[containers]\ndefault_ulimits = {ulimits}\nnetns = "host"\n\n[engine]\nruntime = "runc"\n')
    env = {"CONTAINERS_CONF": str(settings)}
    if not _runs(image, env):
        raise ToolchainError(
            f"podman cannot start {image} with the settings in {settings}",
            hint=f"show the error: CONTAINERS_CONF={settings} podman run --rm {image} true",
        )
    return env


def main() -> int:
    """Print the image's name on standard output, and the variables that podman needs on standard error."""
    image = ensure_image()
    for name, value in environment(image).items():
        print(f"podman needs this variable to run the image: export {name}={value}", file=sys.stderr)
    print(image)
    return 0


if __name__ == "__main__":
    run_main(main)
