"""Finds and imports the modules that were compiled ahead of time.

A module is compiled just in time only if the installation never had it, as with a source wheel. One that is broken, or
that the installation lists and that is gone, is an error: a silent fallback would hide a wrong installation behind
minutes of compiling or a missing compiler.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import json
import logging
import os
import re
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

# Not resolved: Wine, for one, resolves no path of more than 260 characters.
PACKAGE = Path(__file__).absolute().parent
_lock = threading.Lock()
_warned: set[str] = set()
# Windows takes a folder from the search path again when its handle is collected.
_dll_handles: list[Any] = []


def import_requirements() -> None:
    """Import numpy and torch, which upstream's code imports next.

    Raises:
        ImportError: one of them is absent or cannot be imported; the message says why and what to run.
    """
    for name in ("numpy", "torch"):
        try:
            importlib.import_module(name)
        except Exception as error:
            from . import _diagnosis  # noqa: PLC0415 - only a failure pays for it

            kind = ModuleNotFoundError if isinstance(error, ModuleNotFoundError) else ImportError
            raise kind(_diagnosis.explain_requirement(name, error), name=name) from error


def load_precompiled(gl: bool) -> ModuleType | None:
    """Return the CUDA plugin, or the OpenGL plugin if ``gl``; None if it is to be compiled just in time.

    None is returned for an installation without compiled modules, which is logged once per plugin to the logger
    "nvdiffrast", and if NVDIFFRAST_FORCE_JIT=1.

    Raises:
        ImportError: the plugin cannot be imported; or it is absent, and the installation lists it or cannot compile
            it (NVDIFFRAST_NO_JIT=1, a zip file, a frozen program). The message says why and what to run.
    """
    if os.environ.get("NVDIFFRAST_FORCE_JIT") == "1":
        return None
    name = "nvdiffrast_plugin_gl" if gl else "nvdiffrast_plugin"
    present = _present(PACKAGE / "torch", name)
    if present:
        return _load(f"{__package__}.torch.{name}", present)
    if not _may_be_compiled(name):
        raise _refusal(name)
    _warn_once(name, "%s is not compiled in this installation; compiling it just in time", name)
    return None


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
    """Return the top-level extension module ``name``, installed beside the package.

    Raises:
        ImportError: it is not there, or cannot be imported; the message says why and what to do.
    """
    present = _present(PACKAGE.parent, name)
    if present:
        return _load(name, present)
    try:  # An editable installation keeps it elsewhere on the path.
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise _refusal(name) from error


def dll_folders() -> list[Path]:
    """Return the folders where Windows is told to look for DLLs, in order: absolute paths of folders that exist.

    They are those of NVDIFFRAST_DLL_DIRS, the wheel's own, torch's, those of the nvidia-* wheels, CUDA_PATH's, and
    those of toolkits of the CUDA major that the wheel was built for. The list is empty on other systems, where each
    file itself says where its libraries are.
    """
    if not hasattr(os, "add_dll_directory"):
        return []
    folders = [*_listed_folders("NVDIFFRAST_DLL_DIRS"), PACKAGE.parent / "nvdiffrast.libs"]
    torch = _torch_folder()
    if torch is not None:
        folders += [
            torch / "lib",
            *sorted(torch.parent.glob("nvidia/*/bin")),
            *sorted(torch.parent.glob("nvidia/*/bin/*")),
        ]
    homes = [os.environ.get("CUDA_PATH", ""), *_toolkits()]
    folders += [Path(home, *parts) for home in homes if home for parts in (("bin",), ("bin", "x64"))]
    # A relative folder would be found from wherever the program was started.
    found = [folder for folder in folders if folder.is_absolute() and _is_folder(folder)]
    return list(dict.fromkeys(found))


def _listed_folders(variable: str) -> list[Path]:
    """Return the folders that an environment variable lists; as in PATH, one that holds a separator is quoted."""
    parts = re.findall(rf'(?:[^{os.pathsep}"]|"[^"]*"?)+', os.environ.get(variable, ""))
    return [Path(part) for part in (part.replace('"', "").strip() for part in parts) if part]


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def _torch_folder() -> Path | None:
    """torch's folder, without importing it."""
    module = sys.modules.get("torch")
    file = getattr(module, "__file__", None)
    if file is None:
        try:
            spec = importlib.util.find_spec("torch")
        except (ImportError, ValueError):
            return None
        file = spec.origin if spec is not None else None
    return Path(file).parent if file else None


def _toolkits() -> list[str]:
    """Installed toolkits of the major that this wheel was built for, by the variables that their installers set."""
    try:
        info = json.loads((PACKAGE / "build_info.json").read_text(encoding="utf-8"))
        major = str(info["cuda"]).partition(".")[0]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    named = [name for name in os.environ if name.upper().startswith(f"CUDA_PATH_V{major}_")]
    return [os.environ[name] for name in sorted(named, reverse=True)]


def _may_be_compiled(name: str) -> bool:
    """Return whether an absent module may be compiled just in time: the installation has sources and never had it."""
    if not PACKAGE.is_dir() or os.environ.get("NVDIFFRAST_NO_JIT") == "1" or getattr(sys, "frozen", False):
        return False
    from . import _record  # noqa: PLC0415 - only an absent module pays for it

    return not _record.lists_module(name)


def _refusal(name: str) -> ImportError:
    """Return the error that says why there is no module of that name where none may be compiled in its place."""
    from . import _diagnosis  # noqa: PLC0415 - only a failure pays for it

    return ImportError(_diagnosis.explain_absence(name), name=name)


def _present(folder: Path, name: str) -> list[Path]:
    """Return the files of ``name`` in ``folder``, compiled for whatever Python; one for this Python comes first."""
    found = [*sorted(folder.glob(f"{name}.*so")), *sorted(folder.glob(f"{name}.*pyd"))]
    return sorted((file for file in found if file.is_file()), key=lambda file: not takes(file))


def takes(file: Path) -> bool:
    """Return whether this Python imports a compiled module from a file of that name."""
    return file.name[file.name.index(".") :] in importlib.machinery.EXTENSION_SUFFIXES


def _load(module: str, present: list[Path]) -> ModuleType:
    """Import ``module``; every failure becomes one ImportError with a diagnosis."""
    file = present[0]
    try:
        if not takes(file):
            raise ImportError("it is compiled for another Python")
        _check_end(file)
        _check_bundled()
        _add_dll_folders()
        return importlib.import_module(module)
    except Exception as error:
        from . import _diagnosis  # noqa: PLC0415 - only a failure pays for it

        raise ImportError(_diagnosis.explain(file, error), name=module, path=str(file)) from error


def _check_bundled() -> None:
    """Check the ELF libraries beside the package; files that the wheel did not bring are ignored.

    Raises:
        ImportError: one of the wheel is damaged.
    """
    try:
        with os.scandir(PACKAGE.parent / "nvdiffrast.libs") as entries:
            names = sorted(entry.name for entry in entries if ".so" in entry.name and entry.is_file())
    except OSError:
        return
    for name in names:
        file = PACKAGE.parent / "nvdiffrast.libs" / name
        try:
            # If a file that cannot be read is needed, the import fails and names it.
            with suppress(OSError):
                _check_end(file)
        except ImportError:
            from . import _record  # noqa: PLC0415 - only a damaged file pays for it

            if _record.lists_file(file):
                raise


def _check_end(file: Path) -> None:
    """Check that an ELF file has its end, which tells whether it was written whole.

    Loading a file without its end does not fail: the process dies when it uses what is missing.

    Raises:
        ImportError: the file is too short, or its end was replaced by zeros.
        OSError: it cannot be read.
    """
    with file.open("rb") as stream:
        header = stream.read(64)
        if header[:4] != b"\x7fELF":
            return
        # A linker writes the table of sections last. One of its entries describes the sections' names.
        table = int.from_bytes(header[40:48], "little")
        size, count, names = (int.from_bytes(header[at : at + 2], "little") for at in (58, 60, 62))
        if len(header) < 64 or file.stat().st_size < table + size * count:
            raise ImportError(f"{file.name}: file too short")
        if names < count:
            stream.seek(table + size * names)
            if not any(stream.read(size)):
                raise ImportError(f"{file.name}: its end holds only zeros")


def _add_dll_folders() -> None:
    """Let Windows find the libraries; once, and for as long as the process lives."""
    if not hasattr(os, "add_dll_directory"):
        return
    with _lock:
        if _dll_handles:
            return
        for folder in dll_folders():
            # Windows refuses a folder that this user may not open; the others serve all the same.
            with suppress(OSError):
                _dll_handles.append(os.add_dll_directory(str(folder)))


def _warn_once(name: str, message: str, *arguments: str) -> None:
    with _lock:
        if name in _warned:
            return
        _warned.add(name)
    logging.getLogger("nvdiffrast").warning(message, *arguments)
