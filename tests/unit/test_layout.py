"""The packages of scripts/ import each other in one direction, and no modules import each other in a cycle."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from scripts.model import ROOT

# A package imports only packages before it. Every package may import the modules that lie directly in scripts/.
ORDER = (
    "support",
    "matrix",
    "locks",
    "source",
    "toolchain",
    "wheel",
    "gpu_gate",
    "audit",
    "index",
    "build",
    "doctor",
    "publish",
)


def imported_modules(path: Path, root: Path, base: str) -> Iterator[str]:
    """Yield the modules of ``base`` that a file imports, wherever the import stands: "scripts.support.files"."""
    package = path.relative_to(root.parent).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.startswith(f"{base}."))
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else ()
            source = ".".join([*parents, *([node.module] if node.module else [])])
            if source.partition(".")[0] == base:
                for name in node.names:
                    below = root.joinpath(*source.split(".")[1:], name.name)
                    is_module = below.with_suffix(".py").exists() or below.is_dir()
                    yield f"{source}.{name.name}" if is_module else source


def import_graph(root: Path) -> dict[str, set[str]]:
    """Return the modules below ``root`` with the modules that each of them imports."""
    graph = {}
    for path in root.rglob("*.py"):
        name = ".".join(path.relative_to(root.parent).with_suffix("").parts).removesuffix(".__init__")
        graph[name] = {found for found in imported_modules(path, root, root.name) if found != name}
    return graph


def upward_imports(graph: Mapping[str, set[str]]) -> list[str]:
    """Return every import of a package that stands at or after the importing package in ORDER, as "A -> B"."""

    def rank(module: str) -> int:
        package = module.split(".")[1] if module.count(".") else ""
        return ORDER.index(package) if package in ORDER else -1

    return sorted(
        f"{module} -> {found}" for module, imports in graph.items() for found in imports if rank(found) > rank(module)
    )


def test_every_package_has_a_place_in_the_order() -> None:
    assert {path.parent.name for path in (ROOT / "scripts").glob("*/__init__.py")} == set(ORDER)


def test_packages_import_only_packages_before_them() -> None:
    assert upward_imports(import_graph(ROOT / "scripts")) == []


@pytest.mark.parametrize("folder", ["scripts", "patches/common/overlay/nvdiffrast"])
def test_no_import_cycles(folder: str) -> None:
    graph = import_graph(ROOT / folder)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


def test_an_upward_import_is_found(tmp_path: Path) -> None:
    root = tmp_path / "scripts"
    for package in ("support", "build"):
        (root / package).mkdir(parents=True)
        (root / package / "__init__.py").touch()
    (root / "build" / "plan.py").write_text("from scripts.support import files\n")
    (root / "support" / "files.py").write_text("def late() -> None:\n    from scripts.build.plan import rows\n")
    graph = import_graph(root)
    assert upward_imports(graph) == ["scripts.support.files -> scripts.build.plan"]
    with pytest.raises(CycleError):
        TopologicalSorter(graph).prepare()
