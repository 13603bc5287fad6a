"""The machine that this runs on, by the names that the matrix and NVIDIA's manifests use."""

from __future__ import annotations

import platform
import sys


def host_platform() -> str:
    """Return this machine as a platform's name in the matrix, such as "linux_x86_64" or "win_amd64"."""
    return f"{platform.system()}_{platform.machine()}".lower().replace("windows", "win")


def redist_platform() -> str:
    """Return this machine as NVIDIA's manifests name it: "linux-x86_64" or "windows-x86_64"."""
    return "windows-x86_64" if sys.platform == "win32" else "linux-x86_64"
