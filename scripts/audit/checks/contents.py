"""What the wheel holds: the plugins, the sources for the fallback, nothing that does not belong."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from scripts.audit.checks import Subject
from scripts.wheel.wheel_policy import matches

_SOURCE = re.compile(r"\.(?:cu|cpp|h|hpp|inl)$")
_INCLUDE = re.compile(rb'^[ \t]*#[ \t]*include[ \t]+"([^"\n]+)"', re.MULTILINE)


def plugins(subject: Subject) -> Iterator[str]:
    """Every plugin that the release has is there, for this Python, once."""
    for plugin in subject.policy.plugins:
        wanted = [plugin.member + suffix for suffix in subject.policy.suffixes]
        count = sum(name in subject.wheel.files for name in wanted)
        if count != 1:
            yield f"the {plugin.kind} plugin is there {count} times; looked for {' and '.join(wanted)}"


def members(subject: Subject) -> Iterator[str]:
    """At the top there is the package and what belongs to it; nothing is upstream's samples' or cannot be imported."""
    allowed = (*subject.policy.top_level, subject.wheel.dist_info)
    # On Windows the runtime of a module at the top level lies beside it; bundled libraries have a check of their own.
    names = {name.partition("/")[0] for name in subject.wheel.files if "/" in name or name not in subject.bundled}
    strangers = [name for name in sorted(names) if not matches(name, allowed)]
    strangers += [name for name in subject.wheel.files if matches(name, subject.policy.forbidden)]
    yield from (f"{name} does not belong into the wheel" for name in strangers)
    modules = (name for name in subject.wheel.files if name.endswith(".py") and name not in subject.policy.not_imported)
    yield from (f"{name} cannot be imported by that name" for name in modules if not _is_importable(name))


def sources(subject: Subject) -> Iterator[str]:
    """What upstream's just-in-time fallback compiles is there, with every header of its own that it includes."""
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
            # A folder that is not there either is another project's (TensorFlow's, for one, is mentioned).
            if header not in files and posixpath.dirname(header) in folders:
                yield f"{header} is missing: {name} includes it"


def _is_importable(name: str) -> bool:
    return all(part.isidentifier() for part in name.removesuffix(".py").split("/"))


def _missing(subject: Subject) -> list[str]:
    return [name for name in subject.policy.sources if name not in subject.wheel.files]


def _folders(subject: Subject) -> tuple[str, ...]:
    return tuple({posixpath.dirname(name) + "/" for name in subject.policy.sources})
