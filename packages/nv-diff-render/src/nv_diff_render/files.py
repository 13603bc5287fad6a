"""Read JSON with the place in every error, and write files atomically."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_json(path: Path) -> Mapping[str, Any]:
    """Return the JSON object in a file.

    Raises:
        ValueError: if the file does not contain a JSON object; the message names line and column.
        OSError: if the file cannot be read.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}:{error.colno}: not JSON: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8: {error}") from error
    if not isinstance(found, Mapping):
        raise ValueError(f"{path}: expected an object, found {type(found).__name__}")
    return found


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file through a temporary file, so that it is either complete or unchanged."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
