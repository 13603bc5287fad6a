"""scripts.support.process: the output of a command, and the cause of a failure."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from scripts.errors import CommandError
from scripts.support.process import call

# A child process buffers standard output in a pipe until it ends, so that its errors arrive first.
BUFFERED = "import sys; print('progress'); sys.stderr.write('the cause\\n'); sys.exit(3)"


@pytest.fixture(autouse=True)
def buffered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)


def test_both_streams_are_returned() -> None:
    printed = call([sys.executable, "-c", "import sys; print('one'); print('two', file=sys.stderr)"], quiet=True)
    assert sorted(printed.splitlines()) == ["one", "two"]


@pytest.mark.parametrize("options", [[], ["-u"]], ids=["error first", "error last"])
def test_the_cause_of_a_failure_is_the_last_line_of_standard_error(options: list[str]) -> None:
    with pytest.raises(CommandError) as caught:
        call([sys.executable, *options, "-c", BUFFERED], quiet=True)
    assert caught.value.cause == "the cause"
    assert sorted(caught.value.output.split("\n")) == ["", "progress", "the cause"]


def test_the_cause_without_standard_error_is_the_last_line_of_standard_output() -> None:
    with pytest.raises(CommandError) as caught:
        call([sys.executable, "-c", "print('one'); print('two'); print(); raise SystemExit(1)"], quiet=True)
    assert caught.value.cause == "two"


def test_the_cause_without_output_is_the_exit_status() -> None:
    with pytest.raises(CommandError) as caught:
        call([sys.executable, "-c", "raise SystemExit(7)"], quiet=True)
    assert caught.value.cause == str(caught.value)
    assert caught.value.returncode == 7


def test_a_log_contains_both_streams(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "log"
    with pytest.raises(CommandError):
        call([sys.executable, "-c", BUFFERED], quiet=True, log=log)
    assert sorted(log.read_text().splitlines()) == ["progress", "the cause"]


def test_much_output_on_both_streams_does_not_block() -> None:
    """A pipe buffers 64 KiB on Linux; reading one stream after the other would block."""
    code = "import sys\nfor _ in range(4000): print('o' * 60); sys.stderr.write('e' * 60 + '\\n')"
    printed = call([sys.executable, "-c", code], quiet=True, timeout=120)
    assert printed.count("o" * 60) == printed.count("e" * 60) == 4000
