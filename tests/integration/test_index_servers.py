"""Install from the index with pip and uv, served by nginx with content negotiation and by a plain file server."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from scripts.errors import CommandError
from scripts.index import catalog as catalogs
from scripts.index import nginx as nginx_configuration
from scripts.index import writer
from scripts.index.export import export
from scripts.support import sandbox
from scripts.support.sandbox import Environment, Surroundings
from tests.index_factory import PAGE, catalog, entry, pooled

pytestmark = pytest.mark.integration

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
LOCAL = "+cu130.torch2.11"
JSON, HTML = "application/vnd.pypi.simple.v1+json", "application/vnd.pypi.simple.v1+html"
PIP_ACCEPTS = f"{JSON}, {HTML}; q=0.1, text/html; q=0.01"
CHANNEL = "whl/cu130-torch2.11"
PROJECT = f"/{CHANNEL}/nvdiffrast/"
_MAIN = """
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log;
events {{}}
http {{
    log_format test "$request_method $request_uri $status";
    access_log {folder}/access.log test;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/site.conf;
}}
"""


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def kind(self) -> str:
        """Return the content type without its charset."""
        return self.headers.get_content_type()


@dataclass(frozen=True)
class Site:
    """A served store; ``log`` is the access log, or None if the server does not write one."""

    url: str
    store: Path
    log: Path | None = None

    def get(self, path: str, accept: str = "*/*") -> Answer:
        """Send one request without following redirects or normalizing the path."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=10)
        connection.request("GET", path, headers={"Accept": accept})
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())


@pytest.fixture(scope="module")
def store() -> Iterator[Path]:
    """Yield a store with 0.4.0 of January, 0.4.1 of February (yanked) and 0.4.2 of June, readable by all users."""
    folder = Path(tempfile.mkdtemp(prefix="nvdiffrast-index-"))
    folder.chmod(0o755)
    entries = []
    for release, uploaded, yanked in (
        ("0.4.0", "2026-01-01T00:00:00Z", None),
        ("0.4.1", "2026-02-01T00:00:00Z", "draws nothing"),
        ("0.4.2", "2026-06-01T00:00:00Z", None),
    ):
        made = pooled(folder, entry(release, python=PYTHON))
        entries.append(replace(made, uploaded=uploaded, yanked=yanked))
    writer.generate(catalog(entries), folder / "generations" / "one", page=PAGE)
    (folder / "current").symlink_to("generations/one")
    (folder / "ledger.jsonl").write_text("{}\n")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def nginx(store: Path) -> Iterator[Site]:
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        pytest.skip("needs nginx: apt-get install -y --no-install-recommends nginx-light")
    folder = Path(tempfile.mkdtemp(prefix="nvdiffrast-nginx-"))
    port = _free_port()
    (folder / "site.conf").write_text(nginx_configuration.configuration(store / "current", f"127.0.0.1:{port}"))
    (folder / "nginx.conf").write_text(_MAIN.format(folder=folder))
    user = None
    if os.geteuid() == 0:
        user = "nobody"
        shutil.chown(folder, user)
    command = [program, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]
    try:
        with _running(command, port, user=user):
            yield Site(f"http://127.0.0.1:{port}", store, folder / "access.log")
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def plain(store: Path) -> Iterator[Site]:
    """Serve the export with a file server that ignores Accept."""
    folder = Path(tempfile.mkdtemp(prefix="nvdiffrast-export-"))
    export(store / "current", folder)
    port = _free_port()
    command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(folder), str(port)]
    try:
        with _running(command, port):
            yield Site(f"http://127.0.0.1:{port}", store)
    finally:
        shutil.rmtree(folder)


@contextmanager
def _running(command: list[str], port: int, user: str | None = None) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, user=user)
    assert process.stdout is not None
    try:
        for _ in range(100):
            if process.poll() is not None:
                pytest.fail(f"{command[0]} ended: {process.stdout.read()}")
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=10)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    nowhere = Surroundings("http://127.0.0.1:9/", tmp_path / "cache")
    return sandbox.create(tmp_path / "environment", Path(sys.executable), nowhere)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (PIP_ACCEPTS, JSON),
        (f"{JSON}, {HTML};q=0.2, text/html;q=0.01", JSON),
        ("application/vnd.pypi.simple.latest+json", JSON),
        (f"text/html, {JSON};q=0.01", JSON),
        (HTML, HTML),
        (f"{JSON};q=0, {HTML}", "text/html"),
        (f"{JSON}; q=0.0, text/html", "text/html"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/html"),
        ("*/*", "text/html"),
        ("application/json", "text/html"),
        ("", "text/html"),
    ],
)
@pytest.mark.parametrize("path", [PROJECT, f"/{CHANNEL}/"])
def test_nginx_negotiates_html_or_json(nginx: Site, path: str, accept: str, kind: str) -> None:
    answer = nginx.get(path, accept)
    assert (answer.status, answer.kind) == (200, kind)
    assert "Accept" in answer.headers.get_all("Vary", [])
    assert answer.headers["Cache-Control"] == "no-cache"
    name = "index.json" if kind == JSON else "index.html"
    assert answer.body == (nginx.store / "current" / path.strip("/") / name).read_bytes()


def test_nginx_serves_files_with_their_types(nginx: Site) -> None:
    one = catalogs.read(nginx.store / "current").entries[0]
    file = f"/files/{one.sha256}/{one.name.replace('+', '%2B')}"
    for path, kind in (
        ("/", "text/html"),
        ("/whl/", "text/html"),
        ("/catalog.json", "application/json"),
        (f"/records/{one.sha256}.audit.json", "application/json"),
        (f"{PROJECT}index.json", JSON),
        (f"{PROJECT}index.html", "text/html"),
        (file, "application/octet-stream"),
        (f"{file}.metadata", "text/plain"),
    ):
        answer = nginx.get(path, PIP_ACCEPTS)
        assert (answer.status, answer.kind) == (200, kind), path
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "immutable" in nginx.get(file).headers["Cache-Control"]
    assert nginx.get("/").body == PAGE


@pytest.mark.parametrize("path", [PROJECT.rstrip("/"), f"/{CHANNEL}"])
def test_redirect_has_no_host_name(nginx: Site, path: str) -> None:
    answer = nginx.get(path, PIP_ACCEPTS)
    assert (answer.status, answer.headers["Location"]) == (301, f"{path}/")


@pytest.mark.parametrize(
    "path",
    [
        "/ledger.jsonl",
        "/whl/../../ledger.jsonl",
        "/whl/%2e%2e/%2e%2e/ledger.jsonl",
        f"/=json/{CHANNEL.removeprefix('whl/')}/",
        "/=json../ledger.jsonl",
        "/whl/cu999/",
        "/whl/cu130/torch/",
        "/files/",
    ],
)
def test_nginx_serves_only_the_index(nginx: Site, path: str) -> None:
    assert nginx.get(path, PIP_ACCEPTS).status in (400, 403, 404)


def test_a_switch_needs_no_reload(nginx: Site) -> None:
    current = nginx.store / "current"
    before = current.readlink()
    after = catalogs.read(current).with_entry(pooled(nginx.store, entry("0.5.0", python=PYTHON)))
    writer.generate(after, nginx.store / "generations" / "two", page=PAGE)
    try:
        for target, expected in (("generations/two", True), (str(before), False)):
            (nginx.store / "current.new").symlink_to(target)
            (nginx.store / "current.new").replace(current)
            for accept in (PIP_ACCEPTS, "text/html"):
                assert (b"0.5.0" in nginx.get(PROJECT, accept).body) == expected
    finally:
        shutil.rmtree(nginx.store / "generations" / "two")


TOOLS = {"pip": "--uploaded-prior-to", "uv": "--exclude-newer"}


def _install(environment: Environment, tool: str, site: Site, what: str = "nvdiffrast", *options: str) -> str:
    """Install ``what`` from the site and return the installed version."""
    command = {"pip": "pip install --index-url", "uv": "uv pip install --default-index"}[tool]
    environment.run(f"{command} {site.url}/{CHANNEL}/ {' '.join(options)} {what}")
    result = subprocess.run(
        [environment.interpreter, "-I", "-c", "import nvdiffrast; print(nvdiffrast.version)"],
        check=True,
        capture_output=True,
        text=True,
    )
    return result.stdout.strip()


@pytest.mark.parametrize("tool", TOOLS)
def test_installs_the_newest_wheel_that_is_not_yanked(environment: Environment, nginx: Site, tool: str) -> None:
    assert nginx.log is not None
    logged = len(nginx.log.read_text())
    assert _install(environment, tool, nginx) == f"0.4.2{LOCAL}"
    requests = nginx.log.read_text()[logged:].splitlines()
    # PEP 658: installers read METADATA without the wheel, and download only the chosen wheel.
    fetched = {line.rsplit("/", 1)[1] for line in requests if "/files/" in line and line.startswith("GET")}
    assert any(line.split(" ")[0].endswith(".metadata") for line in fetched)
    assert {line.split("-")[1] for line in fetched} == {f"0.4.2{LOCAL.replace('+', '%2B')}"}
    assert all(line.endswith((" 200", " 206", " 304")) for line in requests), requests


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize(("day", "release"), [("2026-03-01", "0.4.0"), ("2026-07-01", "0.4.2")])
def test_installs_the_newest_wheel_before_a_date(
    environment: Environment, nginx: Site, tool: str, day: str, release: str
) -> None:
    option = f"{TOOLS[tool]} {day}T00:00:00Z"
    assert _install(environment, tool, nginx, "nvdiffrast", option) == f"{release}{LOCAL}"


@pytest.mark.parametrize("tool", TOOLS)
def test_finds_no_wheel_before_the_first_upload(environment: Environment, nginx: Site, tool: str) -> None:
    with pytest.raises(CommandError):
        _install(environment, tool, nginx, "nvdiffrast", f"{TOOLS[tool]} 2025-12-31T00:00:00Z")


@pytest.mark.parametrize("tool", TOOLS)
def test_installs_a_yanked_wheel_by_exact_version(environment: Environment, nginx: Site, tool: str) -> None:
    assert _install(environment, tool, nginx, f"nvdiffrast==0.4.1{LOCAL}") == f"0.4.1{LOCAL}"


@pytest.mark.parametrize("tool", TOOLS)
def test_installs_only_with_the_right_hash(environment: Environment, nginx: Site, tool: str, tmp_path: Path) -> None:
    one = next(one for one in catalogs.read(nginx.store / "current").entries if one.release == "0.4.2")
    file = tmp_path / "requirements.txt"
    file.write_text(f"nvdiffrast==0.4.2{LOCAL} --hash=sha256:{'0' * 64}\n")
    with pytest.raises(CommandError):
        _install(environment, tool, nginx, f"-r {file}", "--require-hashes")
    file.write_text(f"nvdiffrast==0.4.2{LOCAL} --hash=sha256:{one.sha256}\n")
    assert _install(environment, tool, nginx, f"-r {file}", "--require-hashes") == f"0.4.2{LOCAL}"


@pytest.mark.parametrize("tool", TOOLS)
def test_installs_from_a_plain_file_server(environment: Environment, plain: Site, tool: str) -> None:
    assert plain.get(PROJECT, PIP_ACCEPTS).kind == "text/html"
    assert _install(environment, tool, plain) == f"0.4.2{LOCAL}"


def test_plain_file_server_gives_no_upload_times(environment: Environment, plain: Site) -> None:
    """HTML pages have no upload times, so pip refuses the option; only the JSON pages have them."""
    with pytest.raises(CommandError) as raised:
        _install(environment, "pip", plain, "nvdiffrast", "--uploaded-prior-to 2026-07-01")
    assert "upload-time" in raised.value.output
