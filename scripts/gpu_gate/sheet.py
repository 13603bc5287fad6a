"""A contact sheet: small pictures with captions in one PNG, written with nothing but zlib and NumPy."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

Picture = np.ndarray[Any, Any]

_WIDTH = 1200
_GAP = 10
# Small pictures are magnified by whole numbers up to this many pixels, large ones thinned out to it.
_SIDE = 180
_BACKGROUND, _INK = 24, 220

# Letters of 3 by 5 pixels, five octal digits each: a digit is a row of three bits, the top row first.
_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ-.:/+="
_ROWS = (
    "75557262277174771717557117471774757711117575775717"
    "757556565674447655567464774644745575575572227111575565544447577557555575557757447557175655"
    "7471772222555575555255775552555522271247"
    "007000000202020112440272007070"
)
_GLYPHS = {letter: _ROWS[5 * place : 5 * place + 5] for place, letter in enumerate(_LETTERS)}


def png(picture: Picture) -> bytes:
    """A picture <H,W,3> uint8 as a PNG.

    Raises:
        ValueError: it is of another shape or type.
    """
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise ValueError(f"a picture is <H,W,3> uint8, not {picture.shape} {picture.dtype}")
    height, width, _ = picture.shape
    # Before every row stands the filter it is written with: 0, none.
    rows = np.zeros((height, 1 + 3 * width), np.uint8)
    rows[:, 1:] = picture.reshape(height, 3 * width)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def contact_sheet(pictures: Mapping[str, Picture]) -> bytes:
    """Pictures by caption, in their order, as one PNG; nothing for no pictures."""
    rows: list[list[Picture]] = [[]]
    for caption, picture in pictures.items():
        cell = _cell(caption, _fitted(picture))
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


def _fitted(picture: Picture) -> Picture:
    longest = max(picture.shape[:2])
    if longest > _SIDE:
        step = -(-longest // _SIDE)
        return picture[::step, ::step]
    times = _SIDE // longest
    return picture.repeat(times, axis=0).repeat(times, axis=1)


def _cell(caption: str, picture: Picture) -> Picture:
    """A picture above its caption."""
    lines = _lettering(caption)
    cell = _blank(picture.shape[0] + 4 + lines.shape[0], max(picture.shape[1], lines.shape[1]))
    _paste(cell, picture, 0, 0)
    _paste(cell, lines, picture.shape[0] + 4, 0)
    return cell


def _lettering(caption: str) -> Picture:
    """A line of letters, twice their size; what has no glyph is a space."""
    line = _blank(5, 4 * max(len(caption), 1))
    for place, letter in enumerate(caption.upper()):
        for row, digit in enumerate(_GLYPHS.get(letter, "00000")):
            for column in range(3):
                if int(digit, 8) >> (2 - column) & 1:
                    line[row, 4 * place + column] = _INK
    return line.repeat(2, axis=0).repeat(2, axis=1)


def _blank(height: int, width: int) -> Picture:
    return np.full((height, width, 3), _BACKGROUND, np.uint8)


def _paste(sheet: Picture, picture: Picture, top: int, left: int) -> None:
    shown = picture[:, : sheet.shape[1] - left]
    sheet[top : top + shown.shape[0], left : left + shown.shape[1]] = shown
