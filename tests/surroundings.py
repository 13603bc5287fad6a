"""The environment variables of the tests, with their own home and caches, independent of the machine.

Unit tests see no other variables. Integration tests also see the machine's settings of package indexes, certificates
and toolchains, and keep their downloads in one folder, NVDIFFRAST_WHEELS_CACHE.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

# Variables that programs need to start and to find other programs, and variables for the tests.
_KEPT = (
    "PATH",
    "LANG",
    "LC_*",
    "TERM",
    "TMPDIR",
    "OMP_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
    "PYTEST_*",
    "NVDIFFRAST_TEST_*",
    "NVDIFFRAST_KILL_*",
    # Windows needs these to start a program.
    "SYSTEMROOT",
    "WINDIR",
    "COMSPEC",
    "PATHEXT",
    "TEMP",
    "TMP",
)
# Settings of the machine for integration tests: package indexes, certificates, compilers, Pythons.
_OF_THE_MACHINE = (
    "*_PROXY",
    "*_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "PIP_CERT",
    "PIP_CONFIG_FILE",
    "PIP_DEFAULT_TIMEOUT",
    "PIP_EXTRA_INDEX_URL",
    "PIP_FIND_LINKS",
    "PIP_INDEX_URL",
    "PIP_TRUSTED_HOST",
    "UV_CONFIG_FILE",
    "UV_DEFAULT_INDEX",
    "UV_EXTRA_INDEX_URL",
    "UV_FIND_LINKS",
    "UV_HTTP_TIMEOUT",
    "UV_INDEX",
    "UV_INDEX_URL",
    "UV_NATIVE_TLS",
    "UV_SYSTEM_CERTS",
    "CC",
    "CXX",
    "CUDA_HOME",
    "CUDA_PATH",
    "PYENV_ROOT",
    "XDG_RUNTIME_DIR",
)
# Variables that turn off configuration outside of the home folder.
_NO_CONFIGURATION = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "PIP_CONFIG_FILE": os.devnull,
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "UV_NO_CONFIG": "1",
    "UV_PYTHON_DOWNLOADS": "never",
}
CACHE_VARIABLE = "NVDIFFRAST_WHEELS_CACHE"


def of_unit_tests(given: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return the complete environment of unit tests: a few variables of ``given``, and paths below ``folder``."""
    home = str(folder / "home")
    own = {
        "HOME": home,
        "USERPROFILE": home,
        "APPDATA": str(folder / "home" / "AppData" / "Roaming"),
        "LOCALAPPDATA": str(folder / "home" / "AppData" / "Local"),
        "XDG_CACHE_HOME": str(folder / "home" / ".cache"),
        "PIP_CACHE_DIR": str(folder / "pip"),
        "UV_CACHE_DIR": str(folder / "uv"),
        "TORCH_HOME": str(folder / "torch"),
        "TORCH_EXTENSIONS_DIR": str(folder / "torch_extensions"),
        CACHE_VARIABLE: str(folder / "cache"),
    }
    return {**_chosen(given, _KEPT), **_NO_CONFIGURATION, **own}


def of_integration_tests(given: Mapping[str, str], downloads: Path) -> dict[str, str | None]:
    """Return the variables to change for integration tests; None removes a variable.

    ``downloads`` is a folder for downloads, which later runs use again.
    """
    unset = dict.fromkeys(("PIP_CONFIG_FILE", "UV_NO_CONFIG"))
    caches = {CACHE_VARIABLE: str(downloads), "UV_CACHE_DIR": str(downloads / "uv")}
    return {**unset, **_chosen(given, _OF_THE_MACHINE), **caches}


def _chosen(given: Mapping[str, str], patterns: tuple[str, ...]) -> dict[str, str]:
    return {name: value for name, value in given.items() if any(fnmatchcase(name, one) for one in patterns)}
