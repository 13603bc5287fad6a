"""Compile both plugins with upstream's method, just in time or as plain CUDAExtensions, in an environment with torch.

    python plain_upstream.py jit TREE             compile as `_get_plugin` does, into TORCH_EXTENSIONS_DIR
    python plain_upstream.py wheel bdist_wheel    build a wheel from a setup.py with CUDAExtensions; run it in the tree

This script does not use the pipeline: file lists and flags are those that `_get_plugin` passes to torch.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any


def plugin_arguments(tree: Path, compile_too: bool) -> list[dict[str, Any]]:
    """Return the arguments that `_get_plugin` passes to cpp_extension.load for each plugin; also compile if
    requested.
    """
    sys.path.insert(0, str(tree))
    from torch.utils import cpp_extension

    recorded: list[dict[str, Any]] = []
    load = cpp_extension.load

    def recording_load(**arguments: Any) -> Any:
        recorded.append(arguments)
        if not compile_too:
            raise RuntimeError("not compiled")
        module = load(**arguments)
        # Since torch 2.9 load() does not store the module in sys.modules, where this release expects it.
        sys.modules[arguments["name"]] = module
        return module

    cpp_extension.load = recording_load
    from nvdiffrast.torch import ops

    for gl in (False, True):
        try:
            ops._get_plugin(gl)
        except RuntimeError:
            if compile_too:
                raise
    return recorded


def jit(tree: Path) -> None:
    """Compile both plugins as upstream does at the first use."""
    plugin_arguments(tree, compile_too=True)


def _with_unique_name(source: Path) -> str:
    """Copy a kernel to a name of its own, because setuptools would write the objects of x.cu and x.cpp to one file."""
    if source.suffix != ".cu":
        return str(source.relative_to(Path.cwd()))
    copy = source.with_name(f"{source.stem}_kernel.cu")
    shutil.copyfile(source, copy)
    return str(copy.relative_to(Path.cwd()))


def wheel() -> None:
    """Build a wheel with two plain CUDAExtensions from the same sources and flags."""
    from setuptools import setup
    from torch.utils.cpp_extension import BuildExtension, CUDAExtension

    extensions = []
    for name, arguments in zip(
        ("nvdiffrast_plugin", "nvdiffrast_plugin_gl"), plugin_arguments(Path.cwd(), False), strict=True
    ):
        extension = CUDAExtension(
            name,
            [_with_unique_name(Path(source).resolve()) for source in arguments["sources"]],
            extra_compile_args={"cxx": arguments["extra_cflags"], "nvcc": arguments["extra_cuda_cflags"]},
            extra_link_args=arguments["extra_ldflags"],
        )
        extensions.append(extension)
    setup(
        name="nvdiffrast",
        version="0",
        packages=["nvdiffrast", "nvdiffrast.torch"],
        ext_modules=extensions,
        cmdclass={"build_ext": BuildExtension},
    )


if __name__ == "__main__":
    if sys.argv[1] == "jit":
        jit(Path(sys.argv[2]).resolve())
    else:
        del sys.argv[1]
        wheel()
