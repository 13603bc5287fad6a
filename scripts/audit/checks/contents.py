"""Checks of the members of the wheel: plugins, sources and unexpected files."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from scripts.audit.checks import Subject
from scripts.wheel.wheel_policy import matches

_SOURCE = re.compile(r"\.(?:cu|cpp|h|hpp|inl)$")
_INCLUDE = re.compile(rb'^[ \t]*#[ \t]*include[ \t]+"([^"\n]+)"', re.MULTILINE)


def plugins(subject: Subject) -> Iterator[str]:
    """Check that the wheel contains each plugin of the release exactly once, for this Python."""
    for plugin in subject.policy.plugins:
        names = [plugin.member + suffix for suffix in subject.policy.suffixes]
        count = sum(name in subject.wheel.files for name in names)
        if count != 1:
            yield f"the {plugin.kind} plugin occurs {count} times instead of once; expected {' or '.join(names)}"


def members(subject: Subject) -> Iterator[str]:
    """Check for unexpected top-level members, for data of upstream's samples, and for modules with invalid names."""
    allowed = (*subject.policy.top_level, subject.wheel.dist_info)
    # On Windows the CUDA runtime is beside a top-level module. Another check covers the bundled libraries.
    names = {name.partition("/")[0] for name in subject.wheel.files if "/" in name or name not in subject.bundled}
    unexpected = [name for name in sorted(names) if not matches(name, allowed)]
    unexpected += [name for name in subject.wheel.files if matches(name, subject.policy.forbidden)]
    yield from (f"{name} must not be in the wheel" for name in unexpected)
    modules = (name for name in subject.wheel.files if name.endswith(".py") and name not in subject.policy.not_imported)
    yield from (f"{name} is not a valid module name" for name in modules if not _is_importable(name))


def sources(subject: Subject) -> Iterator[str]:
    """Check that all files that upstream's just-in-time fallback compiles and includes are in the wheel."""
    files = subject.wheel.files
    if not subject.policy.sources:
        return
    yield from (f"{name} is missing: the just-in-time fallback needs it" for name in _missing(subject))
    folders = {posixpath.dirname(name) for name in files}
    for name in files:
        if not (_SOURCE.search(name) and name.startswith(_folders(subject))):
            continue
        for include in _INCLUDE.findall(subject.wheel.read(name)):
            header = posixpath.normpath(posixpath.join(posixpath.dirname(name), include.decode("utf-8", "replace")))
            # A header whose folder is missing belongs to another project, such as TensorFlow.
            if header not in files and posixpath.dirname(header) in folders:
                yield f"{header} is missing: {name} includes it"


def _is_importable(name: str) -> bool:
    return all(part.isidentifier() for part in name.removesuffix(".py").split("/"))


def _missing(subject: Subject) -> list[str]:
    return [name for name in subject.policy.sources if name not in subject.wheel.files]


def _folders(subject: Subject) -> tuple[str, ...]:
    return tuple({posixpath.dirname(name) + "/" for name in subject.policy.sources})
