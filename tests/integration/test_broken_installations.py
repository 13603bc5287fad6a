"""Tests of the message for each broken installation: the code, the affected file or version, and the next step.

Modules for Linux are compiled here. Modules for Windows are written by pe_factory and examined as files, without
Windows.
"""

from __future__ import annotations

import base64
import hashlib
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.loader_site import (
    INFO,
    REINSTALL,
    SUFFIX,
    THIS,
    TORCH_CHANNEL,
    Site,
    codes,
    needs_gcc,
    next_command,
    unprivileged,
)
from tests.unit import pe_factory

pytestmark = [
    pytest.mark.integration,
    needs_gcc,
]

PLUGIN = f"nvdiffrast_plugin{SUFFIX}"
PYD = f"nvdiffrast_plugin.{THIS}-win_amd64.pyd"
RUNTIME = "libcudart-0a1b2c3d.so.13"
LOAD = "load(False)"
EXAMINE = """
import pathlib
from nvdiffrast import _diagnosis, _installation
file = next(pathlib.Path(nvdiffrast.__file__).parent.joinpath("torch").glob("nvdiffrast_plugin.*"))
{before}
for problem in _diagnosis.examine(file, {error}, device={device}):
    print(f"[{{problem.code}}] {{problem.summary}}", *problem.details, "next: " + problem.hint, sep="\\n")
"""


def examine(*, error: str = "ImportError('DLL load failed')", device: bool = False, before: str = "") -> str:
    return EXAMINE.format(error=error, device=device, before=before)


def install(site: Site) -> Path:
    """Install a plugin with the runtime library that it needs in nvdiffrast.libs, and return the plugin."""
    libraries = site.folder / "nvdiffrast.libs"
    libraries.mkdir()
    library(site, libraries / RUNTIME)
    return site.compile(
        "nvdiffrast_plugin",
        str(libraries / RUNTIME),
        "-Wl,-rpath,$ORIGIN/../../nvdiffrast.libs",
        declare="int from_library(void);",
        value="from_library()",
    )


def library(site: Site, path: Path, *flags: str, body: str = "return 1;", declare: str = "") -> None:
    """Compile a shared library with the function from_library."""
    source = site.folder / "library.c"
    source.write_text(f"{declare}\nint from_library(void) {{ {body} }}\n")
    subprocess.run(["gcc", "-shared", "-fPIC", source, f"-Wl,-soname,{path.name}", "-o", path, *flags], check=True)


def foreign(path: Path) -> None:
    """Change the machine of a library to aarch64."""
    content = bytearray(path.read_bytes())
    content[18:20] = (183).to_bytes(2, "little")
    path.write_bytes(content)


def halved(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def zeroed(path: Path, start: int = 0) -> None:
    """Replace the content from ``start`` by zeros, as a power failure can do."""
    content = path.read_bytes()
    path.write_bytes(content[:start] + bytes(len(content) - start))


def zeroed_plugin(site: Site) -> None:
    zeroed(site.compile("nvdiffrast_plugin"))


def zeroed_runtime(site: Site) -> None:
    install(site)
    zeroed(site.folder / "nvdiffrast.libs" / RUNTIME)


def zeroed_end_of_runtime(site: Site) -> None:
    """Replace the end of the runtime by zeros; without a check, the process would crash when it calls the library."""
    install(site)
    zeroed(site.folder / "nvdiffrast.libs" / RUNTIME, 4096)


def zeroed_names(site: Site) -> None:
    """Replace only the names of the libraries that the plugin needs by zeros."""
    install(site)
    plugin = site.package / "torch" / PLUGIN
    content = plugin.read_bytes()
    plugin.write_bytes(content.replace(RUNTIME.encode(), bytes(len(RUNTIME))))


def unreadable_plugin(site: Site) -> None:
    site.compile("nvdiffrast_plugin").chmod(0)


def unreadable_runtime(site: Site) -> None:
    install(site)
    (site.folder / "nvdiffrast.libs" / RUNTIME).chmod(0)


def closed_libraries(site: Site) -> None:
    install(site)
    (site.folder / "nvdiffrast.libs").chmod(0)


def greedy_runtime(site: Site) -> None:
    """Install a runtime that needs more static thread-local storage than glibc reserves."""
    libraries = site.folder / "nvdiffrast.libs"
    libraries.mkdir()
    declare = "__thread char storage[1 << 16];"
    library(site, libraries / RUNTIME, "-ftls-model=initial-exec", declare=declare, body="return storage[0] = 1;")
    flags = [str(libraries / RUNTIME), f"-Wl,-rpath,{libraries}"]
    site.compile("nvdiffrast_plugin", *flags, declare="int from_library(void);", value="from_library()")


def as_a_user(site: Site) -> list[str]:
    return unprivileged()


def on_noexec(site: Site) -> list[str]:
    """Return a command prefix that mounts the installation with the option noexec."""
    mount = f"mount --bind {site.folder} {site.folder} && mount -o remount,bind,noexec {site.folder}"
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]
    if shutil.which("unshare") is None or subprocess.run([*command, mount], check=False).returncode:
        pytest.skip("cannot mount a file system: run the tests as root, in a container with --privileged")
    return [*command, f'{mount} && exec "$@"', "sh"]


def with_a_gigabyte(site: Site) -> list[str]:
    return ["sh", "-c", 'ulimit -v 1000000 && exec "$@"', "sh"]


def large_runtime(site: Site) -> None:
    install(site)
    declare = "char storage[2147483648u];"
    library(site, site.folder / "nvdiffrast.libs" / RUNTIME, declare=declare, body="return storage[0];")


def without_runtime(site: Site) -> None:
    install(site)
    (site.folder / "nvdiffrast.libs" / RUNTIME).unlink()


def truncated_runtime(site: Site) -> None:
    install(site)
    halved(site.folder / "nvdiffrast.libs" / RUNTIME)


def empty_runtime(site: Site) -> None:
    install(site)
    (site.folder / "nvdiffrast.libs" / RUNTIME).write_bytes(b"")


def foreign_runtime(site: Site) -> None:
    install(site)
    foreign(site.folder / "nvdiffrast.libs" / RUNTIME)


def without_inner(site: Site) -> None:
    install(site)
    inner = site.folder / "libinner-removed.so"
    library(site, inner)
    libraries = site.folder / "nvdiffrast.libs"
    outer = libraries / RUNTIME
    source = site.folder / "outer.c"
    source.write_text("int from_library(void);\nint outer(void) { return from_library(); }\n")
    options: list[str | Path] = ["-shared", "-fPIC", source, inner, f"-Wl,-soname,{RUNTIME}", "-o", outer]
    subprocess.run(["gcc", *options], check=True)
    inner.unlink()


def needing(name: str) -> Callable[[Site], None]:
    def broken(site: Site) -> None:
        flags = site.library(name)
        site.compile("nvdiffrast_plugin", *flags, declare="int from_library(void);", value="from_library()")
        (site.folder / "gone.so").unlink()

    return broken


def truncated_plugin(site: Site) -> None:
    halved(site.compile("nvdiffrast_plugin"))


def empty_plugin(site: Site) -> None:
    site.compile("nvdiffrast_plugin").write_bytes(b"")


def text_plugin(site: Site) -> None:
    site.compile("nvdiffrast_plugin").write_bytes(b"<html>404</html>" * 10)


def foreign_plugin(site: Site) -> None:
    foreign(site.compile("nvdiffrast_plugin"))


def undefined(site: Site) -> None:
    site.compile("nvdiffrast_plugin", declare="int of_torch(void);", value="of_torch()", init="of_torch();")


def other_torch(site: Site) -> None:
    site.torch("2.12.1+cu130", "13.0")
    undefined(site)


def cpu_torch(site: Site) -> None:
    site.torch("2.11.0+cpu", None)
    needing("libc10_cuda.so")(site)


def other_cuda(site: Site) -> None:
    site.torch("2.11.0+cu126", "12.6")
    needing("libcudart.so.13.none")(site)


def broken_torch(site: Site) -> None:
    undefined(site)
    (site.folder / "torch" / "__init__.py").write_text("raise OSError('libtorch_cpu.so: bad')\n")
    (site.package / "torch" / "__init__.py").write_text("from .. import _loader\n")


def no_torch(site: Site) -> None:
    needing("libc10.so.none")(site)
    shutil.rmtree(site.folder / "torch")
    (site.package / "torch" / "__init__.py").write_text("from .. import _loader\n")


def other_python(site: Site) -> None:
    site.compile("nvdiffrast_plugin", suffix=".cpython-27-x86_64-linux-gnu.so")


def build_info(content: str | None) -> Callable[[Site], None]:
    def broken(site: Site) -> None:
        empty_plugin(site)
        if content is None:
            (site.package / "build_info.json").unlink()
        else:
            (site.package / "build_info.json").write_text(content)

    return broken


def two_wheels(site: Site) -> None:
    undefined(site)
    for version in ("0.3.3.1+cu130.torch2.11", "0.3.5+cu126.torch2.9"):
        (site.folder / f"nvdiffrast-{version}.dist-info").mkdir()


def changed_file(site: Site) -> None:
    undefined(site)
    folder = site.folder / "nvdiffrast-0.3.3.1.dist-info"
    folder.mkdir()
    digest = base64.urlsafe_b64encode(hashlib.sha256(b"another").digest()).rstrip(b"=").decode()
    (folder / "RECORD").write_text(f"nvdiffrast/torch/{PLUGIN},sha256={digest},7\n")


def second_copy(site: Site) -> None:
    undefined(site)
    (site.folder / "more" / "nvdiffrast").mkdir(parents=True)
    (site.folder / "more" / "nvdiffrast" / "__init__.py").touch()


def windows(plugin: bytes | None = None, runtime: bytes | None = None, **torch: bytes) -> Callable[[Site], None]:
    """Install the files of a Windows wheel and of torch; ``torch`` has the DLLs by name without .dll."""

    def broken(site: Site) -> None:
        needs = {"cudart64_13-0a1b.dll": ["cudaGetDevice"], "c10.dll": ["allocate"]}
        (site.package / "torch" / PYD).write_bytes(plugin or pe_factory.library(needs, name=PYD))
        (site.folder / "nvdiffrast.libs").mkdir()
        if runtime is not None:
            (site.folder / "nvdiffrast.libs" / "cudart64_13-0a1b.dll").write_bytes(runtime)
        (site.folder / "torch" / "lib").mkdir()
        for name, content in torch.items():
            (site.folder / "torch" / "lib" / f"{name}.dll").write_bytes(content)

    return broken


GOOD_RUNTIME = pe_factory.library(exports=["cudaGetDevice"], name="cudart64_13-0a1b.dll")
GOOD_C10 = pe_factory.library(exports=["allocate"], name="c10.dll")


def with_driver(driver: str, devices: str = "[]") -> str:
    before = f"_installation.driver = lambda: {driver}\n_installation.devices = lambda: {devices}"
    return examine(error="None", device=True, before=before)


def gpu(capability: str) -> str:
    return with_driver(
        '{"version": "580.1", "cuda": "13.0"}', f'[{{"name": "GPU X", "capability": "{capability}", "memory": 1}}]'
    )


def for_architectures(sass: list[str], ptx: list[str], nvcc: str = "13.0.88") -> Callable[[Site], None]:
    def plain(site: Site) -> None:
        site.compile("nvdiffrast_plugin")
        site.info({**INFO, "architectures": {"sass": sass, "ptx": ptx}, "compiler": {"nvcc": nvcc}})

    return plain


@dataclass(frozen=True)
class Case:
    """A broken installation and its expected message.

    ``broken`` breaks the installation. The code ``run`` runs in a new interpreter, with the command prefix ``prefix``.
    The message must contain the code ``code`` and the texts ``expected``.
    """

    name: str
    broken: Callable[[Site], object]
    code: str
    expected: tuple[str, ...]
    run: str = LOAD
    prefix: Callable[[Site], list[str]] = lambda site: []


CASES = [
    Case(
        "runtime removed",
        without_runtime,
        "library-missing",
        (RUNTIME, "needed by", PLUGIN, "searched", "nvdiffrast.libs"),
    ),
    Case("runtime truncated", truncated_runtime, "library-damaged", (f"nvdiffrast.libs/{RUNTIME}: it is truncated",)),
    Case("runtime empty", empty_runtime, "library-damaged", (f"nvdiffrast.libs/{RUNTIME}: it is empty",)),
    Case(
        "runtime of another architecture",
        foreign_runtime,
        "library-damaged",
        (RUNTIME, "it is for aarch64, not for x86_64"),
    ),
    Case(
        "library of the runtime removed",
        without_inner,
        "library-missing",
        ("libinner-removed.so", f"nvdiffrast.libs/{RUNTIME}"),
    ),
    Case("c10 removed", needing("libc10.so.none"), "library-missing", ("libc10.so.none", "belongs to torch")),
    Case(
        "driver's library removed",
        needing("libcuda.so.none"),
        "library-missing",
        ("libcuda.so.none", "install the driver"),
    ),
    Case(
        "GL removed",
        needing("libGL.so.none"),
        "library-missing",
        ("libGL.so.none", "belongs to the graphics driver, and wheels do not contain it"),
    ),
    Case("plugin truncated", truncated_plugin, "library-damaged", (PLUGIN, "it is truncated")),
    Case("plugin empty", empty_plugin, "library-damaged", (PLUGIN, "it is empty")),
    Case("plugin is a web page", text_plugin, "library-damaged", (PLUGIN, "it is not a shared library")),
    Case("plugin of another architecture", foreign_plugin, "library-damaged", (PLUGIN, "it is for aarch64")),
    Case("plugin zeroed", zeroed_plugin, "library-damaged", (PLUGIN, "it contains only zeros", REINSTALL)),
    Case(
        "runtime zeroed",
        zeroed_runtime,
        "library-damaged",
        (f"nvdiffrast.libs/{RUNTIME}: it contains only zeros", "needed by"),
    ),
    Case(
        "end of the runtime zeroed", zeroed_end_of_runtime, "library-damaged", (RUNTIME, "its end contains only zeros")
    ),
    Case(
        "names zeroed",
        zeroed_names,
        "library-damaged",
        (PLUGIN, "the names of the libraries that it needs were replaced by zeros"),
    ),
    Case(
        "plugin unreadable",
        unreadable_plugin,
        "file-unreadable",
        (f"{PLUGIN}: it cannot be read: Permission denied", "next: chmod -R a+rX "),
        prefix=as_a_user,
    ),
    Case(
        "runtime unreadable",
        unreadable_runtime,
        "file-unreadable",
        (f"nvdiffrast.libs/{RUNTIME}: it cannot be read: Permission denied",),
        prefix=as_a_user,
    ),
    Case(
        "libraries unreadable",
        closed_libraries,
        "file-unreadable",
        (f"nvdiffrast.libs: this user may not search it for {RUNTIME}",),
        prefix=as_a_user,
    ),
    Case("noexec", install, "mount-noexec", ("next: mount -o remount,exec {folder}",), prefix=on_noexec),
    Case("memory", large_runtime, "memory-short", (RUNTIME, "not enough memory"), prefix=with_a_gigabyte),
    Case("static TLS", greedy_runtime, "static-tls", (RUNTIME, "next: export GLIBC_TUNABLES=")),
    Case("plugin of another Python", other_python, "wrong-python", ("is for cp27", f"this Python is {THIS}")),
    Case(
        "torch of another version",
        other_torch,
        "torch-other-version",
        (
            "built for torch 2.11.0, and torch 2.12.1+cu130 is installed",
            f'pip install --force-reinstall {TORCH_CHANNEL} "torch==2.11.*"',
        ),
    ),
    Case("torch for the CPU", cpu_torch, "torch-cpu-only", ("2.11.0+cpu", "built for CUDA 13.0")),
    Case(
        "torch of another CUDA",
        other_cuda,
        "cuda-other-major",
        ("built for CUDA 13.0, and the installed torch is for CUDA 12.6",),
    ),
    Case(
        "no torch", no_torch, "torch-absent", ("torch is not installed", f'pip install {TORCH_CHANNEL} "torch==2.11.*"')
    ),
    Case(
        "broken torch",
        broken_torch,
        "torch-broken",
        ("libtorch_cpu.so: bad", f'pip install --force-reinstall {TORCH_CHANNEL} "torch==2.11.*"'),
    ),
    Case(
        "undefined symbol",
        undefined,
        "symbol-missing",
        ("of_torch", f"run this too: {REINSTALL}", f'pip install --force-reinstall {TORCH_CHANNEL} "torch==2.11.*"'),
    ),
    Case("build_info removed", build_info(None), "build-info", ("build_info.json cannot be read",)),
    Case("build_info empty", build_info(""), "build-info", ("build_info.json is not JSON",)),
    Case("build_info malformed", build_info('{"python": '), "build-info", ("build_info.json is not JSON",)),
    Case("build_info a list", build_info("[]"), "build-info", ("build_info.json contains a list",)),
    Case(
        "build_info without CUDA",
        build_info('{"python": "x", "torch": "2"}'),
        "build-info",
        ("build_info.json has no cuda",),
    ),
    Case("two wheels", two_wheels, "mixed-wheels", ("nvdiffrast-0.3.5+cu126.torch2.9.dist-info", "pip uninstall")),
    Case(
        "file of another wheel",
        changed_file,
        "mixed-wheels",
        (PLUGIN, "differs from the file of nvdiffrast-0.3.3.1.dist-info"),
    ),
    Case(
        "two copies",
        second_copy,
        "two-copies",
        ("more/nvdiffrast",),
        "import sys; sys.path.append({more!r})\nload(False)",
    ),
    Case(
        "system too old",
        undefined,
        "system-too-old",
        ("GLIBC_2.99", "Use a newer system"),
        examine(error='ImportError("/lib/libc.so.6: version `GLIBC_2.99\' not found (required by /a/plugin.so)")'),
    ),
    Case("no driver", for_architectures([], []), "driver-missing", ("no NVIDIA driver",), with_driver("None")),
    Case(
        "old driver",
        for_architectures(["9.0"], []),
        "driver-too-old",
        ("550.1", "CUDA up to 12.4", "built for CUDA 13.0", "Install driver 580 or newer"),
        with_driver('{"version": "550.1", "cuda": "12.4"}'),
    ),
    Case(
        "driver too old for the PTX",
        for_architectures(["9.0"], ["9.0"], nvcc="13.2.51"),
        "driver-too-old",
        ("GPU X needs the wheel's PTX, which CUDA 13.2.51 wrote", "up to 13.0"),
        gpu("12.0"),
    ),
    Case("GPU too old", for_architectures(["8.0"], ["9.0"]), "no-kernel", ("GPU X", "7.5", "8.0", "9.0"), gpu("7.5")),
    Case("GPU too new", for_architectures(["9.0"], []), "no-kernel", ("GPU X", "12.0", "PTX for nothing"), gpu("12.0")),
    Case(
        "Windows: runtime removed",
        windows(c10=GOOD_C10),
        "library-missing",
        ("cudart64_13-0a1b.dll", PYD, "nvdiffrast.libs"),
        examine(),
    ),
    Case(
        "Windows: c10 removed",
        windows(runtime=GOOD_RUNTIME),
        "library-missing",
        ("c10.dll", PYD, "torch/lib"),
        examine(),
    ),
    Case(
        "Windows: DLL of a DLL removed",
        windows(runtime=GOOD_RUNTIME, c10=pe_factory.library(["uv.dll"], exports=["allocate"])),
        "library-missing",
        ("uv.dll", "torch/lib/c10.dll", "belongs to torch"),
        examine(),
    ),
    Case(
        "Windows: Visual C++ removed",
        windows(runtime=pe_factory.library(["VCRUNTIME140_1.dll"], exports=["cudaGetDevice"]), c10=GOOD_C10),
        "library-missing",
        ("VCRUNTIME140_1.dll", "vc_redist.x64.exe"),
        examine(),
    ),
    Case(
        "Windows: runtime truncated",
        windows(runtime=GOOD_RUNTIME[:700], c10=GOOD_C10),
        "library-damaged",
        ("cudart64_13-0a1b.dll", "truncated"),
        examine(),
    ),
    Case(
        "Windows: runtime of 32 bits",
        windows(runtime=pe_factory.library(machine=pe_factory.I386), c10=GOOD_C10),
        "library-damaged",
        ("cudart64_13-0a1b.dll", "it is for i386, not for x86_64"),
        examine(),
    ),
    Case(
        "Windows: plugin truncated",
        windows(plugin=GOOD_RUNTIME[:600]),
        "library-damaged",
        (PYD, "truncated"),
        examine(),
    ),
    Case(
        "Windows: older c10",
        windows(runtime=GOOD_RUNTIME, c10=pe_factory.library(exports=["other"])),
        "symbol-missing",
        ("torch/lib/c10.dll", "it does not contain allocate", PYD),
        examine(),
    ),
]


def test_case_names_are_unique() -> None:
    assert len(CASES) >= 25
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_message_names_the_cause_and_a_command(case: Case, tmp_path: Path) -> None:
    site = Site(tmp_path)
    case.broken(site)
    output = site.run(case.run.replace("{more!r}", repr(str(tmp_path / "more"))), prefix=case.prefix(site))
    assert f"[{case.code}]" in output, output
    for part in case.expected:
        assert part.replace("{folder}", str(tmp_path)) in output, output
    if case.run.endswith(LOAD):
        assert case.code in codes(output)
        assert is_command(next_command(output))


def is_command(text: str) -> bool:
    """Return whether a line consists of a program that the loader names and its arguments."""
    words = shlex.split(text)
    programs = {"pip", "chmod", "mount", "export", "free", "apt-get", sys.executable}
    return words[0] in programs and not any(word.endswith((",", ";", ":")) for word in words)


@pytest.mark.parametrize(
    ("sass", "ptx", "nvcc", "capability"),
    [
        (["8.0"], [], "13.0.88", "8.6"),  # compiled for an older GPU of the same generation
        (["8.0"], ["9.0"], "13.0.88", "12.0"),  # the driver translates the PTX
        (["9.0"], ["9.0"], "13.2.51", "9.0"),  # compiled by a newer CUDA of the driver's major version
    ],
)
def test_reports_no_problem_for_a_supported_gpu(
    sass: list[str], ptx: list[str], nvcc: str, capability: str, tmp_path: Path
) -> None:
    site = Site(tmp_path)
    for_architectures(sass, ptx, nvcc)(site)
    output = site.run(gpu(capability).replace("ImportError('DLL load failed')", "None"))
    assert output == ""


def test_reports_the_likeliest_cause_first(tmp_path: Path) -> None:
    """The torch without CUDA is reported before the library that it does not contain."""
    site = Site(tmp_path)
    cpu_torch(site)
    codes = [line.split("]")[0] for line in site.run(LOAD).splitlines() if line.startswith(("[", "also ["))]
    assert codes[0] == "[torch-cpu-only"
    assert "also [library-missing" in codes


def test_a_diagnosis_that_fails_does_not_hide_the_error(tmp_path: Path) -> None:
    site = Site(tmp_path)
    without_runtime(site)
    output = site.run(f"from nvdiffrast import _binaries\n_binaries.find_faults = None\n{LOAD}")
    assert f"{RUNTIME}: cannot open shared object file" in output
    assert "[unknown]" in output and "'NoneType' object is not callable" in output
    assert "ImportError: nvdiffrast: " in output and "next: " in output


def test_refuses_an_installation_in_a_zip_file(tmp_path: Path) -> None:
    site = Site(tmp_path / "site")
    archive = tmp_path / "nvdiffrast.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in site.package.rglob("*.py"):
            file.write(path, path.relative_to(site.folder))
        file.write(site.folder / "torch" / "__init__.py", "torch/__init__.py")
    shutil.rmtree(site.package)
    code = f"import sys; sys.path.insert(0, {str(archive)!r})\nimport nvdiffrast.torch\n"
    code += "nvdiffrast.torch._loader.load_precompiled(False)"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False)
    assert "[path-refused]" in done.stderr
    assert str(archive) in done.stderr


@pytest.mark.parametrize("name", ["Grüße 日本 é", "a b", "long"])
def test_works_in_folders_with_unusual_names(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    while name == "long" and len(str(folder)) < 600:
        folder /= "0123456789" * 10
    folder.mkdir(parents=True)
    site = Site(folder)
    install(site)
    assert site.run("print(load(False).answer())") == "1\n"
    (folder / "nvdiffrast.libs" / RUNTIME).unlink()
    output = site.run(LOAD)
    assert f"searched {folder / 'nvdiffrast.libs'}" in output


def test_works_in_a_read_only_installation(tmp_path: Path) -> None:
    site = Site(tmp_path)
    install(site)
    paths = [tmp_path, *tmp_path.rglob("*")]
    for path in paths:
        path.chmod(path.stat().st_mode & ~0o222)
    try:
        assert site.run("print(load(False).answer())") == "1\n"
    finally:
        for path in paths:
            path.chmod(path.stat().st_mode | 0o200)
