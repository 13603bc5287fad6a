"""Adds to a frozen program the files of nvdiffrast that PyInstaller does not find in the program's imports.

These are the compiled modules, which the loader imports by name, and the data for the loader's messages. PyInstaller
itself finds the libraries in nvdiffrast.libs that the modules need.
"""

from nvdiffrast import _installation
from PyInstaller.utils.hooks import collect_data_files, copy_metadata

hiddenimports = _installation.plugin_modules()
datas = [*collect_data_files("nvdiffrast", includes=["build_info.json"]), *copy_metadata("nvdiffrast")]
