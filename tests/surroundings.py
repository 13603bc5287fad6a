"""The environment of the tests: a home, caches and variables of their own, whatever the machine has.

Unit tests see nothing else. Integration tests also see what names the machine's package index, certificates and
toolchains, and keep their downloads in one folder: NVDIFFRAST_WHEELS_CACHE.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

# What a program needs in order to start and to find others, and what is meant for the tests.
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
    # Windows starts no program without these.
    "SYSTEMROOT",
    "WINDIR",
    "COMSPEC",
    "PATHEXT",
    "TEMP",
    "TMP",
)
# What integration tests need of the machine: an index that can be reached, certificates, compilers, Pythons.
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
# Configuration that tools read from other places than the home.
_NO_CONFIGURATION = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "PIP_CONFIG_FILE": os.devnull,
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "UV_NO_CONFIG": "1",
    "UV_PYTHON_DOWNLOADS": "never",
}
CACHE_VARIABLE = "NVDIFFRAST_WHEELS_CACHE"


def of_unit_tests(given: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return the whole environment of the tests: little of ``given``, and places below ``folder``."""
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
    """Return the changes of the environment for tests that use the machine; None takes a variable away.

    ``downloads`` holds what is downloaded, and is used again by later runs.
    """
    unset = dict.fromkeys(("PIP_CONFIG_FILE", "UV_NO_CONFIG"))
    caches = {CACHE_VARIABLE: str(downloads), "UV_CACHE_DIR": str(downloads / "uv")}
    return {**unset, **_chosen(given, _OF_THE_MACHINE), **caches}


def _chosen(given: Mapping[str, str], patterns: tuple[str, ...]) -> dict[str, str]:
    return {name: value for name, value in given.items() if any(fnmatchcase(name, one) for one in patterns)}
