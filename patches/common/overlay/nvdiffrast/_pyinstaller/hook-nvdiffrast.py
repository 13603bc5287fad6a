"""PyInstaller's hook for nvdiffrast: adds the files that PyInstaller does not find by reading the program's imports.

These are the compiled modules, which the loader imports by name, and the data that the loader's messages are made from.
PyInstaller itself follows the modules to the libraries in nvdiffrast.libs.
"""

from nvdiffrast import _installation
from PyInstaller.utils.hooks import collect_data_files, copy_metadata

hiddenimports = _installation.plugin_modules()
datas = [*collect_data_files("nvdiffrast", includes=["build_info.json"]), *copy_metadata("nvdiffrast")]
