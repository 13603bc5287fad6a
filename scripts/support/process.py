"""Run commands: echo each command, capture its output, and keep its last lines for the error."""

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
    """Return the executable ``name`` on ``path`` (default: PATH), or None."""
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
    """Run ``command`` and return the lines of its standard output and standard error, in order of arrival.

    Args:
        command: The program and its arguments.
        cwd: The working directory.
        env: Variables added to the environment of this process; None removes a variable.
        echo: Print the command line, without the values of ``env``, which may be secret.
        quiet: Do not show the output.
        show: Return whether a line of output is shown; by default every line is.
        log: A file to which the whole output is written.
        timeout: Kill the command after this number of seconds.
        umask: The umask of the command; -1 keeps that of this process.
        terminal: Connect standard error to the terminal, if there is one, so that the command can draw progress bars.
            Its lines are then not part of the result.
        hint: The hint of the error.

    Raises:
        CommandError: if the command cannot be started or exits with a non-zero status. The error contains the last
            lines of output.
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
            # A new process group lets the timeout kill child processes too. Without a timeout, Ctrl-C must reach them.
            start_new_session=timeout is not None and os.name == "posix",
        )
    except OSError as error:
        raise CommandError(f"cannot run {arguments[0]}: {error.strerror}", returncode=127, hint=hint) from error
    output = _Output((lambda _: False) if quiet else show or (lambda _: True))
    with process, _deadline(process, timeout) as expired:
        output.read(process)
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("".join(output.lines), encoding="utf-8")
    if expired.is_set():
        raise CommandError(f"no answer within {timeout:g} s from: {line}", returncode=124, hint=hint)
    if process.returncode:
        raise CommandError(
            f"exit status {process.returncode} from: {line}",
            returncode=process.returncode,
            output="".join(output.lines[-_KEPT_LINES:]) if quiet or show else "",
            cause=output.cause(),
            hint=hint,
        )
    return "".join(output.lines)


@dataclass
class _Output:
    """The output of a process. Both streams are read separately: merged, their order depends on the child's buffers.

    ``show`` returns whether a line is printed to standard error.
    """

    show: Callable[[str], bool]
    lines: list[str] = field(default_factory=list)
    last: dict[str, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self, process: subprocess.Popen[str]) -> None:
        """Read both streams to their ends at the same time, because a full pipe would block the process."""
        assert process.stdout is not None
        # With `terminal` there is no pipe for standard error.
        errors = threading.Thread(target=self._collect, args=("stderr", process.stderr or ()), daemon=True)
        errors.start()
        self._collect("stdout", process.stdout)
        errors.join()

    def cause(self) -> str:
        """Return the last non-blank line of standard error, else of standard output."""
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
    """Kill ``process`` after ``timeout`` seconds and set the event; None means no limit."""
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
