"""setuptools' PEP 517 backend; a binary wheel additionally needs torch, also under build isolation."""

import os
from pathlib import Path
from typing import Any

from layout import read_layout
from setuptools import build_meta as _setuptools
from setuptools.build_meta import build_sdist, build_wheel, get_requires_for_build_sdist

__all__ = ["build_sdist", "build_wheel", "get_requires_for_build_sdist", "get_requires_for_build_wheel"]


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """What the front end installs before building: nothing more for a source wheel, torch and ninja for a binary one.

    NVDIFFRAST_TORCH_REQUIREMENT (default "torch") pins the torch that the wheel will be bound to.
    """
    required = list(_setuptools.get_requires_for_build_wheel(config_settings))
    if read_layout(Path.cwd()).binary:
        required += [os.environ.get("NVDIFFRAST_TORCH_REQUIREMENT", "torch"), "ninja", "numpy"]
    return required
