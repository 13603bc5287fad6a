"""The one place that runs commands: echoes each, keeps its last lines for the error."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Mapping, Sequence
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
    env: Mapping[str, str] | None = None,
    echo: bool = True,
    quiet: bool = False,
    mend: str | None = None,
) -> str:
    """Run ``command`` to its end and return its standard output and error, interleaved.

    ``env`` is added to this process's environment. The command line is echoed (values of ``env`` are not: they may be
    secret); the output is passed through as it comes unless ``quiet``.

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
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
    except OSError as error:
        raise CommandError(f"cannot run {arguments[0]}: {error.strerror}", returncode=127, mend=mend) from error
    output: list[str] = []
    kept: deque[str] = deque(maxlen=_KEPT_LINES)
    assert process.stdout is not None
    with process:
        for text in process.stdout:
            output.append(text)
            kept.append(text)
            if not quiet:
                sys.stderr.write(text)
    if process.returncode:
        raise CommandError(
            f"exit status {process.returncode} from: {line}",
            returncode=process.returncode,
            output="".join(kept) if quiet else "",
            mend=mend,
        )
    return "".join(output)
