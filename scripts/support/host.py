"""Names of this machine's platform, as the matrix and NVIDIA's manifests spell them."""

from __future__ import annotations

import platform
import sys


def host_platform() -> str:
    """Return the name of this platform in the matrix, such as "linux_x86_64" or "win_amd64"."""
    return f"{platform.system()}_{platform.machine()}".lower().replace("windows", "win")


def redist_platform() -> str:
    """Return the name of this platform in NVIDIA's manifests: "linux-x86_64" or "windows-x86_64"."""
    return "windows-x86_64" if sys.platform == "win32" else "linux-x86_64"
