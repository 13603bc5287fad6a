"""Finds and imports the modules that were compiled ahead of time.

A module is compiled just in time only if the installation never contained it, as with a source wheel. A module that is
broken, or that the installation lists but does not contain, is an error: compiling it instead would hide the damage
behind minutes of compilation or an error about a missing compiler.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from . import _paths

_lock = threading.Lock()
_warned: set[str] = set()
# Windows removes a folder from the search path when its handle is garbage-collected.
_dll_handles: list[Any] = []


def import_requirements() -> None:
    """Import numpy and torch, which upstream's code imports next.

    Raises:
        ImportError: if one of them is not installed or cannot be imported; the message gives the cause and a command.
    """
    for name in ("numpy", "torch"):
        try:
            importlib.import_module(name)
        except Exception as error:
            from . import _diagnosis  # noqa: PLC0415 - imported only after a failure

            kind = ModuleNotFoundError if isinstance(error, ModuleNotFoundError) else ImportError
            raise kind(_diagnosis.explain_requirement(name, error), name=name) from error


def load_precompiled(gl: bool) -> ModuleType | None:
    """Return the CUDA plugin, or the OpenGL plugin if ``gl`` is true.

    Return None if the plugin has to be compiled just in time: if the installation never contained compiled modules,
    which is logged once per plugin to the logger "nvdiffrast", or if NVDIFFRAST_FORCE_JIT=1.

    Raises:
        ImportError: if the plugin cannot be imported, or if it is absent and the installation lists it or must not
            compile it (NVDIFFRAST_NO_JIT=1, a zip file, a frozen program). The message gives the cause and a command.
    """
    if os.environ.get("NVDIFFRAST_FORCE_JIT") == "1":
        return None
    name = "nvdiffrast_plugin_gl" if gl else "nvdiffrast_plugin"
    files = _compiled_files(_paths.PACKAGE / "torch", name)
    if files:
        return _load(f"{__package__}.torch.{name}", files[0])
    if not _may_compile(name):
        raise _absence_error(name)
    _warn_once(name, "%s is not compiled in this installation; compiling it just in time", name)
    return None


def keep_compiled_importable(cpp_extension: Any) -> None:
    """Make modules that torch compiles just in time importable by name, as nvdiffrast 0.3.0 to 0.3.3.1 require.

    torch 2.9 stopped adding such modules to sys.modules. ``cpp_extension`` is torch.utils.cpp_extension. Modules of
    other packages are not affected.
    """
    original = cpp_extension._import_module_from_library
    if getattr(original, "keeps_nvdiffrast", False):
        return

    def import_and_keep(name: str, *arguments: Any, **options: Any) -> Any:
        module = original(name, *arguments, **options)
        if name.startswith("nvdiffrast_plugin"):
            sys.modules[name] = module
        return module

    import_and_keep.keeps_nvdiffrast = True  # type: ignore[attr-defined]
    cpp_extension._import_module_from_library = import_and_keep


def load_extension(name: str) -> ModuleType:
    """Return the top-level extension module ``name``, which is installed beside the package.

    Raises:
        ImportError: if the module is absent or cannot be imported; the message gives the cause and a command.
    """
    files = _compiled_files(_paths.SITE_PACKAGES, name)
    if files:
        return _load(name, files[0])
    try:  # An editable installation keeps it in another folder of sys.path.
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise _absence_error(name) from error


def _may_compile(name: str) -> bool:
    """Return whether an absent module may be compiled: the installation has sources and never contained the module."""
    if not _paths.PACKAGE.is_dir() or os.environ.get("NVDIFFRAST_NO_JIT") == "1" or getattr(sys, "frozen", False):
        return False
    from . import _record  # noqa: PLC0415 - imported only if a module is absent

    return not _record.lists_module(name)


def _absence_error(name: str) -> ImportError:
    """Return the error for a module that is absent and must not be compiled."""
    from . import _diagnosis  # noqa: PLC0415 - imported only after a failure

    return ImportError(_diagnosis.explain_absence(name), name=name)


def _compiled_files(folder: Path, name: str) -> list[Path]:
    """Return the files of module ``name`` in ``folder``; files that this Python can import come first."""
    found = [*sorted(folder.glob(f"{name}.*so")), *sorted(folder.glob(f"{name}.*pyd"))]
    return sorted((file for file in found if file.is_file()), key=lambda file: not _paths.is_importable(file))


def _load(module: str, file: Path) -> ModuleType:
    """Import ``module`` from ``file``.

    Raises:
        ImportError: if anything fails; the message is the diagnosis.
    """
    try:
        if not _paths.is_importable(file):
            raise ImportError("it is compiled for another Python")
        _check_end(file)
        _check_bundled_libraries()
        _add_dll_folders()
        return importlib.import_module(module)
    except Exception as error:
        from . import _diagnosis  # noqa: PLC0415 - imported only after a failure

        raise ImportError(_diagnosis.explain(file, error), name=module, path=str(file)) from error


def _check_bundled_libraries() -> None:
    """Check the ELF libraries that the wheel installed beside the package; other files there are ignored.

    Raises:
        ImportError: if a library of the wheel is damaged.
    """
    try:
        with os.scandir(_paths.BUNDLED_LIBRARIES) as entries:
            names = sorted(entry.name for entry in entries if ".so" in entry.name and entry.is_file())
    except OSError:
        return
    for name in names:
        file = _paths.BUNDLED_LIBRARIES / name
        try:
            # A file that cannot be read is reported by the import, if the module needs it.
            with suppress(OSError):
                _check_end(file)
        except ImportError:
            from . import _record  # noqa: PLC0415 - imported only if a file is damaged

            if _record.lists_file(file):
                raise


def _check_end(file: Path) -> None:
    """Check that the end of an ELF file is present, which shows that the file was written completely.

    The system loads a file without its end; the process then crashes when it uses the missing part.

    Raises:
        ImportError: if the file is too short, or its end was replaced by zeros.
        OSError: if the file cannot be read.
    """
    with file.open("rb") as stream:
        header = stream.read(64)
        if header[:4] != b"\x7fELF":
            return
        # Linkers write the section table last. One of its entries describes the section names.
        table = int.from_bytes(header[40:48], "little")
        size, count, names = (int.from_bytes(header[at : at + 2], "little") for at in (58, 60, 62))
        if len(header) < 64 or file.stat().st_size < table + size * count:
            raise ImportError(f"{file.name}: file too short")
        if names < count:
            stream.seek(table + size * names)
            if not any(stream.read(size)):
                raise ImportError(f"{file.name}: its end contains only zeros")


def _add_dll_folders() -> None:
    """Add the folders of the needed DLLs to Windows' search path, once per process."""
    if not hasattr(os, "add_dll_directory"):
        return
    from . import _dll_folders  # noqa: PLC0415 - imported only on Windows

    with _lock:
        if _dll_handles:
            return
        for folder in _dll_folders.find():
            # Windows refuses a folder that this user may not open; the other folders are still useful.
            with suppress(OSError):
                _dll_handles.append(os.add_dll_directory(str(folder)))


def _warn_once(name: str, message: str, *arguments: str) -> None:
    with _lock:
        if name in _warned:
            return
        _warned.add(name)
    logging.getLogger("nvdiffrast").warning(message, *arguments)
