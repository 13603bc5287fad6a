"""Creates small wheels with real ELF files, which are correct until a test changes them."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.errors import PipelineError
from scripts.model import Bounds, Cell, GitPin, Platform, Provider, RegistryPin, Release, Toolkit, TorchBuild
from scripts.wheel import sbom

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
TOOLKIT = Toolkit(
    cuda="13.0",
    providers=(Provider("system"),),
    architectures=("8.0", "9.0"),
    ptx="9.0",
    gcc=Bounds(),
    msvc=Bounds(),
)
LINUX = Platform("linux_x86_64", "manylinux_2_28_x86_64")
WINDOWS = Platform("win_amd64", "win_amd64")
GIT = GitPin("https://example.invalid/nvdiffrast", "v0.3.4", "c" * 40, "d" * 40)
REGISTRY = RegistryPin("packaged-nvdiffrast", "0.3.3.1", "packaged.whl", "e" * 64)
RELEASE = Release("0.3.4", "0.3", GIT, has_gl=True)
TORCH = TorchBuild("2.11", "2.11.0", "pypi")

CELL = Cell(RELEASE, PYTHON, TOOLKIT, TORCH, LINUX)

# Written for the tests; only the texts that the audit searches are those of upstream.
LICENCE = (
    "Nvidia Source Code License (1-Way Commercial)\n\n1. Definitions\n\n3.1 Redistribution.\n\n"
    "5. Limitation of Liability.\n" + "A stand-in for the text that upstream ships.\n" * 100
)

CUDART = "libcudart-01234567.so.13"
TORCH_LIBRARIES = ("libc10.so", "libtorch_python.so")


def fat_binary(entries: Iterable[tuple[int, int]], flags: int = 0x11, payload: bytes = b"\x7fELF" * 4) -> bytes:
    """Return a fat binary with (kind, architecture) entries: kind 1 is PTX, 2 is SASS; architecture 90 is sm_90."""
    body = b""
    for kind, architecture in entries:
        header = struct.pack("<HHIQQIIIIQQQ", kind, 0x101, 64, len(payload), 0, 0, architecture, 0, 0, flags, 0, 0)
        body += header + payload
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


POLICY_FATBIN = fat_binary([(2, 80), (1, 90), (2, 90)])


def compiler() -> str | None:
    """Return the path of a C compiler for Linux, or None if this machine has no compiler."""
    return shutil.which("gcc") or shutil.which("cc")


@dataclass(frozen=True)
class Stub:
    """A library that a module is linked with, and the versioned symbol that it exports."""

    name: str
    symbol: str = ""
    version: str = ""


@dataclass(frozen=True)
class Module:
    """The properties of an ELF file to create."""

    needed: Sequence[Stub | str] = ()
    run_path: str = ""
    fatbin: bytes = b""
    debug: bool = False
    text: str = "nothing"


@dataclass
class ModuleMaker:
    """Compiles each module once."""

    folder: Path
    made: dict[str, bytes] = field(default_factory=dict)

    def make(self, module: Module) -> bytes:
        """Return the contents of an ELF shared library."""
        key = hashlib.sha256(repr(module).encode()).hexdigest()[:16]
        if key not in self.made:
            work = self.folder / key
            work.mkdir()
            self.made[key] = self._compile(module, work)
        return self.made[key]

    def _compile(self, module: Module, work: Path) -> bytes:
        stubs = [stub if isinstance(stub, Stub) else Stub(stub) for stub in module.needed]
        libraries = [self._stub(stub) for stub in stubs]
        calls = "".join(f"extern void {stub.symbol}(void);\n" for stub in stubs if stub.symbol)
        body = "".join(f"{stub.symbol}();" for stub in stubs if stub.symbol)
        source = f'{calls}const char *text(void) {{ {body} return "{module.text}"; }}\n'
        if module.fatbin:
            (work / "fatbin").write_bytes(module.fatbin)
            source += f'__asm__(".section .nv_fatbin,\\"a\\"\\n.incbin \\"{work}/fatbin\\"\\n.previous");\n'
        options = ["-g" if module.debug else "-g0", "-Wl,--no-as-needed", "-Wl,--allow-shlib-undefined"]
        if module.run_path:
            options.append(f"-Wl,-rpath,{module.run_path}")
        return _cc(source, work / "module.so", *options, *map(str, libraries))

    def _stub(self, stub: Stub) -> Path:
        work = self.folder / f"{stub.name}-{stub.version}"
        if not work.exists():
            work.mkdir()
            source = f"void {stub.symbol}(void) {{}}\n" if stub.symbol else "int nothing;\n"
            options = [f"-Wl,-soname,{stub.name}"]
            if stub.version:
                (work / "map").write_text(f"{stub.version} {{ global: {stub.symbol}; }};\n")
                options.append(f"-Wl,--version-script={work / 'map'}")
            _cc(source, work / "lib.so", *options)
        return work / "lib.so"


def _cc(source: str, output: Path, *options: str) -> bytes:
    (output.parent / "source.c").write_text(source)
    # Use -nostdlib because the compiler's start files differ between systems and can add dependencies.
    command = [str(compiler()), "-shared", "-fPIC", "-nostdlib", "-o", str(output), "source.c", *options]
    command.append(f"-ffile-prefix-map={output.parent}=.")
    subprocess.run(command, check=True, cwd=output.parent)
    return output.read_bytes()


def plugin_names(cell: Cell) -> dict[str, str]:
    """Return the members of the plugins by kind."""
    suffix = f".cpython-{cell.python.replace('.', '')}-x86_64-linux-gnu.so"
    names = {"cuda": "nvdiffrast_plugin", "gl": "nvdiffrast_plugin_gl"}
    return {kind: f"nvdiffrast/torch/{name}{suffix}" for kind, name in names.items()}


def cuda_module() -> Module:
    """Return a correct CUDA plugin."""
    needed = (*TORCH_LIBRARIES, CUDART)
    return Module(needed, "$ORIGIN/../../nvdiffrast.libs", POLICY_FATBIN + POLICY_FATBIN)


def gl_module() -> Module:
    """Return a correct GL plugin."""
    needed = (*TORCH_LIBRARIES, CUDART, "libGL.so.1", "libEGL.so.1")
    return Module(needed, "$ORIGIN/../../nvdiffrast.libs")


def build_info(cell: Cell) -> dict[str, Any]:
    """Return a correct build_info.json."""
    source = cell.release.source
    pin = (
        {"sha256": source.sha256} if isinstance(source, RegistryPin) else {"commit": source.commit, "tree": source.tree}
    )
    return {
        "cell": cell.id,
        "release": cell.release.version,
        "source": pin,
        "series": cell.release.series,
        "series_sha256": "a" * 64,
        "license_sha256": hashlib.sha256(LICENCE.encode()).hexdigest(),
        "python": cell.python_tag,
        "torch": cell.torch.version,
        "cuda": cell.toolkit.cuda,
        "compiler": {"cxx": "12.2.0", "nvcc": f"{cell.toolkit.cuda}.88"},
        "architectures": {"sass": list(cell.toolkit.architectures), "ptx": [cell.toolkit.ptx]},
        "flags": {"cxx": ["-O2"], "nvcc": ["-O3"]},
        "partial": False,
        "plugins": ["nvdiffrast_plugin", "nvdiffrast_plugin_gl"],
    }


def metadata(cell: Cell) -> str:
    """Return a correct METADATA."""
    return (
        f"Metadata-Version: 2.4\nName: nvdiffrast\nVersion: {cell.version}\nRequires-Python: >=3.9\n"
        "License-File: LICENSE.txt\nRequires-Dist: numpy\n"
        f"Requires-Dist: torch=={cell.torch.line}.*\nDescription-Content-Type: text/markdown\n\nA wheel for tests.\n"
    )


SOURCES = {
    "nvdiffrast/common/antialias.cu": '#include "antialias.h"\n',
    "nvdiffrast/common/antialias.h": '#include <not/looked/at.h>\n#include "another/project/of.h"\n',
    "nvdiffrast/common/common.cpp": "",
    "nvdiffrast/common/cudaraster/impl/Buffer.cpp": '#include "../../common.h"\n',
    "nvdiffrast/common/common.h": "",
    "nvdiffrast/common/cudaraster/impl/CudaRaster.cpp": "",
    "nvdiffrast/common/cudaraster/impl/RasterImpl.cpp": "",
    "nvdiffrast/common/cudaraster/impl/RasterImpl.cu": "",
    "nvdiffrast/common/glutil.cpp": "",
    "nvdiffrast/common/interpolate.cu": "",
    "nvdiffrast/common/rasterize.cu": "",
    "nvdiffrast/common/rasterize_gl.cpp": "",
    "nvdiffrast/common/texture.cpp": "",
    "nvdiffrast/common/texture.cu": "",
    "nvdiffrast/torch/torch_antialias.cpp": "",
    "nvdiffrast/torch/torch_bindings.cpp": "",
    "nvdiffrast/torch/torch_bindings_gl.cpp": "",
    "nvdiffrast/torch/torch_interpolate.cpp": "",
    "nvdiffrast/torch/torch_rasterize.cpp": "",
    "nvdiffrast/torch/torch_rasterize_gl.cpp": "",
    "nvdiffrast/torch/torch_texture.cpp": "",
}


@dataclass
class Parts:
    """The parts of a wheel: change ``members`` or ``file_name``, then :meth:`write` the wheel with a correct RECORD.

    With ``bill``, the wheel gets a bill of materials for its members, if they are readable.
    """

    cell: Cell
    members: dict[str, bytes]
    file_name: str
    bill: bool = False

    @property
    def dist_info(self) -> str:
        """Return the name of the dist-info folder."""
        return f"nvdiffrast-{self.cell.version}.dist-info"

    def edit(self, member: str, old: str, new: str) -> None:
        """Replace ``old`` in a text member, which must contain it."""
        text = self.members[member].decode()
        assert old in text, f"{old!r} is not in {member}"
        self.members[member] = text.replace(old, new).encode()

    def edit_info(self, **changes: Any) -> None:
        """Change keys of build_info.json."""
        info = json.loads(self.members["nvdiffrast/build_info.json"])
        self.members["nvdiffrast/build_info.json"] = json.dumps({**info, **changes}).encode()

    def record(self) -> str:
        """Return a correct RECORD for the current members."""
        rows = [f"{name},sha256={_digest(content)},{len(content)}" for name, content in self.members.items()]
        return "\n".join([*rows, f"{self.dist_info}/RECORD,,"]) + "\n"

    def write(self, folder: Path, record: str | None = None) -> Path:
        """Write the wheel; ``record`` replaces the correct RECORD."""
        path = folder / self.file_name
        self._write(path, record)
        if self.bill:
            from tests.unit import materials_factory

            with suppress(PipelineError):
                content = materials_factory.bill(path, materials_factory.materials_of(self.cell))
                self.members[sbom.member(self.dist_info)] = content
                self._write(path, record)
        return path

    def _write(self, path: Path, record: str | None) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in self.members.items():
                archive.writestr(name, content)
            archive.writestr(f"{self.dist_info}/RECORD", self.record() if record is None else record)


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def text_parts(cell: Cell = CELL) -> Parts:
    """Return the parts of a wheel of series 0.3 without shared libraries."""
    info = f"nvdiffrast-{cell.version}.dist-info"
    tag = f"{cell.python_tag}-{cell.python_tag}-{cell.platform.wheel_tag}"
    members = {
        "nvdiffrast/__init__.py": b"__version__ = '0'\n",
        "nvdiffrast/torch/__init__.py": b"from . import ops\n",
        "nvdiffrast/torch/ops.py": b"def _get_plugin(gl=False):\n    raise RuntimeError('no compiler')\n",
        "nvdiffrast/_pyinstaller/__init__.py": b"",
        "nvdiffrast/_pyinstaller/hook-nvdiffrast.py": b"hiddenimports = []\n",
        "nvdiffrast_plugin.py": b"from nvdiffrast.torch import ops\n",
        "nvdiffrast_plugin_gl.py": b"from nvdiffrast.torch import ops as _\n",
        "nvdiffrast/build_info.json": json.dumps(build_info(cell)).encode(),
        **{name: f"// {name}\n{text}".encode() for name, text in SOURCES.items()},
        f"{info}/METADATA": metadata(cell).encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: false\nTag: {tag}\n".encode(),
        f"{info}/entry_points.txt": b"[pyinstaller40]\nhook-dirs = nvdiffrast._pyinstaller:get_hook_dirs\n",
        f"{info}/licenses/LICENSE.txt": LICENCE.encode(),
    }
    return Parts(cell, members, cell.wheel)


def good_parts(maker: ModuleMaker, cell: Cell = CELL, modules: Mapping[str, Module] | None = None) -> Parts:
    """Return the parts of a correct, repaired Linux wheel of series 0.3."""
    modules = modules or {"cuda": cuda_module(), "gl": gl_module()}
    parts = text_parts(cell)
    parts.bill = True
    for kind, name in plugin_names(cell).items():
        parts.members[name] = maker.make(modules[kind])
    parts.members[f"nvdiffrast.libs/{CUDART}"] = maker.make(Module())
    return parts
