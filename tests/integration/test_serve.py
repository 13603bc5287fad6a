"""Tests of both servers: content negotiation of the static server, and uploads that the other accepts or refuses."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path

import pytest

from scripts.errors import PublishError
from scripts.publish import serve, stand_ins
from scripts.publish.serve import UploadIndex
from scripts.support.files import file_sha256

pytestmark = pytest.mark.integration

UV_ACCEPTS = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01"


def _get(url: str, accept: str = "*/*") -> HTTPResponse:
    request = urllib.request.Request(url, headers={"Accept": accept})
    answer = urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request)
    assert isinstance(answer, HTTPResponse)
    return answer


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """Serve a folder with an index in both forms, one only in HTML, and a file; a secret is beside the folder."""
    (tmp_path / "secret").write_text("not below the folder")
    site = tmp_path / "site"
    for folder in ("both", "plain", "bare"):
        (site / folder).mkdir(parents=True)
        (site / folder / "a.whl").write_bytes(b"wheel")
    (site / "both" / "index.json").write_text("{}")
    for folder in ("both", "plain"):
        (site / folder / "index.html").write_text("<p>html")
    with serve.static(site) as url:
        yield url


def test_static_server_negotiates_html_or_json(site: str) -> None:
    for accept, kind in (
        (UV_ACCEPTS, serve.SIMPLE_JSON),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "text/html; charset=utf-8"),
        ("*/*", "text/html; charset=utf-8"),
        (f"{serve.SIMPLE_JSON};q=0.1, text/html", "text/html; charset=utf-8"),
    ):
        answer = _get(f"{site}/both/", accept)
        assert answer.headers["Content-Type"] == kind, accept
        assert answer.headers["Vary"] == "Accept"
    assert _get(f"{site}/plain/", UV_ACCEPTS).headers["Content-Type"] == "text/html; charset=utf-8"
    assert _get(f"{site}/both/a.whl", UV_ACCEPTS).read() == b"wheel"


@pytest.mark.parametrize("path", ["/bare/", "/no/", "/../secret", "/%2e%2e/secret", "/both/a.whl/", "//../secret"])
def test_static_server_serves_only_files_of_the_index(site: str, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        _get(site + path, UV_ACCEPTS)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[UploadIndex]:
    with serve.uploads(tmp_path / "server") as running:
        yield running


def _upload(index: UploadIndex, wheel: Path, password: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {
        "TWINE_REPOSITORY_URL": index.url,
        "TWINE_USERNAME": index.user,
        "TWINE_PASSWORD": index.password() if password is None else password,
        "NO_PROXY": "127.0.0.1",
        "HOME": str(wheel.parent),
    }
    command = [sys.executable, "-m", "twine", "upload", "--non-interactive", "--disable-progress-bar", str(wheel)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_serves_an_uploaded_wheel(index: UploadIndex, tmp_path: Path) -> None:
    wheel = stand_ins.wheel(tmp_path / "dist", "nvdiffrast", "0.3.3.1+cu128.torch2.9")
    assert _upload(index, wheel).returncode == 0
    page = _get(f"{index.simple}nvdiffrast/").read().decode()
    assert f"#sha256={file_sha256(wheel)}" in page
    uploaded = tmp_path / "server" / "packages" / wheel.name
    assert uploaded.read_bytes() == wheel.read_bytes()
    # The server does not list or serve partial files and credentials.
    assert [path.name for path in uploaded.parent.iterdir()] == [wheel.name]
    for name in ("password", "htpasswd", "../password"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            _get(f"{index.url}packages/{name}")


def test_refuses_a_second_file_of_the_same_name(index: UploadIndex, tmp_path: Path) -> None:
    first = stand_ins.wheel(tmp_path / "one", "nvdiffrast", "0.3.4")
    other = stand_ins.wheel(tmp_path / "two", "nvdiffrast", "0.3.4", body="# other bytes\n")
    assert _upload(index, first).returncode == 0
    again = _upload(index, other)
    assert again.returncode != 0
    assert "400" in again.stdout + again.stderr
    assert (tmp_path / "server" / "packages" / first.name).read_bytes() == first.read_bytes()


def test_refuses_a_wrong_password(index: UploadIndex, tmp_path: Path) -> None:
    refused = _upload(index, stand_ins.wheel(tmp_path / "dist", "nvdiffrast", "0.3.4"), password="wrong")
    assert refused.returncode != 0
    assert "403" in refused.stdout + refused.stderr
    assert list((tmp_path / "server" / "packages").iterdir()) == []


def test_refuses_to_delete(index: UploadIndex, tmp_path: Path) -> None:
    """pypiserver's request to remove a package gets status 403."""
    wheel = stand_ins.wheel(tmp_path / "dist", "nvdiffrast", "0.3.4")
    assert _upload(index, wheel).returncode == 0
    passwords = urllib.request.HTTPPasswordMgrWithPriorAuth()
    passwords.add_password(None, index.url, index.user, index.password(), is_authenticated=True)
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPBasicAuthHandler(passwords)
    )
    with pytest.raises(urllib.error.HTTPError, match="403"):
        opener.open(index.url, data=b":action=remove_pkg&name=nvdiffrast&version=0.3.4")
    assert (tmp_path / "server" / "packages" / wheel.name).exists()


def test_credentials_are_private_and_kept(tmp_path: Path) -> None:
    with serve.uploads(tmp_path) as first:
        password = first.password()
    assert len(password) >= 24
    for name in ("password", "htpasswd"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert password not in (tmp_path / "htpasswd").read_text()
    with serve.uploads(tmp_path) as second:
        assert second.password() == password
    with serve.uploads(tmp_path / "another") as third:
        assert third.password() != password


def test_reports_a_taken_port(index: UploadIndex, tmp_path: Path) -> None:
    port = int(index.url.rstrip("/").rpartition(":")[2])
    with pytest.raises(PublishError, match=f"on port {port}"), serve.uploads(tmp_path / "other", port=port):
        pass


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_prints_the_usage_without_the_password(tmp_path: Path, ending: signal.Signals) -> None:
    command = [sys.executable, "-u", "-m", "scripts.publish.serve", str(tmp_path / "server"), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(4)]
        process.send_signal(ending)
        rest = process.stdout.read()
    password = (tmp_path / "server" / "password").read_text().strip()
    assert password not in "".join(lines) + rest
    assert str(tmp_path / "server" / "password") in lines[3]
    assert process.returncode == 0, rest
