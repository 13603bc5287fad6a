"""Create Debian systems in a folder, to run the README's commands as a new user."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scripts.support import process
from scripts.support.files import cache_root, complete_folder, exclusive

MIRROR = "http://deb.debian.org/debian"
# The packages that a user of Debian installs according to the README.
PACKAGES = ("git", "pipx", "g++", "python3-dev", "libegl-dev", "libgl-dev")
USER = "newcomer"
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
# The settings of the network. The user gets no other variables of this environment.
_NETWORK = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


def unavailable() -> str | None:
    """Return why no chroot can be created here, and the command that helps; None if it can be created."""
    if sys.platform != "linux":
        return "needs Linux"
    if process.which("debootstrap") is None:
        return "no debootstrap: apt-get install debootstrap"
    if os.geteuid() != 0:
        return "debootstrap and chroot need root: run the same command as root"
    return None


@dataclass(frozen=True)
class System:
    """A Debian system below ``root``, with an ordinary user who has an empty home."""

    root: Path

    @property
    def home(self) -> Path:
        """Return the user's home, as a path of this machine."""
        return self.root / "home" / USER

    def run(self, command: str, *, timeout: float = 1800) -> str:
        """Run a shell command as the user, in the home folder, with the environment of a login; return its output.

        Raises:
            CommandError: if the command fails; the error contains the last lines of its output.
        """
        variables = {"HOME": f"/home/{USER}", "USER": USER, "PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
        variables |= {name: os.environ[name] for name in _NETWORK if name in os.environ}
        # pip and uv contain their own certificates; the system's file has those of this machine's network.
        variables |= {"PIP_CERT": str(_CERTIFICATES), "SSL_CERT_FILE": str(_CERTIFICATES)}
        settings = [f"{name}={value}" for name, value in variables.items()]
        inside = ["chroot", f"--userspec={USER}:{USER}", str(self.root), "env", "-i", *settings]
        mounts = 'mount --bind /proc $0/proc && mount --rbind /dev $0/dev && exec "$@"'
        # The mounts are in their own namespace, so they disappear when the command ends.
        command_line = ["unshare", "--mount", "sh", "-c", mounts, str(self.root), *inside]
        return process.call([*command_line, "sh", "-c", f"cd && {command}"], quiet=True, timeout=timeout)


@contextmanager
def fresh(suite: str) -> Iterator[System]:
    """Provide a Debian of ``suite`` ("trixie") with the README's packages and a new user; remove the home at the end.

    The system is created once and stays in the cache. The home is removed because a build leaves gigabytes in it.
    """
    root = cache_root() / "images" / f"debian-{suite}"
    with exclusive(root.with_name(f".{root.name}.lock")):
        if not root.is_dir():
            with complete_folder(root) as folder:
                _install(suite, folder)
        for file in (Path("/etc/resolv.conf"), Path("/etc/hosts"), _CERTIFICATES):
            shutil.copyfile(file, root / file.relative_to("/"))
        system = System(root)
        shutil.rmtree(system.home, ignore_errors=True)
        system.home.mkdir(parents=True)
        process.call(["chroot", root, "chown", f"{USER}:{USER}", f"/home/{USER}"], quiet=True)
        try:
            yield system
        finally:
            shutil.rmtree(system.home, ignore_errors=True)


def _install(suite: str, folder: Path) -> None:
    include = ",".join(("ca-certificates", *PACKAGES))
    process.call(["debootstrap", "--variant=minbase", f"--include={include}", suite, folder, MIRROR], quiet=True)
    process.call(["chroot", folder, "useradd", "--no-create-home", "--shell", "/bin/sh", USER], quiet=True)
