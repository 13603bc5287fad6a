"""scripts.locks.advisories: the real pip-audit with a service on loopback."""

from __future__ import annotations

import importlib.util
import json
import threading
from collections.abc import Callable, Iterator
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from scripts.errors import AdvisoryError, UntestedError
from scripts.locks import advisories, generate
from scripts.locks.advisories import Waiver
from scripts.locks.generate import RequirementsLock

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("pip_audit") is None, reason="no pip-audit here: install requirements/tests.txt"
)
REASON = "only its parser is affected, which nothing here calls"


class _Service(BaseHTTPRequestHandler):
    """A service with one advisory, about demo before 2.0; it fails for the package ``down``."""

    asked: list[tuple[str, str]]

    def do_POST(self) -> None:
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name, version = query["package"]["name"], query["version"]
        self.asked.append((name, version))
        if name == "down":
            return self.send_error(503)
        content = json.dumps({"vulns": [_ADVISORY]} if (name, version) == ("demo", "1.0") else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


_ADVISORY: dict[str, Any] = {
    "id": "GHSA-demo",
    "aliases": ["CVE-2026-1"],
    "summary": "reads what it should not",
    "modified": "2026-01-01T00:00:00Z",
    "affected": [
        {
            "package": {"name": "demo", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.0"}]}],
        }
    ],
}


@pytest.fixture
def service() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Yield the URL of a service, and the list of queries that it has received."""
    asked: list[tuple[str, str]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Service,), {"asked": asked}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/query", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _lock(folder: Path, name: str, *pins: str) -> RequirementsLock:
    path = folder / f"{name}.txt"
    lines = (f"{pin} \\\n    --hash=sha256:{'a' * 64}\n" for pin in pins)
    path.write_text("--extra-index-url https://index.invalid/whl/\n" + "".join(lines))
    return RequirementsLock(name, path)


def _waivers(folder: Path, text: str) -> Path:
    path = folder / "waivers.yaml"
    path.write_text(text)
    return path


def _waiver(**changes: str) -> Waiver:
    stated = {"package": "demo", "advisory": "CVE-2026-1", "reason": REASON, "expires": "2999-01-01"}
    return Waiver(**{**stated, **changes})


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, service: tuple[str, list[tuple[str, str]]]
) -> Callable[..., int]:
    """Return a function that runs the command line with given locks and waivers."""

    def run(*chosen: RequirementsLock, waivers: tuple[Waiver, ...] = (), address: str = service[0]) -> int:
        monkeypatch.setattr(generate, "select", lambda _: chosen)
        monkeypatch.setattr(advisories, "read_waivers", lambda: waivers)
        monkeypatch.setattr("sys.argv", ["audit_locks", "--service", address])
        return advisories.main()

    return run


def test_queries_every_pin_regardless_of_its_marker(
    tmp_path: Path, run: Any, service: tuple[str, list[tuple[str, str]]]
) -> None:
    one = _lock(tmp_path, "one", "demo==2.0", "fine==3 ; os_name == 'nt'", "torch==2.9.1+cu130")
    other = _lock(tmp_path, "other", "fine==4 ; python_version < '3.0'", "demo==2.0")
    assert run(one, other, RequirementsLock("unmade", tmp_path / "none.txt")) == 0
    assert sorted(service[1]) == [("demo", "2.0"), ("fine", "3"), ("fine", "4"), ("torch", "2.9.1")]


def test_an_advisory_fails_and_names_its_locks(tmp_path: Path, run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AdvisoryError, match="without a valid waiver: 1"):
        run(_lock(tmp_path, "pipeline", "demo==1.0"), _lock(tmp_path, "tests", "demo==1.0", "fine==1"))
    output = " ".join(capsys.readouterr().out.split())
    assert "demo 1.0: CVE-2026-1 GHSA-demo, fixed in 2.0; locked in pipeline, tests" in output


@pytest.mark.parametrize("name", ["GHSA-demo", "CVE-2026-1"])
def test_a_waiver_accepts_an_advisory_by_any_of_its_names(
    tmp_path: Path, run: Any, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert run(_lock(tmp_path, "one", "demo==1.0"), waivers=(_waiver(advisory=name),)) == 0
    assert REASON in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    "waiver",
    [_waiver(expires="2020-01-01"), _waiver(package="fine"), _waiver(advisory="CVE-2026-2")],
    ids=["expired", "other package", "other advisory"],
)
def test_a_waiver_that_does_not_apply_accepts_nothing(tmp_path: Path, run: Any, waiver: Waiver) -> None:
    with pytest.raises(AdvisoryError):
        run(_lock(tmp_path, "one", "demo==1.0"), waivers=(waiver,))


def test_reports_an_expired_waiver(tmp_path: Path, run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AdvisoryError):
        run(_lock(tmp_path, "one", "demo==1.0"), waivers=(_waiver(expires="2020-01-01"),))
    assert "expired on 2020-01-01" in " ".join(capsys.readouterr().out.split())


def test_a_waiver_expires_on_its_day() -> None:
    waiver = _waiver(expires="2027-01-31")
    assert waiver.is_valid(date(2027, 1, 30))
    assert not waiver.is_valid(date(2027, 1, 31))


def test_reports_a_waiver_without_an_advisory(tmp_path: Path, run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(_lock(tmp_path, "one", "fine==1"), waivers=(_waiver(),)) == 0
    assert "no queried version has it" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("address", [None, "http://127.0.0.1:9/v1/query"], ids=["out of order", "not there"])
def test_a_service_that_does_not_answer_is_untested(tmp_path: Path, run: Any, address: str | None) -> None:
    more = {"address": address} if address else {}
    with pytest.raises(UntestedError, match="could not be queried"):
        run(_lock(tmp_path, "one", "demo==2.0", "down==1"), **more)


@pytest.mark.parametrize(
    "answer", [{"name": "a", "skip_reason": "not on the index"}, {"name": "a", "version": "2", "vulns": []}]
)
def test_a_pin_without_an_answer_is_untested(answer: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """pip-audit can skip a pin and report that in its answers."""

    def pretend(command: list[Any], **_: object) -> str:
        Path(command[command.index("--output") + 1]).write_text(json.dumps({"dependencies": [answer]}))
        return ""

    monkeypatch.setattr(advisories, "call", pretend)
    with pytest.raises(UntestedError, match="no answer about a 1"):
        advisories.query([("a", "1")], "http://127.0.0.1:9/")


def test_queries_two_versions_of_a_name_separately() -> None:
    pins = [("a", "1"), ("a", "2"), ("b", "1"), ("a", "3"), ("b", "2")]
    made = advisories.split_versions(pins)
    assert sorted(pin for some in made for pin in some) == sorted(pins)
    assert len(made) == 3
    assert all(len({name for name, _ in some}) == len(some) for some in made)


def test_reads_the_committed_waivers() -> None:
    advisories.read_waivers()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "waivers.yaml:1:1"),
        ("waivers: {}", "must contain the list"),
        ("waivers: []\nmore: 1", "must contain the list"),
        ("waivers:\n  - {package: a, advisory: b, reason: short, expires: '2027-01-01'}", "2:39: waivers[0].reason"),
        (f"waivers:\n  - {{package: a, advisory: b, reason: {REASON!r}}}", "waivers[0].expires: Field required"),
        (f"waivers:\n  - {{package: a, advisory: b, reason: {REASON!r}, expires: '2027-13-01'}}", "month must be"),
        (f"waivers:\n  - {{package: a, advisory: b, reason: {REASON!r}, expires: 2027-01-01}}", "waivers[0].expires"),
        (f"waivers:\n  - {{package: a, advisory: b, reason: {REASON!r}, expires: '2027-01-01', by: me}}", "[0].by"),
        ("waivers: [", "not YAML"),
    ],
)
def test_reports_the_position_of_a_malformed_waiver(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(AdvisoryError) as caught:
        advisories.read_waivers(_waivers(tmp_path, text))
    assert message in str(caught.value)
    assert "waivers.yaml" in str(caught.value.hint)
