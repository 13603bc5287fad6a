"""``nox -s prove``: install from the staged index by the very commands the page shows, in clean environments.

The staged generation is served on loopback. Beside it stands an index in place of the usual one, with small wheels
named torch and numpy, and a nvdiffrast of a higher version that must never be chosen. pip and uv must each

    install   take the one right wheel beside the torch it is for, and leave that torch alone
    refuse    a torch that has no wheel: fail, name what is supported, change nothing
    import    (--real) beside the real, locked torch: import every plugin with no compiler on PATH

A wheel without compiled code is installed from whl/cpu/ and from the channel of every CUDA, with what it needs of ours
from there as well; --real imports all its modules.

A wheel for another system, or for a Python that is not here, is untested, which the ledger says.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from scripts import console
from scripts.audit.checks.imports import PROBE
from scripts.errors import CommandError, PublishError, UntestedError
from scripts.index import catalog as catalogs
from scripts.index import ledger
from scripts.index.catalog import CPU, Catalog, Entry, PureWheel
from scripts.index.install_commands import PROJECT, commands, from_others, ours, package_commands
from scripts.index.store import Store, digest
from scripts.matrix import matrix
from scripts.model import ROOT, Cell
from scripts.publish import serve, stand_ins
from scripts.publish.generations import DEFAULT_STORE
from scripts.support import environments, interpreters, sandbox
from scripts.support.command_line import run_main
from scripts.support.host import host_platform
from scripts.support.process import call
from scripts.support.sandbox import TOOLS, Environment, Surroundings, Tool
from scripts.wheel import wheel_policy
from scripts.wheel.audit_record import OUTCOMES, Outcome

# Of no line that has a wheel; higher and lower than all, as installers try to climb and to fall back.
UNSUPPORTED = ("0.1", "9999.0")
_DECOY = "9999.0"
_CPU_TORCH = "2.14.1+cpu"
# Prints where every module of a project came from.
_IMPORT = """
import importlib, importlib.metadata, sys
files = importlib.metadata.files(sys.argv[1])
for name in sorted({file.parts[0].removesuffix(".py") for file in files if file.suffix == ".py"}):
    print(importlib.import_module(name).__file__)
"""


@dataclass(frozen=True)
class Proof:
    """One line of the result: what was asked of which tool, about what, and what came of it."""

    check: str
    tool: str
    subject: str
    outcome: Outcome
    detail: str = ""


@dataclass(frozen=True)
class Stage:
    """A generation that is being served: where, beside what, and the scratch folder of its proofs."""

    url: str
    catalog: Catalog
    surroundings: Surroundings
    scratch: Path

    @cached_property
    def here(self) -> tuple[Entry, ...]:
        """What this machine can install: of its system, for a Python that is here, and not yanked."""
        return tuple(entry for entry in self.catalog.entries if why_not_here(entry) is None)

    @cached_property
    def packages(self) -> tuple[PureWheel, ...]:
        """The wheels without compiled code that the Python that runs this can install, less what is yanked."""
        return tuple(package for package in self.catalog.packages if why_package_not_here(package) is None)

    @cached_property
    def torches(self) -> dict[str, str]:
        """The version of the stand-in for torch beside which packages are installed, by channel."""
        lines = sorted(self.catalog.entries, key=lambda entry: _as_numbers(entry.torch))
        return {CPU: _CPU_TORCH, **{entry.cuda: stand_in_torch(entry.torch, entry.cuda) for entry in lines}}

    @cached_property
    def stand_ins(self) -> tuple[str, ...]:
        """The projects that the index in place of the usual one serves as stand-ins, less those that must not win."""
        return tuple(sorted({"numpy", "torch", *_needed(self.catalog)}))

    def offered(self, like: Entry) -> set[str]:
        """The torch lines that the command for ``like`` can choose from."""
        return {
            entry.torch
            for entry in self.here
            if (entry.cuda, entry.release, entry.python) == (like.cuda, like.release, like.python)
        }


def why_not_here(entry: Entry) -> str | None:
    """Why a wheel cannot be installed on this machine, or None."""
    if entry.yanked is not None:
        return f"yanked: {entry.yanked}"
    if entry.platform != host_platform():
        return f"this machine is {host_platform()}"
    return None if interpreters.find(entry.python) else f"no CPython {entry.python} here"


def why_package_not_here(package: PureWheel) -> str | None:
    """Why a wheel without compiled code cannot be installed with the Python that runs this, or None."""
    if package.yanked is not None:
        return f"yanked: {package.yanked}"
    if package.requires_python and platform.python_version() not in SpecifierSet(package.requires_python):
        return f"this is Python {platform.python_version()}, it needs {package.requires_python}"
    return None if interpreters.find(python_line()) else f"no CPython {python_line()} here"


def stand_in_torch(line: str, cuda: str) -> str:
    """A version of that line as PyTorch's own channels name it: "2.9.1+cu128"."""
    return f"{line}.1+{cuda}"


@contextmanager
def serving(generation: Path) -> Iterator[Stage]:
    """Serve a generation, and the index of stand-ins beside it."""
    catalog = catalogs.read(generation)
    with tempfile.TemporaryDirectory(prefix="nvdiffrast-prove-") as temporary:
        scratch = Path(temporary).resolve()
        usual = scratch / "usual"
        lines = {stand_in_torch(entry.torch, entry.cuda) for entry in catalog.entries}
        for torch in sorted({*lines, *UNSUPPORTED, _CPU_TORCH}):
            stand_ins.wheel(usual, "torch", torch)
        stand_ins.wheel(usual, "numpy", "2.0")
        for name in sorted(_needed(catalog) - {"numpy", "torch"}):
            stand_ins.wheel(usual, name.replace("-", "_"), _DECOY)
        for project in sorted({PROJECT, *(package.project for package in catalog.packages)}):
            stand_ins.wheel(usual, project.replace("-", "_"), _DECOY)
        stand_ins.list_wheels(usual)
        with serve.static(generation) as url, serve.static(usual) as default_index:
            yield Stage(url, catalog, Surroundings(default_index, scratch / "cache"), scratch)


def follow_the_page(environment: Environment, tool: Tool, entry: Entry, url: str, *, index: str | None = None) -> str:
    """Run what the page shows for a wheel, line by line, and return what was printed.

    With ``index`` that simple repository stands in place of the page's own channel.
    """
    shown = commands(url, entry)
    lines = shown.pip if tool == "pip" else shown.uv
    if index is not None:
        lines = tuple(line.replace(f"{url}/whl/{entry.cuda}/", index) for line in lines)
    return "".join(environment.run(line) for line in lines)


def installs(stage: Stage, tool: Tool, entry: Entry, *, index: str | None = None) -> str:
    """Beside the torch that it is for, the wheel is chosen, and torch stays as it was.

    Raises:
        PublishError: another one was chosen, or something else changed.
        CommandError: the command failed.
    """
    environment = _environment(stage, entry, stand_in_torch(entry.torch, entry.cuda))
    before = environment.fingerprint("torch")
    follow_the_page(environment, tool, entry, stage.url, index=index)
    found = environment.installed()
    _require(before == environment.fingerprint("torch"), f"torch was touched: now {found.get('torch')}")
    wanted = entry.name.split("-")[1]
    _require(found.get(PROJECT) == wanted, f"{PROJECT} {found.get(PROJECT)} was chosen, not {wanted}")
    _require(set(found) == {PROJECT, "numpy", "torch"}, f"more was installed: {', '.join(sorted(found))}")
    return f"{PROJECT} {wanted}, beside stand-ins for numpy {found['numpy']} and torch {found['torch']} (untouched)"


def refuses(stage: Stage, tool: Tool, entry: Entry, torch: str) -> str:
    """Beside a torch that has no wheel the command fails, says which torch it knows, and changes nothing.

    Raises:
        PublishError: it did something else.
    """
    environment = _environment(stage, entry, torch, "numpy")
    before, packages = environment.fingerprint("torch"), environment.installed()
    try:
        follow_the_page(environment, tool, entry, stage.url)
    except CommandError as error:
        said = error.output
    else:
        raise PublishError(f"torch {torch} has no wheel, yet {environment.installed()} came of it")
    unnamed = sorted(line for line in stage.offered(entry) if f"torch=={line}.*" not in said)
    _require(not unnamed, f"the message does not name torch {', '.join(unnamed)}:\n{said}")
    _require(environment.installed() == packages, f"it failed, but left {environment.installed()}")
    _require(environment.fingerprint("torch") == before, "it failed, but touched torch")
    return f"named torch {', '.join(sorted(stage.offered(entry), key=_as_numbers))}"


def imports(stage: Stage, tool: Tool, entry: Entry, cell: Cell) -> str:
    """Beside the real, locked torch the wheel is chosen, and every plugin is imported with no compiler in sight.

    Raises:
        UntestedError: this torch is not locked, or a library of the system is missing.
        PublishError: another one was chosen, torch was touched, or an import failed.
        CommandError: the command failed.
    """
    lock, python = ROOT / environments.torch_lock_name(cell), interpreters.find(entry.python)
    if not lock.exists() or python is None:
        raise UntestedError(f"torch {cell.torch.version} is not locked: nox -s lock -- {lock.stem}")
    folder = environments.create(python, [lock], name=f"prove-{tool}", cache=stage.scratch)
    environment = Environment(folder, stage.surroundings)
    before = environment.installed()
    follow_the_page(environment, tool, entry, stage.url)
    after = environment.installed()
    _require(
        after == {**before, PROJECT: entry.name.split("-")[1]}, f"other packages came of it: {_changed(before, after)}"
    )
    plugins = _probe(environment, cell, stage.scratch)
    return f"torch {after['torch']}: imported {', '.join(plugins)}"


def installs_package(stage: Stage, tool: Tool, package: PureWheel, channel: str) -> str:
    """A package comes from the channel, what it needs of ours too, and torch stays as it was.

    Raises:
        PublishError: others were chosen, or something else changed.
        CommandError: the command failed.
    """
    torch = stage.torches[channel]
    python = interpreters.find(python_line())
    assert python is not None
    environment = sandbox.create(stage.scratch / "environment", python, stage.surroundings, f"torch=={torch}")
    before = environment.fingerprint("torch")
    found = _follow_for_package(environment, tool, package, stage, channel)
    _require(before == environment.fingerprint("torch"), f"torch was touched: now {found.get('torch')}")
    wanted = {*_names(from_others(package, stage.catalog.packages)), *ours(package, stage.catalog.packages), "torch"}
    _require(set(found) == wanted, f"{', '.join(sorted(found))} were installed, not {', '.join(sorted(wanted))}")
    mine = ours(package, stage.catalog.packages)
    named, others = (
        ", ".join(f"{name} {found[name]}" for name in sorted(names)) for names in (mine, wanted - mine - {"torch"})
    )
    return f"{named}, beside stand-ins for {f'{others} and ' if others else ''}torch {found['torch']} (untouched)"


def imports_package(stage: Stage, tool: Tool, package: PureWheel) -> str:
    """Beside the real, locked torch a package is installed, and all its modules are imported; then it goes again.

    Raises:
        PublishError: another one was chosen, torch was touched, or a module came from elsewhere.
        CommandError: a command or an import failed.
    """
    python = interpreters.find(python_line())
    assert python is not None
    lock = ROOT / "requirements" / "packages.txt"
    folder = environments.create(python, [lock], name=f"prove-packages-{tool}", cache=stage.scratch)
    environment = Environment(folder, stage.surroundings)
    before = _canonical(environment.installed())
    after = _follow_for_package(environment, tool, package, stage, CPU)
    new = ours(package, stage.catalog.packages)
    _require({*after.items()} - {*before.items()} == {(name, after.get(name)) for name in new}, "more was installed")
    command: list[str | Path] = [environment.interpreter, "-I", "-B", "-c", _IMPORT, package.project]
    said = call(command, env={"PATH": str(stage.scratch)}, cwd=stage.scratch, echo=False, quiet=True, timeout=600)
    modules = [Path(line) for line in said.splitlines()]
    outside = [str(module) for module in modules if not module.is_relative_to(environment.site_packages)]
    _require(bool(modules) and not outside, f"imported from elsewhere: {', '.join(outside) or 'no module'}")
    environment.run(shlex.join(["uv", "pip", "uninstall", *sorted(new)]))
    names = [module.parent.name if module.name == "__init__.py" else module.stem for module in modules]
    return f"torch {after['torch']}: imported {', '.join(names)}"


def _follow_for_package(
    environment: Environment, tool: Tool, package: PureWheel, stage: Stage, channel: str
) -> dict[str, str]:
    """Run what the page shows for a package; what is installed then, of which what is ours must be of this index."""
    shown = package_commands(stage.url, package, stage.catalog.packages, channel)
    for line in shown.pip if tool == "pip" else shown.uv:
        environment.run(line)
    found = _canonical(environment.installed())
    chosen = found.get(package.project)
    _require(chosen == package.version, f"{package.project} {chosen} was chosen, not {package.version}")
    have = {(one.project, one.version) for one in stage.catalog.packages}
    others = [name for name in ours(package, stage.catalog.packages) if (name, found.get(name)) not in have]
    _require(not others, f"not from this index: {', '.join(f'{name} {found.get(name)}' for name in others)}")
    return found


def _canonical(installed: Mapping[str, str]) -> dict[str, str]:
    return {canonicalize_name(name): version for name, version in installed.items()}


def _names(requirements: Iterable[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def _needed(catalog: Catalog) -> set[str]:
    """Everything that packages require, ours and torch left out."""
    needed = _names(text for package in catalog.packages for text in package.requires)
    return needed - {package.project for package in catalog.packages}


def _changed(before: Iterable[str], after: Iterable[str]) -> str:
    return ", ".join(sorted({*before} ^ {*after})) or "other versions"


def _probe(environment: Environment, cell: Cell, scratch: Path) -> tuple[str, ...]:
    """Import in a fresh interpreter whose PATH is empty; the kinds of plugin that came from the wheel."""
    kinds = tuple(plugin.kind for plugin in wheel_policy.for_cell(cell).plugins)
    empty, answer = scratch / "empty", scratch / "answer.json"
    empty.mkdir(exist_ok=True)
    cleared: dict[str, str | None] = dict.fromkeys(
        ("LD_LIBRARY_PATH", "LD_PRELOAD", "CUDA_HOME", "CUDA_PATH", "CC", "CXX")
    )
    variables = {**cleared, "PATH": str(empty), "HOME": str(empty), "TORCH_EXTENSIONS_DIR": str(empty)}
    command: list[str | Path] = [
        environment.interpreter,
        "-I",
        "-B",
        PROBE,
        environment.site_packages,
        answer,
        cell.release.series,
        *kinds,
    ]
    call(command, env=variables, cwd=empty, echo=False, quiet=True, timeout=600)
    found = json.loads(answer.read_text(encoding="utf-8"))
    _require("torch_error" not in found, f"torch does not import: {found.get('torch_error')}")
    for kind, plugin in found["plugins"].items():
        _require(bool(plugin.get("inside")), f"{kind} plugin: {plugin.get('error') or plugin.get('file')}")
    if found["missing_gl"] and "gl" in kinds:
        raise UntestedError(f"the GL plugin needs {', '.join(found['missing_gl'])}: apt-get install libegl1 libgl1")
    return tuple(found["plugins"])


def _environment(stage: Stage, entry: Entry, torch: str, *others: str) -> Environment:
    python = interpreters.find(entry.python)
    assert python is not None
    return sandbox.create(stage.scratch / "environment", python, stage.surroundings, f"torch=={torch}", *others)


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise PublishError(otherwise)


def _as_numbers(line: str) -> list[int]:
    return [int(part) for part in line.split(".")]


def proof(check: str, tool: str, subject: str, make: Callable[[], str]) -> Proof:
    """Return what came of ``make`` and print it at once."""
    try:
        made = Proof(check, tool, subject, "passed", make())
    except UntestedError as reason:
        made = Proof(check, tool, subject, "untested", str(reason))
    except CommandError as error:
        made = Proof(check, tool, subject, "failed", f"{error}\n{error.output}".rstrip())
    except PublishError as error:
        made = Proof(check, tool, subject, "failed", str(error))
    return _said(made)


def _said(made: Proof) -> Proof:
    console.mark(made.outcome, f"{made.check} {made.tool} {made.subject}: {made.detail}")
    return made


def stand_in_proofs(stage: Stage) -> Iterator[Proof]:
    """Every wheel that can be installed here is; what no wheel is for is refused, once a CUDA, release and Python."""
    for entry in stage.here:
        for tool in TOOLS:
            yield proof("install", tool, entry.name, partial(installs, stage, tool, entry))
    for entry in {(entry.cuda, entry.release, entry.python): entry for entry in stage.here}.values():
        beside = f"{entry.cuda}, {entry.release}, Python {entry.python}"
        for tool in TOOLS:
            for torch in UNSUPPORTED:
                yield proof("refuse", tool, f"torch {torch} ({beside})", partial(refuses, stage, tool, entry, torch))
    yield from package_proofs(stage)
    for entry in stage.catalog.entries:
        reason = why_not_here(entry)
        if reason and entry.yanked is None:
            yield _said(Proof("install", "-", entry.name, "untested", reason))


def package_proofs(stage: Stage) -> Iterator[Proof]:
    """Every package is installed from the channel of every CUDA and from that of none."""
    for package in stage.packages:
        for channel in stage.torches:
            for tool in TOOLS:
                make = partial(installs_package, stage, tool, package, channel)
                yield proof("install", tool, f"{package.name} from {channel}", make)
    for package in stage.catalog.packages:
        reason = why_package_not_here(package)
        if reason and package.yanked is None:
            yield _said(Proof("install", "-", package.name, "untested", reason))


def real_proofs(stage: Stage) -> Iterator[Proof]:
    """The wheels for the Python that runs this, beside the real torch of each."""
    cells = {cell.id: cell for cell in matrix.load().cells}
    for entry in stage.here:
        if entry.python == python_line() and entry.cell in cells:
            for tool in TOOLS:
                yield proof("import", tool, entry.name, partial(imports, stage, tool, entry, cells[entry.cell]))
    for package in stage.packages:
        for tool in TOOLS:
            yield proof("import", tool, package.name, partial(imports_package, stage, tool, package))


def python_line() -> str:
    """The Python that runs this: "3.12"."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def prove(store: Path, *, real: bool = False, by: str | None = None) -> tuple[Proof, ...]:
    """Prove what is staged and write it down; a set that was proved already is not proved again.

    Raises:
        PublishError: nothing is staged, or a proof failed; nothing was written down.
        UntestedError: nothing that is staged can be installed on this machine (or, ``real``, imported).
        UsageError: nobody is named.
    """
    place = Store(store)
    generation = place.generation("staged")
    if generation is None:
        raise PublishError(f"nothing is staged in {store}", hint="nox -s stage -- WHEEL...")
    ledger.person(by)
    catalog = place.catalog("staged")
    staged = digest(catalog)
    if _is_proved(place, catalog, real=real):
        console.log(f"generation {generation.name} was proved already, and nothing in it has changed")
        return ()
    with console.step(f"prove {generation.name}"), serving(generation) as stage:
        proofs = (*stand_in_proofs(stage), *(real_proofs(stage) if real else ()))
    judge(proofs, real=real)
    say_result(proofs, stage.stand_ins, real=real)
    installed = sorted({made.subject for made in proofs if (made.check, made.outcome) == ("install", "passed")})
    untested = sorted({made.subject for made in proofs if made.outcome == "untested"})
    told = {"installed": installed, "untested": untested, "stand_ins": list(stage.stand_ins)}
    ledger.append(store, "proved", by=by, catalog=staged, real=real, **told)
    return proofs


def _is_proved(store: Store, catalog: Catalog, *, real: bool) -> bool:
    """Whether the ledger has a proof of it, or readers see it: what was promoted had been proved."""
    if ledger.has(store.root, "proved", catalog=digest(catalog), real=True):
        return True
    return not real and (
        ledger.has(store.root, "proved", catalog=digest(catalog)) or catalog == store.catalog("current")
    )


def judge(proofs: Sequence[Proof], *, real: bool) -> None:
    """Refuse proofs of which one failed, or that prove nothing.

    Raises:
        PublishError: one failed.
        UntestedError: no wheel was installed (or, ``real``, imported).
    """
    failed = [made for made in proofs if made.outcome == "failed"]
    if failed:
        first = failed[0]
        raise PublishError(
            f"{len(failed)} of {len(proofs)} proofs failed; the first: {first.check} {first.tool} {first.subject}: "
            f"{first.detail}",
            hint="fix the wheel or the index, stage again and prove again; nothing was written down",
        )
    for check in ("install", "import") if real else ("install",):
        made = [made for made in proofs if made.check == check]
        if not any(one.outcome == "passed" for one in made):
            why = "; ".join(sorted({one.detail for one in made})) or "no wheel is for this machine"
            raise UntestedError(f"nothing that is staged could be tested here ({check}): {why}")


def say_result(proofs: Sequence[Proof], stand_ins: Sequence[str], *, real: bool) -> None:
    """Print how many proofs there were, and which packages were stand-ins; each proof was printed when it was made."""
    counts = Counter(made.outcome for made in proofs)
    total = ", ".join(f"{counts[outcome]} {outcome}" for outcome in OUTCOMES if counts[outcome])
    console.mark("info", f"{len(proofs)} proofs: {total}")
    console.mark(
        "info",
        f"stand-ins, small wheels without content, took the place of: {', '.join(stand_ins)}; "
        + ("only `import` proofs used the real, locked torch" if real else "nothing was imported, --real does that"),
    )


def main() -> int:
    """``nox -s prove -- [--store FOLDER] [--real]``."""
    parser = argparse.ArgumentParser(
        prog="nox -s prove --", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path, default=DEFAULT_STORE, help=f"({DEFAULT_STORE.name}/)")
    parser.add_argument("--real", action="store_true", help="also install beside the real, locked torch, and import")
    parser.add_argument("--by", help="who proves, for the ledger (default: git's user.name)")
    parsed = parser.parse_args()
    prove(parsed.store, real=parsed.real, by=parsed.by)
    return 0


if __name__ == "__main__":
    run_main(main, uses_cache=True)
