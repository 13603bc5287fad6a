"""scripts.matrix.observe: update the table of torch builds from a server on loopback."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from scripts.errors import UntestedError
from scripts.matrix import matrix, observe, torch_builds
from scripts.matrix.torch_builds import Channel, Plain, TorchTable
from scripts.support import simple_api
from scripts.support.simple_api import IndexUnreachable

TABLE = TorchTable(
    channels={
        "cu118": Channel({"2.7.1": {"win_amd64": ("3.10",)}}, declared="somebody's word"),
        "cu130": Channel({"2.9.1": {"linux_x86_64": ("3.10",)}}, observed="2026-08"),
    },
    pypi={"2.11.0": Plain("13.0.2", ("3.10",))},
    pypi_observed="2026-08",
)
METADATA = "Metadata-Version: 2.1\nName: torch\nVersion: 2.15.0\nRequires-Dist: {}\n"


@dataclass
class Server:
    """A server of ``pages``: path -> (content type, body); it counts the bytes sent per path."""

    url: str = ""
    pages: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)

    def page(self, path: str, names: list[str], attributes: str = "") -> None:
        anchors = "".join(f'<a href="{name}#sha256=00" {attributes}>{name}</a>\n' for name in names)
        self.pages[path] = ("text/html", anchors.encode())

    def wheel(self, path: str, requirement: str) -> None:
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w") as archive:
            archive.writestr("torch/lib/libtorch.so", bytes(1 << 20))
            archive.writestr("torch-2.15.0.dist-info/METADATA", METADATA.format(requirement))
        self.pages[path] = ("application/zip", made.getvalue())


@pytest.fixture
def server() -> Iterator[Server]:
    serving = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            if self.path not in serving.pages:
                self.send_error(404)
                return
            kind, body = serving.pages[self.path]
            wanted = self.headers.get("Range")
            if wanted:
                first, last = wanted.removeprefix("bytes=").split("-")
                body = body[int(first) : int(last) + 1]
            self.send_response(206 if wanted else 200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                serving.sent[self.path] = serving.sent.get(self.path, 0) + len(body)
                self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        serving.url = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield serving
        http.shutdown()
        thread.join()


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "torch_builds.yaml"
    path.write_text(torch_builds.dump(TABLE))
    return path


CHANNEL = [
    "torch-2.9.1%2Bcu130-cp310-cp310-manylinux_2_28_x86_64.whl",
    "torch-2.9.1%2Bcu130-cp314-cp314-manylinux_2_28_x86_64.whl",
    "torch-2.9.1%2Bcu130-cp314-cp314t-manylinux_2_28_x86_64.whl",
    "torch-2.9.1%2Bcu130-cp310-cp310-manylinux_2_28_aarch64.whl",
    "torch-2.9.1%2Bcu130-cp310-cp310-win_amd64.whl",
    "torch-2.9.1%2Bcu128-cp311-cp311-win_amd64.whl",
    "torch-2.10.0rc1%2Bcu130-cp310-cp310-win_amd64.whl",
    "torch-1.13.0%2Bcu130-cp310-cp310-win_amd64.whl",
    "torchaudio-2.9.1%2Bcu130-cp312-cp312-win_amd64.whl",
    "not a wheel.whl",
]
PLAIN = [
    "torch-2.11.0-cp310-cp310-manylinux_2_28_x86_64.whl",
    "torch-2.11.0-cp311-cp311-manylinux_2_28_x86_64.whl",
    "torch-2.11.0-cp312-cp312-win_amd64.whl",
    "torch-2.15.0-cp312-cp312-manylinux_2_28_x86_64.whl",
    "torch-2.11.0%2Bcpu-cp312-cp312-manylinux_2_28_x86_64.whl",
]


def run(server: Server, table: Path, index: str | None = None) -> observe.Report:
    return observe.observe(table, index=index or f"{server.url}/simple", channels=f"{server.url}/whl")


def test_reads_channels_and_the_wheels_of_pypi(server: Server, table: Path) -> None:
    server.page("/whl/cu130/torch/", CHANNEL)
    server.page("/simple/torch/", PLAIN)
    server.wheel(f"/simple/torch/{PLAIN[3]}", "cuda-toolkit[cudart,nvrtc]==13.2.2; platform_system == 'Linux'")
    report = run(server, table)
    made = torch_builds.load(table)
    assert made.channels["cu130"].builds == {"2.9.1": {"linux_x86_64": ("3.10", "3.14"), "win_amd64": ("3.10",)}}
    assert made.channels["cu130"].observed == made.pypi_observed > "2026-11"
    assert made.pypi == {"2.11.0": Plain("13.0.2", ("3.10", "3.11")), "2.15.0": Plain("13.2.2", ("3.12",))}
    # A missing channel keeps its part of the table and is reported.
    assert made.channels["cu118"] == TABLE.channels["cu118"]
    assert any(line.startswith("channel cu118: ") and "404" in line for line in report.unread)


def test_reads_metadata_from_a_part_of_the_wheel(server: Server, table: Path) -> None:
    server.page("/simple/torch/", PLAIN)
    server.wheel(f"/simple/torch/{PLAIN[3]}", "nvidia-cuda-runtime-cu12==12.8.90")
    run(server, table)
    assert torch_builds.load(table).pypi["2.15.0"].cuda == "12.8"
    assert server.sent[f"/simple/torch/{PLAIN[3]}"] <= 1 << 17


def test_reads_a_json_page_with_metadata_beside_the_wheel(server: Server, table: Path) -> None:
    text = METADATA.format("nvidia-cuda-runtime==13.0.96").encode()
    digest = hashlib.sha256(text).hexdigest()
    files = [
        {"filename": PLAIN[0], "url": "../../f/a.whl", "hashes": {}},
        {"filename": PLAIN[3], "url": "../../f/b.whl", "hashes": {}, "core-metadata": {"sha256": digest}},
        {"filename": PLAIN[3].replace("2.15.0", "2.15.1"), "url": "../../f/c.whl", "hashes": {}, "yanked": "bad"},
    ]
    body = json.dumps({"meta": {"api-version": "1.1"}, "name": "torch", "files": files}).encode()
    server.pages["/simple/torch/"] = ("application/vnd.pypi.simple.v1+json", body)
    server.pages["/f/b.whl.metadata"] = ("text/plain", text)
    run(server, table)
    assert torch_builds.load(table).pypi == {"2.11.0": Plain("13.0.2", ("3.10",)), "2.15.0": Plain("13.0", ("3.12",))}
    # Metadata with another hash than the index states is rejected, and nothing is changed.
    before = table.read_bytes()
    server.page("/simple/torch/", [PLAIN[3].replace("2.15.0", "2.16.0")], f'data-core-metadata="sha256={"0" * 64}"')
    server.pages[f"/simple/torch/{PLAIN[3].replace('2.15.0', '2.16.0')}.metadata"] = ("text/plain", text)
    with pytest.raises(UntestedError, match="sha256 differs"):
        run(server, table)
    assert table.read_bytes() == before


def test_reads_the_metadata_hash_from_html(server: Server) -> None:
    server.page("/simple/torch/", [PLAIN[3]], 'data-dist-info-metadata="sha256=ab" data-yanked=""')
    (found,) = simple_api.files(f"{server.url}/simple/torch/")
    assert (found.name, found.metadata_sha256, found.yanked) == (PLAIN[3], "ab", True)
    assert found.url == f"{server.url}/simple/torch/{PLAIN[3]}"


@pytest.mark.parametrize("names", [[], ["torch-2.9.1-cp310-none-any.whl"]])
def test_changes_nothing_if_a_page_lists_no_torch(names: list[str], server: Server, table: Path) -> None:
    """A login page also has the status 200."""
    server.page("/whl/cu130/torch/", names)
    server.page("/simple/torch/", names)
    before = table.read_bytes()
    with pytest.raises(UntestedError, match="lists no plain torch wheel"):
        run(server, table)
    assert table.read_bytes() == before


def test_changes_nothing_if_no_index_can_be_reached(server: Server, table: Path) -> None:
    before = table.read_bytes()
    with pytest.raises(UntestedError, match=r"torch_builds\.yaml unchanged") as raised:
        run(server, table)
    assert "channel cu130" in str(raised.value)
    assert "plain wheels" in str(raised.value)
    assert table.read_bytes() == before


def test_messages_contain_no_password(server: Server) -> None:
    address = server.url.replace("http://", "http://user:secret@")
    with pytest.raises(IndexUnreachable, match="credentials") as raised:
        simple_api.files(f"{address}/absent/")
    assert "secret" not in str(raised.value)


def test_rejects_a_malformed_json_page(server: Server) -> None:
    server.pages["/simple/torch/"] = ("application/vnd.pypi.simple.v1+json", b"<html>")
    with pytest.raises(IndexUnreachable, match="not a simple page"):
        simple_api.files(f"{server.url}/simple/torch/")


def test_rejects_urls_that_are_not_http(tmp_path: Path) -> None:
    (tmp_path / "index.html").touch()
    with pytest.raises(IndexUnreachable, match="not a http"):
        simple_api.files((tmp_path / "index.html").as_uri())


@pytest.mark.parametrize(
    ("requirement", "cuda"),
    [
        ("cuda-toolkit[cudart]==13.0.2; platform_system == 'Linux'", "13.0.2"),
        ('nvidia-cuda-runtime-cu12==12.6.77; platform_system == "Linux"', "12.6"),
        ("nvidia-cuda-runtime==13.0.*", "13.0"),
        ("nvidia-cudnn-cu12==9.1.0.70", None),
        ("cuda-toolkit>=13", None),
        ("not a requirement ===", None),
    ],
)
def test_cuda_of(requirement: str, cuda: str | None) -> None:
    assert observe.cuda_of(METADATA.format(requirement)) == cuda


def test_reads_the_channel_of_a_toolkit_that_the_table_lacks(
    server: Server, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The matrix is invalid until the table contains its torch; the table must be updated nevertheless."""
    path = tmp_path / "build_matrix.yaml"
    text = matrix.PATH.read_text(encoding="utf-8")
    path.write_text(text.replace('  "13.2":\n', '  "13.3":\n'), encoding="utf-8")
    monkeypatch.setattr(matrix, "PATH", path)
    server.page("/whl/cu133/torch/", [CHANNEL[0].replace("cu130", "cu133")])
    run(server, table)
    assert torch_builds.load(table).channels["cu133"].builds == {"2.9.1": {"linux_x86_64": ("3.10",)}}
