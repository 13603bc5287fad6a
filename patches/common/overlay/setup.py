"""Build nvdiffrast: upstream's source wheel, or with BUILD_BINARY_WHEEL=1 a wheel with the extensions inside.

A release line that cannot compile just in time is always built with its extension.
TORCH_CUDA_ARCH_LIST says what a binary wheel is compiled for, CUDA_HOME and CXX with what.
"""

import os
import sys
from pathlib import Path

from setuptools import setup

TREE = Path(__file__).resolve().parent
os.chdir(TREE)
sys.path.insert(0, str(TREE / "wheel_build"))

import metadata  # noqa: E402
from layout import read_layout  # noqa: E402

# File modes go into the wheel; they must not depend on who builds.
os.umask(0o022)

layout = read_layout(TREE)
options = metadata.source_wheel(TREE, layout)
if layout.binary:
    import extension

    options.update(extension.binary_wheel(TREE, layout))
setup(**options)
