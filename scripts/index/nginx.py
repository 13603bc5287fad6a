"""Make a configuration for nginx that serves an index."""

from __future__ import annotations

import re
from pathlib import Path

from scripts.errors import UsageError

_TEMPLATE = Path(__file__).with_name("nginx.conf")
_ADDRESS = r"[A-Za-z0-9.:\[\]-]+"
_ROOT = r"[^\x00-\x1f\"$\\]+"


def configuration(root: Path, address: str) -> str:
    """Return a configuration that serves the generation ``root`` at ``address`` ("127.0.0.1:8080", "80").

    Raises:
        UsageError: if one of the two has characters that are not allowed in a configuration.
    """
    for value, allowed in ((address, _ADDRESS), (str(root), _ROOT)):
        if not re.fullmatch(allowed, value):
            raise UsageError(f"not allowed in nginx's configuration: {value!r}")
    template = _TEMPLATE.read_text(encoding="utf-8")
    return template.replace("listen ADDRESS", f"listen {address}").replace('"ROOT', f'"{root}')
