"""Fetch upstream's real releases by their pins and apply their patches; skip releases that are not available."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TypeGuard

import pytest

from scripts.matrix import matrix
from scripts.model import RegistryPin, Release
from scripts.source import patching, upstream

pytestmark = pytest.mark.integration

RELEASES = matrix.load().releases


@pytest.fixture(params=RELEASES, ids=lambda release: str(release.version))
def release(request: pytest.FixtureRequest) -> Release:
    wanted: Release = request.param
    missing = upstream.availability(wanted)
    if missing:
        pytest.skip(f"{missing}; nox -s fetch -- {wanted.version} --source CHECKOUT")
    return wanted


def test_release_has_the_files_that_a_build_needs(release: Release) -> None:
    tree = upstream.fetch(release)
    assert "Nvidia Source Code License" in (tree / "LICENSE.txt").read_text(encoding="utf-8")
    assert (tree / "README.md").is_file()
    assert (tree / "nvdiffrast" / "torch" / "ops.py").is_file()
    assert not list(tree.glob("*.dist-info"))


def test_patches_apply_and_the_patched_code_calls_the_loader(release: Release, tmp_path: Path) -> None:
    pristine = upstream.fetch(release)
    tree = patching.prepare(release, pristine, tmp_path / "tree").path
    ops = (tree / "nvdiffrast" / "torch" / "ops.py").read_text(encoding="utf-8")
    loaders = {"0.3": {"load_precompiled", "keep_compiled_importable"}, "0.4": {"load_extension"}}
    assert _called(ops) == loaders[release.series]
    package = (tree / "nvdiffrast" / "torch" / "__init__.py").read_text(encoding="utf-8")
    assert _called(package) == {"import_requirements"}
    assert package.index("import_requirements()") < package.index("from .ops import")
    # This import is slower than all others of the package together, and only just-in-time compilation needs it.
    imported = {alias.name for node in ast.parse(ops).body if isinstance(node, ast.Import) for alias in node.names}
    assert "torch.utils.cpp_extension" not in imported
    changed = {
        path.relative_to(pristine).as_posix()
        for path in pristine.rglob("*")
        if path.is_file() and path.read_bytes() != (tree / path.relative_to(pristine)).read_bytes()
    }
    types = "csrc/torch/torch_types.h" if release.series == "0.4" else "nvdiffrast/torch/torch_types.h"
    assert changed - {"setup.py", "pyproject.toml"} == {
        "nvdiffrast/torch/__init__.py",
        "nvdiffrast/torch/ops.py",
        types,
    }


def _called(code: str) -> set[str]:
    """Return the functions of the loader that ``code`` uses."""
    return {node.attr for node in ast.walk(ast.parse(code)) if _is_of_loader(node)}


def _is_of_loader(node: ast.AST) -> TypeGuard[ast.Attribute]:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "_loader"


def test_fetches_one_release_from_a_package_registry_only(tmp_path: Path) -> None:
    """With an empty cache, a machine that cannot reach a git host builds this release."""
    (registered,) = (release for release in RELEASES if isinstance(release.source, RegistryPin))
    missing = upstream.availability(registered)
    if missing:
        pytest.skip(missing)
    tree = upstream.fetch(registered, cache=tmp_path)
    assert tree.is_relative_to(tmp_path)
    assert (tree / "nvdiffrast" / "common" / "rasterize.cu").is_file()
