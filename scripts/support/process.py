"""The one place that runs commands: echoes each command and keeps its last lines for the error."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from scripts.errors import CommandError

_KEPT_LINES = 40


def which(name: str, path: str | None = None) -> Path | None:
    """The executable ``name`` on ``path`` (default: PATH), or None."""
    found = shutil.which(name, path=path)
    return Path(found) if found else None


def call(
    command: Sequence[str | os.PathLike[str]],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str | None] | None = None,
    echo: bool = True,
    quiet: bool = False,
    show: Callable[[str], bool] | None = None,
    log: Path | None = None,
    timeout: float | None = None,
    umask: int = -1,
    terminal: bool = False,
    hint: str | None = None,
) -> str:
    """Run ``command`` to its end and return the lines of standard output and standard error, in order of arrival.

    ``env`` is added to this process's environment; None takes a variable away. The command line is echoed (values of
    ``env`` are not: they may be secret); the output is passed through as it comes, unless ``quiet`` or where ``show``
    says no to a line, and all of it is written to ``log`` as well. After ``timeout`` seconds the command is killed.
    ``umask`` is the command's own; -1 is ours. With ``terminal`` the command writes its standard error straight to our
    terminal, if there is one, so that it can draw progress bars; what it writes there is not part of the result.

    Raises:
        CommandError: the command is not there, or exited non-zero; it carries the last lines of output.
    """
    arguments = [os.fspath(part) for part in command]
    line = shlex.join(arguments)
    if echo:
        print(f"+ {line}", file=sys.stderr, flush=True)
    try:
        process = subprocess.Popen(
            arguments,
            cwd=cwd,
            env={name: value for name, value in {**os.environ, **(env or {})}.items() if value is not None},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=None if terminal and sys.stderr.isatty() else subprocess.PIPE,
            umask=umask,
            text=True,
            encoding="utf-8",
            errors="replace",
            # A group of its own, so that the deadline also ends what the command started; else Ctrl-C must reach it.
            start_new_session=timeout is not None and os.name == "posix",
        )
    except OSError as error:
        raise CommandError(f"cannot run {arguments[0]}: {error.strerror}", returncode=127, hint=hint) from error
    said = _Said((lambda _: False) if quiet else show or (lambda _: True))
    with process, _deadline(process, timeout) as expired:
        said.read(process)
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("".join(said.lines), encoding="utf-8")
    if expired.is_set():
        raise CommandError(f"no answer within {timeout:g} s from: {line}", returncode=124, hint=hint)
    if process.returncode:
        raise CommandError(
            f"exit status {process.returncode} from: {line}",
            returncode=process.returncode,
            output="".join(said.lines[-_KEPT_LINES:]) if quiet or show else "",
            cause=said.cause(),
            hint=hint,
        )
    return "".join(said.lines)


@dataclass
class _Said:
    """What a process printed. The streams are read apart: merged, their order would depend on the child's buffers.

    ``show`` decides for each line whether it is passed through to standard error.
    """

    show: Callable[[str], bool]
    lines: list[str] = field(default_factory=list)
    last: dict[str, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self, process: subprocess.Popen[str]) -> None:
        """Read both streams to their ends, at the same time: a full pipe would stop the process."""
        assert process.stdout is not None
        # With `terminal` the command has the terminal itself in place of a pipe.
        errors = threading.Thread(target=self._collect, args=("stderr", process.stderr or ()), daemon=True)
        errors.start()
        self._collect("stdout", process.stdout)
        errors.join()

    def cause(self) -> str:
        """Return the last line of standard error, else of standard output; blank lines do not count."""
        return self.last.get("stderr") or self.last.get("stdout") or ""

    def _collect(self, stream: str, lines: Iterable[str]) -> None:
        for line in lines:
            with self._lock:
                self.lines.append(line)
                self.last[stream] = line.strip() or self.last.get(stream, "")
                if self.show(line):
                    sys.stderr.write(line)


@contextmanager
def _deadline(process: subprocess.Popen[str], timeout: float | None) -> Iterator[threading.Event]:
    """Kill ``process`` after ``timeout`` seconds and set the event; None waits for ever."""
    expired = threading.Event()

    def expire() -> None:
        if process.poll() is None:
            expired.set()
            if os.name == "posix":
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()

    if timeout is None:
        yield expired
        return
    timer = threading.Timer(timeout, expire)
    timer.daemon = True
    timer.start()
    try:
        yield expired
    finally:
        timer.cancel()
