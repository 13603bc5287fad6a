"""Explains why a compiled module, torch or numpy cannot be imported; imported only after a failure or by the doctor."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from . import (
    _driver_problems,
    _hints,
    _installation,
    _library_problems,
    _package_problems,
    _paths,
    _refusals,
    _versions,
    _wheel_problems,
)
from ._problem import IMPORTABLE_CODES, TROUBLESHOOTING, Facts, Problem, first_line, with_hint

_WINDOWS_NUMBER = re.compile(r"\[WinError (\d+)\]")
_Finder = Callable[[Facts], Iterable[Problem]]
# The likeliest cause comes first. A missing file explains a broken torch, so files come before torch.
_FINDERS: tuple[_Finder, ...] = (
    _wheel_problems.find_module_of_other_python,
    _library_problems.find_refusals,
    _package_problems.find_other_torch,
    _library_problems.find_faulty_files,
    _package_problems.find_broken_torch,
    _wheel_problems.find_mixed_wheels,
    _library_problems.find_missing_symbols,
    _wheel_problems.find_unreadable_build_info,
    _wheel_problems.find_copies,
)


def explain(file: Path, error: BaseException) -> str:
    """Return the message for a compiled module whose file exists but cannot be imported."""
    facts = _collect_facts(file, error, number=_refusals.windows_error(file))
    return _message(f"{file} cannot be imported: {error}", _find(facts, _FINDERS), facts)


def explain_absence(name: str) -> str:
    """Return the message for a compiled module that is absent and must not be compiled."""
    facts = _collect_facts(_paths.PACKAGE, None)

    def find_absence(facts: Facts) -> Iterator[Problem]:
        yield _wheel_problems.find_absence(name, facts)

    problems = _find(facts, (find_absence, _wheel_problems.find_damaged_build_info))
    headline = f"the compiled module {name} is neither in {_paths.PACKAGE / 'torch'} nor in {_paths.SITE_PACKAGES}"
    return _message(headline, problems, facts)


def explain_requirement(name: str, error: BaseException) -> str:
    """Return the message for torch or numpy, which cannot be imported."""
    facts = _collect_facts(_paths.PACKAGE, error)
    finders: tuple[_Finder, ...] = (
        _wheel_problems.find_wheel_of_other_python,
        _library_problems.find_refusals,
        *((_package_problems.find_numpy_problem,) if name == "numpy" else ()),
        # A user without numpy often has no torch either, so torch is examined in both cases.
        _package_problems.find_absent_torch,
        _package_problems.find_broken_torch,
    )
    return _message(f"{name} cannot be imported: {first_line(facts.text)}", _find(facts, finders), facts)


def examine(file: Path, error: BaseException | None = None, *, device: bool = True) -> list[Problem]:
    """Return every problem of a compiled module, likeliest cause first; empty if it has no problem.

    The function never raises an error; a fault of the diagnosis is reported as a problem of unknown cause.
    error: the error of the module's import, or None if the import succeeded; device: also examine driver and GPUs.
    """
    return _find(_collect_facts(file, error), (*_FINDERS, _find_driver_problems) if device else _FINDERS)


def _collect_facts(file: Path, error: BaseException | None, number: int | None = None) -> Facts:
    info, info_error = _installation.build_info()
    torch = _installation.torch_facts(imported=True)
    stated = _WINDOWS_NUMBER.search(str(error or ""))
    number = number or getattr(error, "winerror", None) or (int(stated[1]) if stated else None)
    return Facts(file, error, info, info_error, torch, _installation.python_tag(), number)


def _find(facts: Facts, finders: Sequence[_Finder]) -> list[Problem]:
    """Return the problems that the finders find; a problem of unknown cause comes first if they do not explain it."""
    try:
        found = [problem for finder in finders for problem in finder(facts)]
    except Exception as failure:  # a fault of the diagnosis must not hide the error of the import
        summary = f"{facts.file} cannot be examined: {failure!r}"
        return [with_hint("unknown", summary, (facts.text,), facts.reinstall())]
    if facts.error is not None and not any(problem.code not in IMPORTABLE_CODES for problem in found):
        found.insert(0, with_hint("unknown", "the cause is unknown", (facts.text,), facts.reinstall()))
    return found


def _find_driver_problems(facts: Facts) -> list[Problem]:
    return _driver_problems.find(_installation.driver(), _installation.devices(), facts.info)


def _message(headline: str, problems: list[Problem], facts: Facts) -> str:
    """Return the whole message: the failure, its causes, the versions at build time and now, and the next command."""
    first = problems[0]
    lines = [f"nvdiffrast: {headline}", f"[{first.code}] {first.summary}"]
    lines += [f"  {detail}" for detail in first.details]
    lines += [f"also [{other.code}] {other.summary}" for other in problems[1:]]
    lines += _comparison(facts) if facts.info else []
    lines.append(f"more: heading {first.code} in {TROUBLESHOOTING} of nvdiffrast-wheels")
    command = first.hint or ("" if _hints.is_frozen() else _hints.run_doctor().command)
    return "\n".join([*lines, f"next: {command}"] if command else lines)


def _comparison(facts: Facts) -> list[str]:
    """Return a table of the versions that the wheel was built for and the versions that are installed."""
    info, torch = facts.info or {}, facts.torch or {}
    installed = torch.get("version")
    if torch.get("error"):
        installed = f"cannot be imported ({first_line(str(torch['error']))})"
    same_torch = _versions.torch_line(info.get("torch")) == _versions.torch_line(installed)
    same_cuda = _versions.cuda_major(info.get("cuda")) == _versions.cuda_major(torch.get("cuda"))
    rows = [
        ("", "built for", "installed", True),
        ("Python", info.get("python"), facts.python, info.get("python") == facts.python),
        ("torch", info.get("torch"), installed, same_torch),
        ("CUDA of torch", info.get("cuda"), torch.get("cuda"), same_cuda),
    ]
    cells = [(row[0], str(row[1]), str(row[2] or "none"), "" if row[3] else "<- differs") for row in rows]
    name, built, found = (max(len(row[column]) for row in cells) for column in range(3))
    return [f"  {row[0]:{name}}  {row[1]:{built}}  {row[2]:{found}}  {row[3]}".rstrip() for row in cells]
