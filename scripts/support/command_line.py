"""Runs the main function of a command: prints errors and sets the exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext

from scripts.errors import CommandError, PipelineError
from scripts.support import files


def run_main(main: Callable[[], int | None], *, uses_cache: bool = False) -> None:
    """Run ``main`` and exit with the code it returns; print a :class:`PipelineError` with its hint.

    With ``uses_cache``, the cache is locked against `nox -s clean` while ``main`` runs.
    """
    try:
        with files.in_use() if uses_cache else nullcontext():
            sys.exit(main() or 0)
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        if isinstance(error, CommandError) and error.output:
            print(error.output.rstrip(), file=sys.stderr)
        if error.hint:
            print(f"next:  {error.hint}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted; run the same command again to continue", file=sys.stderr)
        sys.exit(130)
