"""Finds and imports the modules that were compiled ahead of time.

A module that is *absent* and one that is *present but broken* are told apart: the first may be compiled just in time
where the release can do that, the second never is, because a silent fallback would hide a wrong installation behind
minutes of compiling or a missing compiler.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import json
import logging
import os
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

# Not resolved: Wine, for one, resolves no path of more than 260 characters.
PACKAGE = Path(__file__).absolute().parent
_lock = threading.Lock()
_warned: set[str] = set()
# Windows takes a folder from the search path again when its handle is collected.
_dll_handles: list[Any] = []


def load_precompiled(gl: bool) -> ModuleType | None:
    """The CUDA plugin, or the OpenGL one if ``gl``; None if this installation holds no compiled one.

    None is said once per plugin, to the logger "nvdiffrast"; NVDIFFRAST_FORCE_JIT=1 gives None at once.

    Raises:
        ImportError: the plugin is there and cannot be imported, or it is not and NVDIFFRAST_NO_JIT=1 or a zip file
            forbids to compile it; the message says why and what to do.
    """
    if os.environ.get("NVDIFFRAST_FORCE_JIT") == "1":
        return None
    name = "nvdiffrast_plugin_gl" if gl else "nvdiffrast_plugin"
    present = _present(PACKAGE / "torch", name)
    if not present and (not PACKAGE.is_dir() or os.environ.get("NVDIFFRAST_NO_JIT") == "1"):
        raise _refusal(name)
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
    """Where Windows is told to look for DLLs, in this order: folders that exist, named by a whole path.

    NVDIFFRAST_DLL_DIRS; what the wheel brings; torch's own; the nvidia-* wheels'; CUDA_PATH's; toolkits of the CUDA
    major that the wheel was built for. On other systems none, for there the files themselves say where.
    """
    if not hasattr(os, "add_dll_directory"):
        return []
    listed = os.environ.get("NVDIFFRAST_DLL_DIRS", "").split(os.pathsep)
    folders = [*map(Path, filter(None, listed)), PACKAGE.parent / "nvdiffrast.libs"]
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
    found = [folder for folder in folders if folder.is_absolute() and folder.is_dir()]
    return list(dict.fromkeys(found))


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


def _refusal(name: str) -> ImportError:
    """Why there is no module of that name, where nothing may be compiled in its place."""
    from . import _diagnosis  # noqa: PLC0415 - only a failure pays for it

    return ImportError(_diagnosis.explain_absence(name), name=name)


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
        for part in (file, *sorted((PACKAGE.parent / "nvdiffrast.libs").glob("*"))):
            _check_whole(part)
        if not _takes(file, module.rpartition(".")[2]):
            raise ImportError("compiled for another Python")
        _add_dll_folders()
        return importlib.import_module(module)
    except Exception as error:
        from . import _diagnosis  # noqa: PLC0415 - only a failure pays for it

        raise ImportError(_diagnosis.explain(file, error), name=module, path=str(file)) from error


def _check_whole(file: Path) -> None:
    """A truncated ELF file would not fail to load, but end the process when what is missing is touched."""
    with file.open("rb") as stream:
        header = stream.read(64)
    if header[:4] != b"\x7fELF":
        return
    # A linker writes the table of sections last.
    sections = int.from_bytes(header[40:48], "little")
    end = sections + int.from_bytes(header[58:60], "little") * int.from_bytes(header[60:62], "little")
    if len(header) < 64 or file.stat().st_size < end:
        raise ImportError(f"{file.name}: file too short")


def _add_dll_folders() -> None:
    """On Windows, let the loader find the libraries; once, and for as long as the process lives."""
    if not hasattr(os, "add_dll_directory"):
        return
    with _lock:
        if not _dll_handles:
            _dll_handles.extend(os.add_dll_directory(str(folder)) for folder in dll_folders())


def _warn_once(name: str, message: str, *arguments: str) -> None:
    with _lock:
        if name in _warned:
            return
        _warned.add(name)
    logging.getLogger("nvdiffrast").warning(message, *arguments)
