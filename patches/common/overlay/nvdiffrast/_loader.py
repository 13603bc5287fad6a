"""Finds and imports the modules that were compiled ahead of time.

A module that is *absent* and one that is *present but broken* are told apart: the first may be compiled just in time
where the release can do that, the second never is, because a silent fallback would hide a wrong installation behind
minutes of compiling or a missing compiler.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import logging
import os
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

_PACKAGE = Path(__file__).resolve().parent
_lock = threading.Lock()
_warned: set[str] = set()
# Windows takes a folder from the search path again when its handle is collected.
_dll_handles: list[Any] = []


def load_precompiled(gl: bool) -> ModuleType | None:
    """The CUDA plugin, or the OpenGL one if ``gl``; None if this installation holds no compiled one.

    None is said once per plugin, to the logger "nvdiffrast"; NVDIFFRAST_FORCE_JIT=1 gives None at once.

    Raises:
        ImportError: the plugin is there and cannot be imported; the message says why and what to do.
    """
    if os.environ.get("NVDIFFRAST_FORCE_JIT") == "1":
        return None
    name = "nvdiffrast_plugin_gl" if gl else "nvdiffrast_plugin"
    present = _present(_PACKAGE / "torch", name)
    if not present:
        _warn_once(name, "%s is not compiled in this installation; compiling it just in time", name)
        return None
    return _load(f"{__package__}.torch.{name}", present)


def keep_compiled_importable(cpp_extension: Any) -> None:
    """Let what torch compiles just in time be imported by its name, as 0.3.0 to 0.3.3.1 do right after compiling it.

    torch 2.9 stopped leaving such a module in sys.modules. ``cpp_extension`` is torch.utils.cpp_extension; nothing
    changes for modules that are not nvdiffrast's.
    """
    imports = cpp_extension._import_module_from_library
    if getattr(imports, "keeps_nvdiffrast", False):
        return

    def import_and_keep(name: str, *arguments: Any, **options: Any) -> Any:
        module = imports(name, *arguments, **options)
        if name.startswith("nvdiffrast_plugin"):
            sys.modules[name] = module
        return module

    import_and_keep.keeps_nvdiffrast = True  # type: ignore[attr-defined]
    cpp_extension._import_module_from_library = import_and_keep


def load_extension(name: str) -> ModuleType:
    """The top-level extension module ``name``, installed beside the package.

    Raises:
        ImportError: it is not there, or cannot be imported; the message says why and what to do.
    """
    present = _present(_PACKAGE.parent, name)
    if present:
        return _load(name, present)
    try:  # An editable installation keeps it elsewhere on the path.
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        message = (
            f"nvdiffrast: this installation holds no compiled {name}; install a wheel that was built for this Python"
        )
        raise ImportError(message, name=name) from error


def _present(folder: Path, name: str) -> list[Path]:
    """The files of ``name`` in ``folder``, compiled for whatever Python; one that this Python takes comes first."""
    files = sorted(folder.glob(f"{name}.*so")) + sorted(folder.glob(f"{name}.*pyd"))
    return sorted(files, key=lambda file: not _takes(file, name))


def _takes(file: Path, name: str) -> bool:
    return file.name[len(name) :] in importlib.machinery.EXTENSION_SUFFIXES


def _load(module: str, present: list[Path]) -> ModuleType:
    """Import ``module``; every failure becomes one ImportError with a diagnosis."""
    file = present[0]
    try:
        if not _takes(file, module.rpartition(".")[2]):
            raise ImportError("compiled for another Python")
        _add_dll_folders()
        return importlib.import_module(module)
    except Exception as error:
        from . import _diagnosis  # noqa: PLC0415 - only a failure pays for it

        raise ImportError(_diagnosis.explain(file, error), name=module, path=str(file)) from error


def _add_dll_folders() -> None:
    """On Windows, let the loader find torch's libraries, those bundled with the wheel, and an installed toolkit's."""
    if not hasattr(os, "add_dll_directory"):
        return
    torch = sys.modules.get("torch")
    folders = [Path(str(torch.__file__)).parent / "lib"] if torch is not None else []
    folders.append(_PACKAGE.parent / "nvdiffrast.libs")
    if os.environ.get("CUDA_PATH"):
        folders.append(Path(os.environ["CUDA_PATH"]) / "bin")
    with _lock:
        if not _dll_handles:
            _dll_handles.extend(os.add_dll_directory(str(folder)) for folder in folders if folder.is_dir())


def _warn_once(name: str, message: str, *arguments: str) -> None:
    with _lock:
        if name in _warned:
            return
        _warned.add(name)
    logging.getLogger("nvdiffrast").warning(message, *arguments)
