"""One type per kind of failure: what went wrong, the next step, and an exit code of its own."""

from __future__ import annotations

from typing import ClassVar


class PipelineError(Exception):
    """A failure that a maintainer can act on.

    ``str(error)`` names the place and the cause; ``hint`` is the next step, a command where there is one.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(PipelineError):
    """The command line asks for something that does not exist (also argparse's own code)."""

    exit_code = 2


class UntestedError(PipelineError):
    """Nothing failed, but something could not be checked here."""

    exit_code = 3


class MatrixError(PipelineError):
    """build_matrix.yaml or the table of torch builds is wrong."""

    exit_code = 10


class SourceError(PipelineError):
    """An upstream release cannot be had, or is not what its pin says."""

    exit_code = 11


class PatchError(PipelineError):
    """A patch of a series does not apply exactly."""

    exit_code = 12


class ToolchainError(PipelineError):
    """A toolkit, a compiler, a header or a locked requirement is missing, unlocked or unsuitable."""

    exit_code = 13


class BuildError(PipelineError):
    """The compiler or the build front end failed."""

    exit_code = 14


class RepairError(PipelineError):
    """A wheel cannot be repaired, or something unexpected was bundled."""

    exit_code = 15


class AuditError(PipelineError):
    """A wheel is not what its cell says."""

    exit_code = 16


class ReproduceError(PipelineError):
    """Two builds of one cell differ."""

    exit_code = 17


class CatalogError(PipelineError):
    """An index, its catalog or its store is not what it must be; or something must not go into it."""

    exit_code = 19


class PublishError(PipelineError):
    """Staging, proving, promoting or uploading was refused or failed; what was there before is there still."""

    exit_code = 20


class VerifyError(PipelineError):
    """A wheel, its record, its bill of materials, its provenance or its rebuild do not agree."""

    exit_code = 21


class AdvisoryError(PipelineError):
    """A lock pins something with a known vulnerability that is not waived, or a waiver is malformed."""

    exit_code = 22


class InUseError(PipelineError):
    """What was to be removed is in use by another process; nothing was removed."""

    exit_code = 23


class CommandError(PipelineError):
    """A command exited non-zero or did not start.

    ``output`` holds the last lines that it printed and that were not shown while it ran. ``cause`` is the line that
    says why it failed: the last line of standard error, else of standard output, else this error's own message.
    """

    exit_code = 18

    def __init__(
        self, message: str, *, returncode: int, output: str = "", cause: str = "", hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.returncode = returncode
        self.output = output
        self.cause = cause or message
