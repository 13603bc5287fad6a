"""Build nvdiffrast: upstream's source wheel, or with BUILD_BINARY_WHEEL=1 a wheel with compiled extensions.

A release line without just-in-time compilation is always built with its extension. For a binary wheel,
TORCH_CUDA_ARCH_LIST sets the architectures, CUDA_HOME the toolkit and CXX the host compiler.
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

# The wheel contains file modes, which must not depend on the umask of the user.
os.umask(0o022)

layout = read_layout(TREE)
options = metadata.source_wheel(TREE, layout)
if layout.binary:
    import extension

    options.update(extension.binary_wheel(TREE, layout))
setup(**options)
