"""Builds the plugins of a binary wheel with torch's cpp_extension and its flags.

There are two differences from a plain CUDAExtension. Kernels use neither torch nor Python, so they are compiled
separately, and only once. All C++ files are compiled in two translation units with reduced headers: one for the host
files and one for the bindings of all plugins. Each plugin is linked from the same objects; the linker removes unused
sections.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import build_info
import libstdcxx
import objects
import torch
from layout import Layout, Plugin
from setuptools import Extension
from torch.utils import cpp_extension

# The definitions of upstream's own build.
_DEFINES = ("-DNVDR_TORCH",)
# These flags replace those that this Python was built with. Sections let the linker remove unused functions and data.
_HOST_FLAGS = ("-O2", "-DNDEBUG", "-fwrapv", "-fPIC", "-g0", "-ffunction-sections", "-fdata-sections")
_LINK_FLAGS = ("-Wl,--gc-sections", "-Wl,--as-needed", "-Wl,-s", "-Wl,-z,relro", "-Wl,--build-id=sha1")

# Replacements of two definitions that older systems do not have:
# - libstdc++'s headers since GCC 11 refer to glibc's __libc_single_threaded. The replacement states that there are
#   always several threads.
# - <iostream> since GCC 13 refers to std::ios_base_library_init, so that libstdc++ initializes the streams. The
#   definition in the static library would create separate streams; with the replacement, the plugin uses the streams of
#   the system's libstdc++.
_OLDER_SYSTEMS = """\
#ifdef __linux__
extern "C" __attribute__((visibility("hidden"))) char __libc_single_threaded;
char __libc_single_threaded = 0;
#if __GNUC__ >= 13
#include <ios>
namespace std { __attribute__((visibility("hidden"))) void ios_base_library_init() {} }
static std::ios_base::Init nvdr_wheel_streams;
#endif
#endif
"""

_NO_PYTHON = """\
#ifdef Py_PYTHON_H
#error "Python.h reached the objects that all Pythons share"
#endif
"""


def _includes(sources: Sequence[str]) -> str:
    return "".join(f'#include "{source}"\n' for source in sources)


def host_unit(plugins: Sequence[Plugin]) -> str:
    """Return a translation unit that includes each C++ file without Python once."""
    sources = dict.fromkeys(source for plugin in plugins for source in plugin.host)
    return f"#define AT_PER_OPERATOR_HEADERS\n{_OLDER_SYSTEMS}{_includes(list(sources))}{_NO_PYTHON}"


def bindings_unit(plugins: Sequence[Plugin]) -> str:
    """Return a translation unit that includes the bindings of all plugins, each with its own module name."""
    parts = [
        f"#undef TORCH_EXTENSION_NAME\n#define TORCH_EXTENSION_NAME {plugin.name}\n{_includes(plugin.bindings)}"
        for plugin in plugins
    ]
    return "#define AT_PER_OPERATOR_HEADERS\n#define NVDR_WHEEL_BINDINGS\n" + "".join(parts)


def _cuda_library_includes() -> list[str]:
    """Return the folders with the headers of cuBLAS, cuSPARSE and cuSOLVER in the nvidia-* wheels beside torch.

    The headers of torch include them, but a minimal toolkit does not contain them. A full toolkit comes first on the
    include path.
    """
    packages = Path(torch.__file__).parent.parent / "nvidia"
    return [str(folder) for folder in sorted(packages.glob("*/include"))]


def _cuda_home() -> Path:
    if cpp_extension.CUDA_HOME is None:
        raise SystemExit("error: no CUDA toolkit: set CUDA_HOME to the folder that contains bin/nvcc")
    return Path(cpp_extension.CUDA_HOME)


def _host_compiler() -> tuple[str, str]:
    """Return the command of the C++ compiler and the line with its version."""
    if os.name == "nt":
        # cl has no version option; without arguments it prints its version to standard error.
        return "cl", objects.first_line(["cl"], "Version")
    compiler = os.environ.get("CXX", "c++")  # The default of torch.
    return compiler, objects.first_line([compiler, "--version"])


def _nvcc() -> objects.Nvcc:
    """Return the compiler of the toolkit with torch's flags and the architectures of TORCH_CUDA_ARCH_LIST."""
    if not os.environ.get("TORCH_CUDA_ARCH_LIST") and not torch.cuda.is_available():
        raise SystemExit('error: no GPU found: set TORCH_CUDA_ARCH_LIST, e.g. TORCH_CUDA_ARCH_LIST="8.6 9.0+PTX"')
    path = str(_cuda_home() / "bin" / "nvcc")
    host, host_version = _host_compiler()
    flags = (
        *_DEFINES,
        *cpp_extension.COMMON_NVCC_FLAGS,
        *("--compiler-options", "-fPIC,-O2,-g0"),
        *cpp_extension._get_cuda_arch_flags(),
    )
    return objects.Nvcc(
        path=path,
        version=objects.first_line([path, "--version"], "release"),
        host=host,
        host_version=host_version,
        flags=flags,
    )


@dataclass(frozen=True)
class Compiled:
    """The objects of the two translation units, and of each kernel by its source."""

    units: list[str]
    kernels: dict[str, Path]


class PluginBuild(cpp_extension.BuildExtension):  # type: ignore[misc]
    """A build_ext of torch that compiles the sources of all plugins once and links each plugin from these objects."""

    tree: Path
    layout: Layout
    _compiled: Compiled | None
    _runtime_inputs: list[str]

    def build_extensions(self) -> None:
        """Replace the compiler flags of this Python, then build; torch adds its own flags."""
        self._compiled = None
        if os.name == "posix":
            compiler, _ = _host_compiler()
            # Remove the folders of this machine from the binary.
            maps = [f"-ffile-prefix-map={self.tree}=."]
            maps += [f"-ffile-prefix-map={folder}=torch" for folder in cpp_extension.include_paths()[:1]]
            compile_command = [compiler, *_HOST_FLAGS, *maps]
            link_command = [compiler, "-shared", *_LINK_FLAGS]
            self.compiler.set_executables(
                compiler=compile_command,
                compiler_so=compile_command,
                compiler_cxx=compile_command,
                compiler_so_cxx=compile_command,
                linker_so=link_command,
                linker_so_cxx=link_command,
            )
        super().build_extensions()
        build_info.write(Path(self.build_lib), self.layout, _nvcc(), _host_flags(self.extensions[0]))

    def build_extension(self, ext: Extension) -> None:
        """Compile all sources for the first plugin, and link this plugin."""
        if os.name != "posix":
            super().build_extension(ext)
            return
        if self._compiled is None:
            self._compiled = self._compile(ext)
            self._runtime_inputs = _runtime_inputs(Path(self.build_temp).absolute() / "libstdcxx")
        plugin = next(plugin for plugin in self.layout.plugins if plugin.module == ext.name)
        made = [*self._compiled.units, *(str(self._compiled.kernels[source]) for source in plugin.kernels)]
        # These come before torch's libraries; otherwise the linker would also take symbols that those libraries need
        # from the static library.
        made += self._runtime_inputs
        export = Path(self.build_temp) / f"{plugin.name}.map"
        # Python needs only this symbol. With all others local, the linker can find unused code.
        export.write_text(f"{{ global: PyInit_{plugin.name}; local: *; }};\n", encoding="ascii")
        self.compiler.link_shared_object(
            made,
            self.get_ext_fullpath(ext.name),
            libraries=ext.libraries,
            library_dirs=ext.library_dirs,
            extra_postargs=[f"-Wl,--version-script={export}"],
            target_lang="c++",
        )

    def _compile(self, ext: Extension) -> Compiled:
        build = Path(self.build_temp).absolute()
        build.mkdir(parents=True, exist_ok=True)
        store = objects.ObjectStore(_store_root())
        nvcc = _nvcc()
        kernels = [source for plugin in self.layout.plugins for source in plugin.kernels]
        progress = objects.Progress(len(kernels) + 2)
        with ThreadPoolExecutor(objects.jobs()) as pool:
            pending: list[Future[Path]] = [
                pool.submit(
                    objects.compile_kernel, self.tree, source, self.layout.sources, nvcc, store, build, progress
                )
                for source in kernels
            ]
            units = self._compile_units(ext, build, store, nvcc, progress)
            return Compiled(units, {source: made.result() for source, made in zip(kernels, pending, strict=True)})

    def _compile_units(
        self, ext: Extension, build: Path, store: objects.ObjectStore, nvcc: objects.Nvcc, progress: objects.Progress
    ) -> list[str]:
        """Compile both translation units with one run of ninja, or copy the host unit from the store."""
        units = {"host": host_unit(self.layout.plugins), "bindings": bindings_unit(self.layout.plugins)}
        for name, text in units.items():
            (build / f"{name}.cpp").write_text(text, encoding="utf-8")
        folders = [*self.layout.sources, "wheel_build/include"]
        key = objects.digest(
            self.tree, folders, [units["host"], torch.__version__, _host_flags(ext), nvcc.version, nvcc.host_version]
        )
        kept = build / "kept" / "host.o"
        have_host = store.get(key, "host.o", kept)
        sources = [str(build / f"{name}.cpp") for name in units if name != "host" or not have_host]
        since = time.monotonic()
        try:
            made = self.compiler.compile(
                sources,
                output_dir=str(build / "units"),
                include_dirs=[str(self.tree / "wheel_build" / "include"), str(self.tree), *ext.include_dirs],
                extra_postargs=ext.extra_compile_args,
            )
        except RuntimeError as error:
            # ninja has printed the errors of the compiler; torch's traceback would hide them.
            raise SystemExit(f"error: {error}") from None
        if not have_host:
            store.put(key, "host.o", Path(made[0]))
        if have_host:
            progress.kept("host.cpp")
        for source in sources:
            # One run of ninja compiles both units, so they have the same time.
            progress.compiled(Path(source).name, since)
        return [str(kept), *made] if have_host else list(made)


def _runtime_inputs(folder: Path) -> list[str]:
    """Return the link inputs that apply NVDIFFRAST_SYMBOL_LIMITS (see libstdcxx.py); empty if it is not set."""
    limits = os.environ.get("NVDIFFRAST_SYMBOL_LIMITS")
    if not limits:
        return []
    return libstdcxx.link_inputs(_host_compiler()[0], libstdcxx.parse_limits(limits), folder)


def _store_root() -> Path | None:
    """Return NVDIFFRAST_BUILD_CACHE, the folder of stored objects, or None if it is not set."""
    root = os.environ.get("NVDIFFRAST_BUILD_CACHE")
    return Path(root) if root else None


def _host_flags(ext: Extension) -> list[str]:
    return [*_HOST_FLAGS, *(flag for flag in ext.extra_compile_args["cxx"] if not flag.startswith("-ffile-prefix-map"))]


def _windows_sources(tree: Path, plugin: Plugin) -> list[str]:
    """Return the separate source files; kernels are copied to new names, because objects must have different names."""
    renamed = []
    for source in plugin.kernels:
        copy = tree / Path(source).with_name(Path(source).stem + "_nvcc.cu")
        copy.write_bytes((tree / source).read_bytes())
        renamed.append(str(copy.relative_to(tree)))
    return [*renamed, *plugin.host, *plugin.bindings]


def _extension(tree: Path, plugin: Plugin) -> Extension:
    windows = os.name == "nt"
    cxx = ["/wd4067", "/wd4624"] if windows else []
    ext = cpp_extension.CUDAExtension(
        plugin.module,
        # torch requires sources here. Except on Windows, PluginBuild compiles generated files instead.
        _windows_sources(tree, plugin) if windows else list(plugin.bindings),
        extra_compile_args={"cxx": [*_DEFINES, *cxx], "nvcc": [*_DEFINES]},
        library_dirs=[str(tree / "nvdiffrast" / "lib")] if windows else [],
    )
    ext.libraries += list(plugin.libraries)
    ext.include_dirs += _cuda_library_includes()
    return ext


def binary_wheel(tree: Path, layout: Layout) -> dict[str, Any]:
    """Return the additional arguments of setup() for a binary wheel: local version, torch requirement and modules."""
    torch_line = ".".join(torch.__version__.split("+")[0].split(".")[:2])
    if torch.version.cuda is None:
        raise SystemExit(f"error: torch {torch.__version__} is a CPU build: no CUDA extension can be built")
    command = type("PluginBuild", (PluginBuild,), {"tree": tree, "layout": layout})
    return {
        "version": f"{layout.release}+cu{torch.version.cuda.replace('.', '')}.torch{torch_line}",
        "install_requires": ["numpy", f"torch=={torch_line}.*"],
        "py_modules": list(layout.aliases),
        "ext_modules": [_extension(tree, plugin) for plugin in layout.plugins],
        "cmdclass": {"build_ext": command},
    }
