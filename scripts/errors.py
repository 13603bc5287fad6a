"""Exception types of the pipeline, each with its own exit code."""

from __future__ import annotations

from typing import ClassVar


class PipelineError(Exception):
    """A failure that a maintainer can act on.

    ``str(error)`` names the place and the cause. ``hint`` names the next step, if possible as a command.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(PipelineError):
    """The command line names something that does not exist; argparse uses the same exit code."""

    exit_code = 2


class UntestedError(PipelineError):
    """No check failed, but a check could not run on this machine."""

    exit_code = 3


class MatrixError(PipelineError):
    """build_matrix.yaml or torch_builds.yaml is invalid."""

    exit_code = 10


class SourceError(PipelineError):
    """An upstream release cannot be fetched, or differs from its pin."""

    exit_code = 11


class PatchError(PipelineError):
    """A patch does not apply exactly."""

    exit_code = 12


class ToolchainError(PipelineError):
    """A toolkit, a compiler, a header or a locked requirement is missing, unlocked or unsuitable."""

    exit_code = 13


class BuildError(PipelineError):
    """The compiler or the build front end failed."""

    exit_code = 14


class RepairError(PipelineError):
    """A wheel cannot be repaired, or the repair bundled an unexpected library."""

    exit_code = 15


class AuditError(PipelineError):
    """A wheel does not match its cell."""

    exit_code = 16


class ReproduceError(PipelineError):
    """Two builds of one cell differ."""

    exit_code = 17


class CatalogError(PipelineError):
    """An index, its catalog or its store is invalid, or a file must not be added to it."""

    exit_code = 19


class PublishError(PipelineError):
    """Staging, proving, promoting or uploading was refused or failed; nothing was changed."""

    exit_code = 20


class VerifyError(PipelineError):
    """A wheel, its record, its bill of materials, its provenance and its rebuild do not agree."""

    exit_code = 21


class AdvisoryError(PipelineError):
    """A lock pins a version with a known vulnerability that no waiver covers, or a waiver is malformed."""

    exit_code = 22


class InUseError(PipelineError):
    """Another process uses the files to be deleted; nothing was deleted."""

    exit_code = 23


class CommandError(PipelineError):
    """A command exited with a non-zero status or did not start.

    ``output`` contains its last lines if they were not shown while it ran. ``cause`` is the last line of standard
    error, else of standard output, else the message of this error.
    """

    exit_code = 18

    def __init__(
        self, message: str, *, returncode: int, output: str = "", cause: str = "", hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.returncode = returncode
        self.output = output
        self.cause = cause or message
