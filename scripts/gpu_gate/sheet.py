"""Contact sheet: one PNG with small captioned images, encoded with zlib and NumPy only."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

Image = np.ndarray[Any, Any]

_WIDTH = 1200
_GAP = 10
# Small images are enlarged by a whole factor up to this size in pixels; large ones are subsampled down to it.
_SIDE = 180
_BACKGROUND, _INK = 24, 220

# A font of 3x5 pixels. Each letter is five octal digits; a digit is a row of three bits, top row first.
_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ-.:/+="
_ROWS = (
    "75557262277174771717557117471774757711117575775717"
    "757556565674447655567464774644745575575572227111575565544447577557555575557757447557175655"
    "7471772222555575555255775552555522271247"
    "007000000202020112440272007070"
)
_GLYPHS = {letter: _ROWS[5 * number : 5 * number + 5] for number, letter in enumerate(_LETTERS)}


def png(image: Image) -> bytes:
    """Encode an image [H, W, 3] uint8 as PNG.

    Raises:
        ValueError: if the image has another shape or type.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"an image must be [H, W, 3] uint8, not {image.shape} {image.dtype}")
    height, width, _ = image.shape
    # Each row starts with its filter type; 0 means no filter.
    rows = np.zeros((height, 1 + 3 * width), np.uint8)
    rows[:, 1:] = image.reshape(height, 3 * width)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def contact_sheet(images: Mapping[str, Image]) -> bytes:
    """Draw images by caption, in their order, into one PNG; return no bytes if there are no images."""
    rows: list[list[Image]] = [[]]
    for caption, image in images.items():
        cell = _captioned(caption, _resized(image))
        if sum(each.shape[1] + _GAP for each in rows[-1]) + cell.shape[1] + _GAP > _WIDTH and rows[-1]:
            rows.append([])
        rows[-1].append(cell)
    if not rows[0]:
        return b""
    sheet = _blank(_GAP + sum(_GAP + max(cell.shape[0] for cell in row) for row in rows), _WIDTH + _GAP)
    top = _GAP
    for row in rows:
        left = _GAP
        for cell in row:
            _paste(sheet, cell, top, left)
            left += cell.shape[1] + _GAP
        top += max(cell.shape[0] for cell in row) + _GAP
    return png(sheet)


def _resized(image: Image) -> Image:
    longest = max(image.shape[:2])
    if longest > _SIDE:
        step = -(-longest // _SIDE)
        return image[::step, ::step]
    factor = _SIDE // longest
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def _captioned(caption: str, image: Image) -> Image:
    """Return an image with its caption below it."""
    lines = _draw_text(caption)
    cell = _blank(image.shape[0] + 4 + lines.shape[0], max(image.shape[1], lines.shape[1]))
    _paste(cell, image, 0, 0)
    _paste(cell, lines, image.shape[0] + 4, 0)
    return cell


def _draw_text(caption: str) -> Image:
    """Draw one line of text, enlarged twice; characters without a glyph become spaces."""
    line = _blank(5, 4 * max(len(caption), 1))
    for number, letter in enumerate(caption.upper()):
        for row, digit in enumerate(_GLYPHS.get(letter, "00000")):
            for column in range(3):
                if int(digit, 8) >> (2 - column) & 1:
                    line[row, 4 * number + column] = _INK
    return line.repeat(2, axis=0).repeat(2, axis=1)


def _blank(height: int, width: int) -> Image:
    return np.full((height, width, 3), _BACKGROUND, np.uint8)


def _paste(sheet: Image, image: Image, top: int, left: int) -> None:
    visible = image[:, : sheet.shape[1] - left]
    sheet[top : top + visible.shape[0], left : left + visible.shape[1]] = visible
