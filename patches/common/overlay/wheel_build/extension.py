"""The binary wheel: upstream's plugins compiled by torch's own cpp_extension, with torch's flags.

Two things differ from a plain CUDAExtension. Kernels never see torch or Python, so they are compiled apart, once. And
all C++ files of a kind go into one translation unit against narrow headers: one for host files, one for the bindings,
for all plugins together. Each plugin is then linked from the same objects; the linker drops what it does not use.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import build_info
import objects
import torch
from layout import Layout, Plugin
from setuptools import Extension
from torch.utils import cpp_extension

# As in upstream's own build of its plugins.
_DEFINES = ("-DNVDR_TORCH",)
# What torch and every Python agree on, whatever flags this Python was built with; sections let the linker drop what a
# plugin does not use; the maps keep this machine's folders out of the binary.
_HOST_FLAGS = ("-O2", "-DNDEBUG", "-fwrapv", "-fPIC", "-g0", "-ffunction-sections", "-fdata-sections")
_LINK_FLAGS = ("-Wl,--gc-sections", "-Wl,--as-needed", "-Wl,-s", "-Wl,-z,relro", "-Wl,--build-id=sha1")

# Old glibc has no __libc_single_threaded, which libstdc++'s headers since GCC 11 refer to: with our own, saying "there
# are threads" for ever, the wheel needs no newer glibc than its platform tag states.
_GLIBC_FLOOR = """\
#ifdef __linux__
extern "C" __attribute__((visibility("hidden"))) char __libc_single_threaded;
char __libc_single_threaded = 0;
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
    """All C++ files that know nothing of Python, each once, as one translation unit."""
    sources = dict.fromkeys(source for plugin in plugins for source in plugin.host)
    return f"#define AT_PER_OPERATOR_HEADERS\n{_GLIBC_FLOOR}{_includes(list(sources))}{_NO_PYTHON}"


def bindings_unit(plugins: Sequence[Plugin]) -> str:
    """The modules themselves, each under its own name, as one translation unit."""
    parts = [
        f"#undef TORCH_EXTENSION_NAME\n#define TORCH_EXTENSION_NAME {plugin.name}\n{_includes(plugin.bindings)}"
        for plugin in plugins
    ]
    return "#define AT_PER_OPERATOR_HEADERS\n#define NVDR_WHEEL_BINDINGS\n" + "".join(parts)


def _cuda_library_includes() -> list[str]:
    """Headers of cuBLAS, cuSPARSE and cuSOLVER, which torch's own headers want: from the nvidia-* wheels beside torch.

    A minimal toolkit has none of them; a full one comes first on the include path.
    """
    packages = Path(torch.__file__).parent.parent / "nvidia"
    return [str(folder) for folder in sorted(packages.glob("*/include"))]


def _cuda_home() -> Path:
    if cpp_extension.CUDA_HOME is None:
        raise SystemExit("error: no CUDA toolkit: set CUDA_HOME to the folder that holds bin/nvcc")
    return Path(cpp_extension.CUDA_HOME)


def _host_compiler() -> tuple[str, str]:
    """The C++ compiler's command and the line that states its version."""
    if os.name == "nt":
        # cl has no option for it: without arguments it states its version, on standard error.
        return "cl", objects.first_line(["cl"], "Version")
    compiler = os.environ.get("CXX", "c++")  # as torch has it
    return compiler, objects.first_line([compiler, "--version"])


def _nvcc() -> objects.Nvcc:
    """The toolkit's compiler with torch's flags and TORCH_CUDA_ARCH_LIST's architectures."""
    if not os.environ.get("TORCH_CUDA_ARCH_LIST") and not torch.cuda.is_available():
        raise SystemExit('error: no GPU to ask: set TORCH_CUDA_ARCH_LIST, e.g. TORCH_CUDA_ARCH_LIST="8.6 9.0+PTX"')
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
    """Objects, before linking: of the two translation units, and of each kernel by its source."""

    units: list[str]
    kernels: dict[str, Path]


class PluginBuild(cpp_extension.BuildExtension):  # type: ignore[misc]
    """torch's build_ext, compiling the sources of all plugins once and linking each plugin from the result."""

    tree: Path
    layout: Layout
    _compiled: Compiled | None

    def build_extensions(self) -> None:
        """Replace what this Python was built with by flags of ours, then let torch add its own."""
        self._compiled = None
        if os.name == "posix":
            compiler, _ = _host_compiler()
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
        """Compile everything at the first plugin; link this one."""
        if os.name != "posix":
            super().build_extension(ext)
            return
        if self._compiled is None:
            self._compiled = self._compile(ext)
        plugin = next(plugin for plugin in self.layout.plugins if plugin.module == ext.name)
        made = [*self._compiled.units, *(str(self._compiled.kernels[source]) for source in plugin.kernels)]
        export = Path(self.build_temp) / f"{plugin.name}.map"
        # One symbol is enough for Python; with the others local the linker can tell what is not used.
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
        """Both translation units, in one run of torch's ninja; the first may be in the store."""
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
        try:
            made = self.compiler.compile(
                sources,
                output_dir=str(build / "units"),
                include_dirs=[str(self.tree / "wheel_build" / "include"), str(self.tree), *ext.include_dirs],
                extra_postargs=ext.extra_compile_args,
            )
        except RuntimeError as error:
            # ninja has printed what the compiler said; torch's traceback would bury it.
            raise SystemExit(f"error: {error}") from None
        if not have_host:
            store.put(key, "host.o", Path(made[0]))
        for name in units:
            progress.finished(f"{name}.cpp", "kept" if name == "host" and have_host else "compiled")
        return [str(kept), *made] if have_host else list(made)


def _store_root() -> Path | None:
    """NVDIFFRAST_BUILD_CACHE, where compiled objects are kept between builds."""
    root = os.environ.get("NVDIFFRAST_BUILD_CACHE")
    return Path(root) if root else None


def _host_flags(ext: Extension) -> list[str]:
    return [*_HOST_FLAGS, *(flag for flag in ext.extra_compile_args["cxx"] if not flag.startswith("-ffile-prefix-map"))]


def _windows_sources(tree: Path, plugin: Plugin) -> list[str]:
    """One file each, as upstream compiles them; kernels under names of their own, lest objects of one name collide."""
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
        # torch wants sources; elsewhere than on Windows PluginBuild compiles what it generates instead.
        _windows_sources(tree, plugin) if windows else list(plugin.bindings),
        extra_compile_args={"cxx": [*_DEFINES, *cxx], "nvcc": [*_DEFINES]},
        library_dirs=[str(tree / "nvdiffrast" / "lib")] if windows else [],
    )
    ext.libraries += list(plugin.libraries)
    ext.include_dirs += _cuda_library_includes()
    return ext


def binary_wheel(tree: Path, layout: Layout) -> dict[str, Any]:
    """Return further arguments of setup(): the version with its bounds, the torch it needs, plugins and aliases."""
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
