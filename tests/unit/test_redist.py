"""scripts.locks.redist: manifest -> lock -> toolkit, with a server on loopback and generated archives."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from scripts.errors import ToolchainError
from scripts.locks import generate, redist
from scripts.model import Bounds, Provider, Toolkit
from scripts.toolchain import providers
from tests.loopback import Server, serve

CUDA = "12.4.1"
HEADER = b"#define CUDART_VERSION  12040\n"
NVCC = b"#!/bin/sh\necho 'Cuda compilation tools, release 12.4, V12.4.131'\n"
WHOLE: dict[str, dict[str, bytes]] = {
    "cuda_nvcc": {"bin/nvcc": NVCC, "LICENSE": b"nvcc's licence"},
    "cuda_cudart": {
        "include/cuda_runtime_api.h": HEADER,
        "lib/libcudart.so.12": b"runtime",
        "LICENSE": b"cudart's licence",
    },
    "cuda_cccl": {"include/thrust/version.h": b"// thrust\n", "LICENSE": b"cccl's licence"},
    "libcublas": {"include/cublas_v2.h": b"// blas\n", "lib/x64/cublas.lib": b"large", "LICENSE": b"blas's licence"},
}


def tar(name: str, files: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:xz") as archive:
        for path, content in files.items():
            member = tarfile.TarInfo(f"{name}/{path}")
            member.size = len(content)
            member.mode = 0o755 if path.startswith("bin/") else 0o644
            archive.addfile(member, io.BytesIO(content))
        for path, target in (links or {}).items():
            member = tarfile.TarInfo(f"{name}/{path}")
            member.type, member.linkname = tarfile.SYMTYPE, target
            archive.addfile(member)
    return made.getvalue()


def zipped(name: str, files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for path, content in files.items():
            archive.writestr(f"{name}/{path}", content)
    return made.getvalue()


@dataclass
class Nvidia:
    """A substitute for NVIDIA's server: change a component with ``put``, then ``publish`` the manifest."""

    server: Server
    data: Path
    manifest: dict[str, Any]

    def put(self, component: str, platform: str, content: bytes) -> None:
        suffix = "zip" if platform.startswith("windows") else "tar.xz"
        path = f"{component}/{platform}/{component}-{platform}-12.4.131-archive.{suffix}"
        self.server.files[path] = content
        entry = self.manifest.setdefault(
            component, {"name": "a part", "license": "CUDA Toolkit", "version": "12.4.131"}
        )
        digest = hashlib.sha256(content).hexdigest()
        entry[platform] = {"relative_path": path, "sha256": digest, "md5": "", "size": str(len(content))}

    def publish(self) -> None:
        content = json.dumps(self.manifest).encode()
        self.server.files[f"redistrib_{CUDA}.json"] = content
        pins = {
            "base": self.server.url,
            "manifests": {CUDA: hashlib.sha256(content).hexdigest()},
            "components": ["cuda_nvcc", "cuda_cudart", "cuda_cccl"],
            "components_since": {"13": ["cuda_crt"]},
            "headers": {"windows-x86_64": ["libcublas"]},
        }
        self.data.write_text(json.dumps(pins))

    def path(self, component: str, platform: str = "linux-x86_64") -> str:
        return str(self.manifest[component][platform]["relative_path"])


@pytest.fixture
def nvidia(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nvidia]:
    monkeypatch.setenv("NVDIFFRAST_WHEELS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(redist.MIRROR_VARIABLE, raising=False)
    monkeypatch.setattr(redist, "MANIFESTS", tmp_path / "manifests.json")
    monkeypatch.setattr(redist, "PAUSE_SECONDS", 0.0)
    with serve() as server:
        made = Nvidia(server, tmp_path / "manifests.json", {"release_label": CUDA})
        for component, files in WHOLE.items():
            made.put(component, "linux-x86_64", tar(component, files))
            made.put(component, "windows-x86_64", zipped(component, files))
        made.publish()
        yield made


@pytest.fixture
def lock(nvidia: Nvidia, tmp_path: Path) -> Callable[[], Path]:
    def made() -> Path:
        nvidia.publish()
        redist.make_lock(CUDA, tmp_path / "cu124-redist.json")
        return tmp_path / "cu124-redist.json"

    return made


@pytest.fixture
def install(lock: Callable[[], Path], tmp_path: Path) -> Callable[..., dict[str, bytes]]:
    """Return a function that creates the lock, installs it into an empty folder, and returns the files there."""

    def installed(platform: str = "linux-x86_64") -> dict[str, bytes]:
        home = tmp_path / "beside" / platform
        home.mkdir(parents=True)
        redist.install(redist.read_lock(lock()), home, platform=platform)
        return {
            path.relative_to(home).as_posix(): path.read_bytes() for path in sorted(home.rglob("*")) if path.is_file()
        }

    return installed


def test_the_lock_contains_the_needed_components(lock: Callable[[], Path], nvidia: Nvidia) -> None:
    nvidia.manifest["libcufft"] = {"version": "1", "license": "no need"}
    found = redist.read_lock(lock())
    assert set(found.components) == {"cuda_nvcc", "cuda_cudart", "cuda_cccl", "libcublas"}
    assert found.manifest.url == f"{nvidia.server.url}redistrib_{CUDA}.json"
    assert set(found.for_platform("linux-x86_64")) == {"cuda_nvcc", "cuda_cudart", "cuda_cccl"}
    assert found.components["libcublas"].keep == "headers"
    archive = found.components["cuda_nvcc"].archives["linux-x86_64"]
    assert archive.size == len(nvidia.server.files[archive.relative_path])


def test_the_lock_is_deterministic(lock: Callable[[], Path]) -> None:
    first = lock().read_bytes()
    assert lock().read_bytes() == first


def test_installs_a_toolkit_for_linux(install: Callable[..., dict[str, bytes]], tmp_path: Path) -> None:
    assert install() == {
        "bin/nvcc": NVCC,
        "include/cuda_runtime_api.h": HEADER,
        "include/thrust/version.h": b"// thrust\n",
        "lib/libcudart.so.12": b"runtime",
        "licenses/cuda_cccl.txt": b"cccl's licence",
        "licenses/cuda_cudart.txt": b"cudart's licence",
        "licenses/cuda_nvcc.txt": b"nvcc's licence",
    }
    assert (tmp_path / "beside/linux-x86_64/bin/nvcc").stat().st_mode & 0o111


def test_installs_only_headers_of_libraries_for_windows(install: Callable[..., dict[str, bytes]]) -> None:
    found = install("windows-x86_64")
    assert "include/cublas_v2.h" in found
    assert "licenses/libcublas.txt" in found
    assert "lib/x64/cublas.lib" not in found
    assert found["bin/nvcc"] == NVCC


def test_rejects_a_manifest_with_another_sha256(nvidia: Nvidia, tmp_path: Path) -> None:
    nvidia.server.files[f"redistrib_{CUDA}.json"] += b" "
    with pytest.raises(ToolchainError, match="is pinned"):
        redist.make_lock(CUDA, tmp_path / "new.json")
    assert not (tmp_path / "new.json").exists()


def test_rejects_a_cuda_without_a_pinned_manifest(nvidia: Nvidia, tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match=r"no manifest of CUDA 12\.5\.0 is pinned"):
        redist.make_lock("12.5.0", tmp_path / "new.json")


@pytest.mark.parametrize("gone", [("cuda_cccl", None), ("cuda_cccl", "windows-x86_64")])
def test_rejects_a_manifest_without_a_component(
    nvidia: Nvidia, lock: Callable[[], Path], gone: tuple[str, str | None]
) -> None:
    component, platform = gone
    (nvidia.manifest[component] if platform else nvidia.manifest).pop(platform or component)
    with pytest.raises(ToolchainError, match="cuda_cccl"):
        lock()


def test_rejects_a_path_that_leads_to_another_server(nvidia: Nvidia, lock: Callable[[], Path]) -> None:
    for path in ("https://example.org/x.tar.xz", "../../x.tar.xz", "/x.tar.xz", "//example.org/x.tar.xz"):
        nvidia.manifest["cuda_nvcc"]["linux-x86_64"]["relative_path"] = path
        with pytest.raises(ToolchainError, match="relative_path"):
            lock()


def test_rejects_a_lock_of_another_manifest(lock: Callable[[], Path], nvidia: Nvidia) -> None:
    path = lock()
    nvidia.manifest["release_label"] = "another"
    nvidia.publish()
    with pytest.raises(ToolchainError, match="was created from manifest"):
        redist.read_lock(path)


def test_names_the_field_of_a_damaged_lock(lock: Callable[[], Path]) -> None:
    path = lock()
    content = json.loads(path.read_text())
    content["components"]["cuda_nvcc"]["archives"]["linux-x86_64"]["sha256"] = "0" * 63
    path.write_text(json.dumps(content))
    with pytest.raises(ToolchainError, match=r"components\.cuda_nvcc\.archives\.linux-x86_64\.sha256"):
        redist.read_lock(path)


def test_rejects_an_archive_with_a_wrong_hash(nvidia: Nvidia, install: Callable[..., dict[str, bytes]]) -> None:
    nvidia.manifest["cuda_cccl"]["linux-x86_64"]["sha256"] = "0" * 64
    with pytest.raises(ToolchainError, match=f"but {'0' * 64} is pinned"):
        install()


def test_rejects_an_archive_of_a_wrong_size(nvidia: Nvidia, install: Callable[..., dict[str, bytes]]) -> None:
    nvidia.manifest["cuda_cccl"]["linux-x86_64"]["size"] = "10"
    with pytest.raises(ToolchainError, match="larger than the 10 bytes"):
        install()


def test_rejects_a_truncated_archive(nvidia: Nvidia, install: Callable[..., dict[str, bytes]]) -> None:
    path, whole = nvidia.path("cuda_cccl"), nvidia.server.files[nvidia.path("cuda_cccl")]
    nvidia.server.files[path] = whole[:-20]
    with pytest.raises(ToolchainError, match="could not be downloaded"):
        install()


def test_rejects_a_truncated_archive_with_the_right_hash(
    nvidia: Nvidia, install: Callable[..., dict[str, bytes]]
) -> None:
    whole = nvidia.server.files[nvidia.path("cuda_cccl")]
    nvidia.put("cuda_cccl", "linux-x86_64", whole[:-20])
    with pytest.raises(ToolchainError, match=r"component cuda_cccl: .*not a whole tar archive"):
        install()


@pytest.mark.parametrize("path", ["../../climbed", "/climbed", "a/../../../climbed"])
@pytest.mark.parametrize("platform", ["linux-x86_64", "windows-x86_64"])
def test_rejects_a_path_that_leads_out_of_the_toolkit(
    nvidia: Nvidia, install: Callable[..., dict[str, bytes]], tmp_path: Path, path: str, platform: str
) -> None:
    make = tar if platform == "linux-x86_64" else zipped
    name = "cuda_cccl" if not path.startswith("/") else ""
    nvidia.put("cuda_cccl", platform, make(name, {path: b"out"}))
    with pytest.raises(ToolchainError, match="component cuda_cccl: "):
        install(platform)
    assert not list(tmp_path.rglob("climbed"))


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../secret"])
def test_rejects_a_symlink_that_leads_out_of_the_archive(
    nvidia: Nvidia, install: Callable[..., dict[str, bytes]], target: str
) -> None:
    nvidia.put("cuda_cccl", "linux-x86_64", tar("cuda_cccl", {"include/a.h": b""}, {"include/link": target}))
    with pytest.raises(ToolchainError, match=r"component cuda_cccl: .* outside of the archive"):
        install()


def test_rejects_a_symlink_that_leaves_the_toolkit_without_its_top_folder(
    nvidia: Nvidia, install: Callable[..., dict[str, bytes]]
) -> None:
    nvidia.put("cuda_cccl", "linux-x86_64", tar("cuda_cccl", {"include/a.h": b""}, {"link": "../elsewhere"}))
    with pytest.raises(ToolchainError, match=r"link is a link to .*outside of the toolkit"):
        install()


def test_keeps_a_symlink_inside_the_toolkit(nvidia: Nvidia, install: Callable[..., dict[str, bytes]]) -> None:
    nvidia.put("cuda_cccl", "linux-x86_64", tar("cuda_cccl", {"include/a.h": b"a"}, {"include/b.h": "a.h"}))
    assert install()["include/b.h"] == b"a"


def test_rejects_a_file_that_two_components_contain(nvidia: Nvidia, install: Callable[..., dict[str, bytes]]) -> None:
    nvidia.put("cuda_cccl", "linux-x86_64", tar("cuda_cccl", {"bin/nvcc": b"another"}))
    with pytest.raises(ToolchainError, match="contains bin/nvcc too"):
        install()


def test_rejects_an_archive_without_one_top_folder(nvidia: Nvidia, install: Callable[..., dict[str, bytes]]) -> None:
    nvidia.put("cuda_cccl", "linux-x86_64", tar(".", {"a/x": b"", "b/y": b""}))
    with pytest.raises(ToolchainError, match="must contain exactly one folder"):
        install()


def test_resumes_an_interrupted_download(nvidia: Nvidia, install: Callable[..., dict[str, bytes]]) -> None:
    nvidia.server.cut[nvidia.path("cuda_cudart")] = 100
    nvidia.server.busy[nvidia.path("cuda_nvcc")] = 2
    assert install()["lib/libcudart.so.12"] == b"runtime"
    assert (nvidia.path("cuda_cudart"), "bytes=100-") in nvidia.server.requests


def test_downloads_from_a_mirror(
    nvidia: Nvidia, lock: Callable[[], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mirror serves the same files; the lock keeps the original URL."""
    path = lock()
    with serve() as mirror:
        mirror.files = dict(nvidia.server.files)
        monkeypatch.setenv(redist.MIRROR_VARIABLE, mirror.url.rstrip("/"))
        home = tmp_path / "beside" / "home"
        home.mkdir(parents=True)
        before = len(nvidia.server.requests)
        redist.install(redist.read_lock(path), home, platform="linux-x86_64")
        assert len(mirror.requests) == 3
        assert len(nvidia.server.requests) == before


def toolkit(path: Path) -> Toolkit:
    return Toolkit("12.4", (Provider("redist", str(path)),), ("9.0",), "9.0", Bounds(), Bounds())


def test_provides_the_toolkit_from_the_archives(lock: Callable[[], Path], nvidia: Nvidia, tmp_path: Path) -> None:
    path = lock()
    home = providers.provide(toolkit(path))
    assert (home.version, home.provider) == ("12.4.131", "redist")
    assert home.components == {"cuda_nvcc": "12.4.131", "cuda_cudart": "12.4.131", "cuda_cccl": "12.4.131"}
    assert home.path.is_relative_to(tmp_path / "cache" / "toolkits")
    assert (home.path / "lib64" / "libcudart.so").read_bytes() == b"runtime"
    before = len(nvidia.server.requests)
    assert providers.provide(toolkit(path)) == home
    assert len(nvidia.server.requests) == before


def test_a_failure_leaves_no_toolkit_folder(nvidia: Nvidia, lock: Callable[[], Path], tmp_path: Path) -> None:
    nvidia.put("cuda_cccl", "linux-x86_64", b"not an archive")
    with pytest.raises(ToolchainError, match="cuda_cccl"):
        providers.provide(toolkit(lock()))
    assert not list((tmp_path / "cache" / "toolkits").iterdir())


def test_every_pinned_manifest_has_a_known_lock() -> None:
    names = {name for name, lock in generate.known_locks().items() if isinstance(lock, generate.ArchivesLock)}
    assert {"cu118-redist", "cu124-redist", "cu126-redist", "cu128-redist", "cu130-redist"} <= names


def test_cuda_13_needs_more_components() -> None:
    manifests = redist.pinned_manifests()
    assert "libnvvm" in manifests.wanted("13.0.2")
    assert "libnvvm" not in manifests.wanted("12.8.1")
