"""Upstream's own way, run in an environment with torch: compile both plugins just in time, or as plain CUDAExtensions.

    python plain_upstream.py jit TREE             compile as `_get_plugin` does, into TORCH_EXTENSIONS_DIR
    python plain_upstream.py wheel bdist_wheel    what a setup.py of CUDAExtensions makes; to be run in the tree

Nothing of the pipeline is used here: the file lists and flags are those that `_get_plugin` itself gives to torch.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any


def plugin_arguments(tree: Path, compile_too: bool) -> list[dict[str, Any]]:
    """What `_get_plugin` gives to cpp_extension.load for each plugin; compiled on the way if asked."""
    sys.path.insert(0, str(tree))
    from torch.utils import cpp_extension

    given: list[dict[str, Any]] = []
    load = cpp_extension.load

    def recording_load(**arguments: Any) -> Any:
        given.append(arguments)
        if not compile_too:
            raise RuntimeError("not compiled")
        module = load(**arguments)
        # Since torch 2.9 load() no longer leaves the module where this release looks for it.
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
    return given


def jit(tree: Path) -> None:
    """Compile both plugins as upstream does at their first use."""
    plugin_arguments(tree, compile_too=True)


def _renamed(source: Path) -> str:
    """Kernels share names with host files, and setuptools would write both objects to one place."""
    if source.suffix != ".cu":
        return str(source.relative_to(Path.cwd()))
    copy = source.with_name(f"{source.stem}_kernel.cu")
    shutil.copyfile(source, copy)
    return str(copy.relative_to(Path.cwd()))


def wheel() -> None:
    """The same sources and flags as two plain CUDAExtensions in a wheel."""
    from setuptools import setup
    from torch.utils.cpp_extension import BuildExtension, CUDAExtension

    extensions = []
    for name, given in zip(
        ("nvdiffrast_plugin", "nvdiffrast_plugin_gl"), plugin_arguments(Path.cwd(), False), strict=True
    ):
        extension = CUDAExtension(
            name,
            [_renamed(Path(source).resolve()) for source in given["sources"]],
            extra_compile_args={"cxx": given["extra_cflags"], "nvcc": given["extra_cuda_cflags"]},
            extra_link_args=given["extra_ldflags"],
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
