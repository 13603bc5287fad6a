"""The PEP 517 backend of setuptools, which also requires torch to build a binary wheel."""

import os
from pathlib import Path
from typing import Any

from layout import read_layout
from setuptools import build_meta as _setuptools
from setuptools.build_meta import build_sdist, build_wheel, get_requires_for_build_sdist

__all__ = ["build_sdist", "build_wheel", "get_requires_for_build_sdist", "get_requires_for_build_wheel"]


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """Return the requirements of the build: those of setuptools, and torch, ninja and numpy for a binary wheel.

    NVDIFFRAST_TORCH_REQUIREMENT (default "torch") pins the torch version that the wheel will require.
    """
    required = list(_setuptools.get_requires_for_build_wheel(config_settings))
    if read_layout(Path.cwd()).binary:
        required += [os.environ.get("NVDIFFRAST_TORCH_REQUIREMENT", "torch"), "ninja", "numpy"]
    return required
