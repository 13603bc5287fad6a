"""``nox -s prove``: install from the staged index in clean environments, with exactly the commands that the page shows.

The staged generation is served on loopback. A second index stands in for PyPI: it has small wheels named torch and
numpy, and a nvdiffrast of a higher version that must never be chosen. pip and uv must each pass these proofs:

    install   beside the torch that a wheel is for, that wheel is chosen and torch is not changed
    refuse    beside a torch without a wheel, the command fails, names the supported torch versions, changes nothing
    import    (--real) beside the real, locked torch, every plugin is imported with no compiler on PATH

A wheel without compiled code is installed from whl/cpu/ and from the channel of every CUDA, with the packages of this
index that it requires; --real imports all its modules.

A wheel for another system, or for a Python that is not installed, is untested, and the ledger records that.
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

# Versions of torch without a wheel: one lower and one higher than all, since installers try both directions.
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
    """The result of one proof: the kind of check, the tool, the wheel or version under test, and the outcome."""

    check: str
    tool: str
    subject: str
    outcome: Outcome
    detail: str = ""


@dataclass(frozen=True)
class ServedIndex:
    """A generation that is being served: its URL, its catalog, the tools' surroundings, and a scratch folder."""

    url: str
    catalog: Catalog
    surroundings: Surroundings
    scratch: Path

    @cached_property
    def here(self) -> tuple[Entry, ...]:
        """Return the wheels that this machine can install: for its system and an installed Python, and not yanked."""
        return tuple(entry for entry in self.catalog.entries if why_not_here(entry) is None)

    @cached_property
    def packages(self) -> tuple[PureWheel, ...]:
        """Return the wheels without compiled code that the running Python can install, except yanked ones."""
        return tuple(package for package in self.catalog.packages if why_package_not_here(package) is None)

    @cached_property
    def torches(self) -> dict[str, str]:
        """Return by channel the version of the torch stand-in beside which packages are installed."""
        lines = sorted(self.catalog.entries, key=lambda entry: _as_numbers(entry.torch))
        return {CPU: _CPU_TORCH, **{entry.cuda: stand_in_torch(entry.torch, entry.cuda) for entry in lines}}

    @cached_property
    def stand_ins(self) -> tuple[str, ...]:
        """Return the projects whose stand-ins may be installed; wheels that must never be chosen are not listed."""
        return tuple(sorted({"numpy", "torch", *_needed(self.catalog)}))

    def offered(self, like: Entry) -> set[str]:
        """Return the torch versions ("2.11") that the command for ``like`` can choose from."""
        return {
            entry.torch
            for entry in self.here
            if (entry.cuda, entry.release, entry.python) == (like.cuda, like.release, like.python)
        }


def why_not_here(entry: Entry) -> str | None:
    """Return why a wheel cannot be installed on this machine, or None if it can."""
    if entry.yanked is not None:
        return f"yanked: {entry.yanked}"
    if entry.platform != host_platform():
        return f"this machine is {host_platform()}"
    return None if interpreters.find(entry.python) else f"CPython {entry.python} is not installed"


def why_package_not_here(package: PureWheel) -> str | None:
    """Return why a wheel without compiled code cannot be installed with the running Python, or None if it can."""
    if package.yanked is not None:
        return f"yanked: {package.yanked}"
    if package.requires_python and platform.python_version() not in SpecifierSet(package.requires_python):
        return f"this is Python {platform.python_version()}, it needs {package.requires_python}"
    return None if interpreters.find(python_line()) else f"CPython {python_line()} is not installed"


def stand_in_torch(line: str, cuda: str) -> str:
    """Return a torch version in the notation of PyTorch's channels: "2.9.1+cu128"."""
    return f"{line}.1+{cuda}"


@contextmanager
def serving(generation: Path) -> Iterator[ServedIndex]:
    """Serve a generation, and an index of stand-ins in place of PyPI."""
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
            yield ServedIndex(url, catalog, Surroundings(default_index, scratch / "cache"), scratch)


def follow_the_page(environment: Environment, tool: Tool, entry: Entry, url: str, *, index: str | None = None) -> str:
    """Run the page's commands for a wheel, and return their output.

    With ``index`` that simple repository replaces the page's channel.
    """
    shown = commands(url, entry)
    lines = shown.pip if tool == "pip" else shown.uv
    if index is not None:
        lines = tuple(line.replace(f"{url}/whl/{entry.cuda}/", index) for line in lines)
    return "".join(environment.run(line) for line in lines)


def installs(served: ServedIndex, tool: Tool, entry: Entry, *, index: str | None = None) -> str:
    """Check that beside its torch the wheel is chosen, and that torch is not changed; return a summary.

    Raises:
        PublishError: if another wheel was chosen, or another package was installed or changed.
        CommandError: if the command fails.
    """
    environment = _environment(served, entry, stand_in_torch(entry.torch, entry.cuda))
    before = environment.fingerprint("torch")
    follow_the_page(environment, tool, entry, served.url, index=index)
    found = environment.installed()
    _require(before == environment.fingerprint("torch"), f"torch was changed: now {found.get('torch')}")
    wanted = entry.name.split("-")[1]
    _require(found.get(PROJECT) == wanted, f"{PROJECT} {found.get(PROJECT)} was chosen, not {wanted}")
    _require(set(found) == {PROJECT, "numpy", "torch"}, f"other packages were installed: {', '.join(sorted(found))}")
    return f"{PROJECT} {wanted}, beside stand-ins for numpy {found['numpy']} and torch {found['torch']} (untouched)"


def refuses(served: ServedIndex, tool: Tool, entry: Entry, torch: str) -> str:
    """Check that beside a torch without a wheel the command fails, names the supported torch, and changes nothing.

    Raises:
        PublishError: if it does anything else.
    """
    environment = _environment(served, entry, torch, "numpy")
    before, packages = environment.fingerprint("torch"), environment.installed()
    try:
        follow_the_page(environment, tool, entry, served.url)
    except CommandError as error:
        output = error.output
    else:
        raise PublishError(f"torch {torch} has no wheel, but the command installed {environment.installed()}")
    unnamed = sorted(line for line in served.offered(entry) if f"torch=={line}.*" not in output)
    _require(not unnamed, f"the message does not name torch {', '.join(unnamed)}:\n{output}")
    _require(environment.installed() == packages, f"the command failed, but left {environment.installed()}")
    _require(environment.fingerprint("torch") == before, "the command failed, but changed torch")
    return f"named torch {', '.join(sorted(served.offered(entry), key=_as_numbers))}"


def imports(served: ServedIndex, tool: Tool, entry: Entry, cell: Cell) -> str:
    """Check that beside the real, locked torch the wheel is chosen, and that every plugin imports without a compiler.

    Raises:
        UntestedError: if this torch is not locked, or a library of the system is missing.
        PublishError: if another wheel was chosen, torch was changed, or an import failed.
        CommandError: if the command fails.
    """
    lock, python = ROOT / environments.torch_lock_name(cell), interpreters.find(entry.python)
    if not lock.exists() or python is None:
        raise UntestedError(f"torch {cell.torch.version} is not locked: nox -s lock -- {lock.stem}")
    folder = environments.create(python, [lock], name=f"prove-{tool}", cache=served.scratch)
    environment = Environment(folder, served.surroundings)
    before = environment.installed()
    follow_the_page(environment, tool, entry, served.url)
    after = environment.installed()
    _require(
        after == {**before, PROJECT: entry.name.split("-")[1]},
        f"other packages were changed: {_changed(before, after)}",
    )
    plugins = _probe(environment, cell, served.scratch)
    return f"torch {after['torch']}: imported {', '.join(plugins)}"


def installs_package(served: ServedIndex, tool: Tool, package: PureWheel, channel: str) -> str:
    """Check that a package and the packages of this index that it requires come from the channel; torch is not changed.

    Raises:
        PublishError: if other wheels were chosen, or another package was installed or changed.
        CommandError: if the command fails.
    """
    torch = served.torches[channel]
    python = interpreters.find(python_line())
    assert python is not None
    environment = sandbox.create(served.scratch / "environment", python, served.surroundings, f"torch=={torch}")
    before = environment.fingerprint("torch")
    found = _follow_for_package(environment, tool, package, served, channel)
    _require(before == environment.fingerprint("torch"), f"torch was changed: now {found.get('torch')}")
    wanted = {*_names(from_others(package, served.catalog.packages)), *ours(package, served.catalog.packages), "torch"}
    _require(set(found) == wanted, f"{', '.join(sorted(found))} were installed, not {', '.join(sorted(wanted))}")
    mine = ours(package, served.catalog.packages)
    named, others = (
        ", ".join(f"{name} {found[name]}" for name in sorted(names)) for names in (mine, wanted - mine - {"torch"})
    )
    return f"{named}, beside stand-ins for {f'{others} and ' if others else ''}torch {found['torch']} (untouched)"


def imports_package(served: ServedIndex, tool: Tool, package: PureWheel) -> str:
    """Install a package beside the real, locked torch, import all its modules, and uninstall it.

    Raises:
        PublishError: if another wheel was chosen, torch was changed, or a module was imported from elsewhere.
        CommandError: if a command or an import fails.
    """
    python = interpreters.find(python_line())
    assert python is not None
    lock = ROOT / "requirements" / "packages.txt"
    folder = environments.create(python, [lock], name=f"prove-packages-{tool}", cache=served.scratch)
    environment = Environment(folder, served.surroundings)
    before = _canonical(environment.installed())
    after = _follow_for_package(environment, tool, package, served, CPU)
    new = ours(package, served.catalog.packages)
    _require(
        {*after.items()} - {*before.items()} == {(name, after.get(name)) for name in new},
        "other packages were installed",
    )
    command: list[str | Path] = [environment.interpreter, "-I", "-B", "-c", _IMPORT, package.project]
    output = call(command, env={"PATH": str(served.scratch)}, cwd=served.scratch, echo=False, quiet=True, timeout=600)
    modules = [Path(line) for line in output.splitlines()]
    outside = [str(module) for module in modules if not module.is_relative_to(environment.site_packages)]
    _require(bool(modules) and not outside, f"imported from elsewhere: {', '.join(outside) or 'no module'}")
    environment.run(shlex.join(["uv", "pip", "uninstall", *sorted(new)]))
    names = [module.parent.name if module.name == "__init__.py" else module.stem for module in modules]
    return f"torch {after['torch']}: imported {', '.join(names)}"


def _follow_for_package(
    environment: Environment, tool: Tool, package: PureWheel, served: ServedIndex, channel: str
) -> dict[str, str]:
    """Run the page's commands for a package, and return the installed versions by project.

    Raises:
        PublishError: if the package, or a required package of this index, has another version than the index.
    """
    shown = package_commands(served.url, package, served.catalog.packages, channel)
    for line in shown.pip if tool == "pip" else shown.uv:
        environment.run(line)
    found = _canonical(environment.installed())
    chosen = found.get(package.project)
    _require(chosen == package.version, f"{package.project} {chosen} was chosen, not {package.version}")
    have = {(one.project, one.version) for one in served.catalog.packages}
    others = [name for name in ours(package, served.catalog.packages) if (name, found.get(name)) not in have]
    _require(not others, f"not from this index: {', '.join(f'{name} {found.get(name)}' for name in others)}")
    return found


def _canonical(installed: Mapping[str, str]) -> dict[str, str]:
    return {canonicalize_name(name): version for name, version in installed.items()}


def _names(requirements: Iterable[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def _needed(catalog: Catalog) -> set[str]:
    """Return the projects that the index's packages require from other indexes."""
    needed = _names(text for package in catalog.packages for text in package.requires)
    return needed - {package.project for package in catalog.packages}


def _changed(before: Iterable[str], after: Iterable[str]) -> str:
    return ", ".join(sorted({*before} ^ {*after})) or "only versions"


def _probe(environment: Environment, cell: Cell, scratch: Path) -> tuple[str, ...]:
    """Import every plugin in a new interpreter with an empty PATH, and return the kinds of the imported plugins."""
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


def _environment(served: ServedIndex, entry: Entry, torch: str, *others: str) -> Environment:
    python = interpreters.find(entry.python)
    assert python is not None
    return sandbox.create(served.scratch / "environment", python, served.surroundings, f"torch=={torch}", *others)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise PublishError(message)


def _as_numbers(line: str) -> list[int]:
    return [int(part) for part in line.split(".")]


def proof(check: str, tool: str, subject: str, make: Callable[[], str]) -> Proof:
    """Run one proof, print its result, and return it."""
    try:
        made = Proof(check, tool, subject, "passed", make())
    except UntestedError as reason:
        made = Proof(check, tool, subject, "untested", str(reason))
    except CommandError as error:
        made = Proof(check, tool, subject, "failed", f"{error}\n{error.output}".rstrip())
    except PublishError as error:
        made = Proof(check, tool, subject, "failed", str(error))
    return _printed(made)


def _printed(made: Proof) -> Proof:
    console.mark(made.outcome, f"{made.check} {made.tool} {made.subject}: {made.detail}")
    return made


def stand_in_proofs(served: ServedIndex) -> Iterator[Proof]:
    """Check that every wheel for this platform installs, and that an unsupported torch is refused.

    The refusal is checked once per CUDA, release and Python.
    """
    for entry in served.here:
        for tool in TOOLS:
            yield proof("install", tool, entry.name, partial(installs, served, tool, entry))
    for entry in {(entry.cuda, entry.release, entry.python): entry for entry in served.here}.values():
        beside = f"{entry.cuda}, {entry.release}, Python {entry.python}"
        for tool in TOOLS:
            for torch in UNSUPPORTED:
                yield proof("refuse", tool, f"torch {torch} ({beside})", partial(refuses, served, tool, entry, torch))
    yield from package_proofs(served)
    for entry in served.catalog.entries:
        reason = why_not_here(entry)
        if reason and entry.yanked is None:
            yield _printed(Proof("install", "-", entry.name, "untested", reason))


def package_proofs(served: ServedIndex) -> Iterator[Proof]:
    """Check that every package installs from the channel of every CUDA and from the channel without CUDA."""
    for package in served.packages:
        for channel in served.torches:
            for tool in TOOLS:
                make = partial(installs_package, served, tool, package, channel)
                yield proof("install", tool, f"{package.name} from {channel}", make)
    for package in served.catalog.packages:
        reason = why_package_not_here(package)
        if reason and package.yanked is None:
            yield _printed(Proof("install", "-", package.name, "untested", reason))


def real_proofs(served: ServedIndex) -> Iterator[Proof]:
    """Check the wheels for the running Python, and the packages, beside their real torch."""
    cells = {cell.id: cell for cell in matrix.load().cells}
    for entry in served.here:
        if entry.python == python_line() and entry.cell in cells:
            for tool in TOOLS:
                yield proof("import", tool, entry.name, partial(imports, served, tool, entry, cells[entry.cell]))
    for package in served.packages:
        for tool in TOOLS:
            yield proof("import", tool, package.name, partial(imports_package, served, tool, package))


def python_line() -> str:
    """Return the version of the running Python: "3.12"."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def prove(store: Path, *, real: bool = False, by: str | None = None) -> tuple[Proof, ...]:
    """Prove the staged index and log the result; return no proofs if it was proved before.

    Raises:
        PublishError: if nothing is staged, or a proof failed; nothing was logged.
        UntestedError: if no staged wheel can be installed (with ``real``: imported) on this machine.
        UsageError: if no person is named.
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
    with console.step(f"prove {generation.name}"), serving(generation) as served:
        proofs = (*stand_in_proofs(served), *(real_proofs(served) if real else ()))
    judge(proofs, real=real)
    print_result(proofs, served.stand_ins, real=real)
    installed = sorted({made.subject for made in proofs if (made.check, made.outcome) == ("install", "passed")})
    untested = sorted({made.subject for made in proofs if made.outcome == "untested"})
    details = {"installed": installed, "untested": untested, "stand_ins": list(served.stand_ins)}
    ledger.append(store, "proved", by=by, catalog=staged, real=real, **details)
    return proofs


def _is_proved(store: Store, catalog: Catalog, *, real: bool) -> bool:
    """Return whether the ledger has a proof of the catalog, or readers see it, which requires a proof."""
    if ledger.has(store.root, "proved", catalog=digest(catalog), real=True):
        return True
    return not real and (
        ledger.has(store.root, "proved", catalog=digest(catalog)) or catalog == store.catalog("current")
    )


def judge(proofs: Sequence[Proof], *, real: bool) -> None:
    """Refuse a list of proofs if one of them failed, or if none of them tested a wheel.

    Raises:
        PublishError: if a proof failed.
        UntestedError: if no wheel was installed (with ``real``: imported).
    """
    failed = [made for made in proofs if made.outcome == "failed"]
    if failed:
        first = failed[0]
        raise PublishError(
            f"{len(failed)} of {len(proofs)} proofs failed; the first: {first.check} {first.tool} {first.subject}: "
            f"{first.detail}",
            hint="fix the wheel or the index, stage again and prove again; nothing was logged",
        )
    for check in ("install", "import") if real else ("install",):
        made = [made for made in proofs if made.check == check]
        if not any(one.outcome == "passed" for one in made):
            why = "; ".join(sorted({one.detail for one in made})) or "no wheel is for this machine"
            raise UntestedError(f"no staged wheel could be tested here ({check}): {why}")


def print_result(proofs: Sequence[Proof], stand_ins: Sequence[str], *, real: bool) -> None:
    """Print the number of proofs by outcome, and the names of the stand-ins."""
    counts = Counter(made.outcome for made in proofs)
    total = ", ".join(f"{counts[outcome]} {outcome}" for outcome in OUTCOMES if counts[outcome])
    console.mark("info", f"{len(proofs)} proofs: {total}")
    console.mark(
        "info",
        f"stand-ins, small wheels without content, took the place of: {', '.join(stand_ins)}; "
        + ("only `import` proofs used the real, locked torch" if real else "nothing was imported, --real does that"),
    )


def main() -> int:
    """Prove the staged index."""
    parser = argparse.ArgumentParser(
        prog="nox -s prove --", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path, default=DEFAULT_STORE, help=f"({DEFAULT_STORE.name}/)")
    parser.add_argument("--real", action="store_true", help="also install beside the real, locked torch, and import")
    parser.add_argument("--by", help="the person to log (default: git's user.name)")
    parsed = parser.parse_args()
    prove(parsed.store, real=parsed.real, by=parsed.by)
    return 0


if __name__ == "__main__":
    run_main(main, uses_cache=True)
