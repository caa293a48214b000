"""A number as a picture that a camera can read off a screen, askew, blurred or between two.

The number stands in Gray code, in which neighbours differ in one bit: a camera whose exposure spans
a change reads one of the two, never a third. Four ArUco markers say where it is and which way up.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.frame import Image

BITS = 12
COUNT = 1 << BITS
"""Numbers begin anew after so many."""

# Layout in pixels of the picture as it is drawn: markers in the corners, bits between them.
HEIGHT, WIDTH = 480, 720
_MARKER, _MARGIN = 140, 20
_COLUMNS, _CELL_W, _CELL_H = 6, 80, 70
_LEFT, _TOP = 120, 170
_CORNERS = [
    (_MARGIN, _MARGIN),
    (WIDTH - _MARGIN - _MARKER, _MARGIN),
    (WIDTH - _MARGIN - _MARKER, HEIGHT - _MARGIN - _MARKER),
    (_MARGIN, HEIGHT - _MARGIN - _MARKER),
]
# Of a cell, around its middle, what is looked at: blur mixes in the neighbours from its edges.
_PROBE = 12

_DICTIONARY: Any = cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_4X4_50)


def draw_code(number: int) -> Image:
    """uint8 (HEIGHT, WIDTH) gray."""
    picture = np.full((HEIGHT, WIDTH), 255, np.uint8)
    for i, (x, y) in enumerate(_CORNERS):
        marker = cv2.aruco.generateImageMarker(_DICTIONARY, i, _MARKER)
        picture[y : y + _MARKER, x : x + _MARKER] = marker
    gray = (number % COUNT) ^ (number % COUNT >> 1)
    for bit in range(BITS):
        if gray >> bit & 1:
            x, y = _cell(bit)
            picture[y : y + _CELL_H, x : x + _CELL_W] = 0
    return picture


def read_code(picture: Image) -> int | None:
    """The number in a picture, uint8 (H, W) gray, or None where it cannot be made out."""
    found, ids, _ = cv2.aruco.ArucoDetector(_DICTIONARY).detectMarkers(picture)
    seen: list[NDArray[np.float32]] = []
    meant: list[NDArray[np.float32]] = []
    for corners, marker in zip(found, [] if ids is None else ids.ravel(), strict=True):
        if marker < len(_CORNERS):
            x, y = _CORNERS[marker]
            seen.append(corners.reshape(4, 2))
            # ArUco's corners lie in the middles of pixels, ours at their edges.
            edge = _MARKER
            square = [(x, y), (x + edge, y), (x + edge, y + edge), (x, y + edge)]
            meant.append(np.array(square, np.float32) - 0.5)
    if len(seen) < 3:  # two are seen askew
        return None
    matrix, _ = cv2.findHomography(np.vstack(seen), np.vstack(meant), cv2.RANSAC, 5.0)
    if matrix is None:
        return None
    flat = cv2.warpPerspective(picture, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_AREA)
    black = np.mean([flat[y + 12, x + _MARKER // 2] for x, y in _CORNERS])
    white = np.mean([flat[_MARGIN + _MARKER // 2, WIDTH // 2], flat[-90, WIDTH // 2]])
    if white - black < 20:
        return None
    gray = 0
    for bit in range(BITS):
        x, y = (at + size // 2 for at, size in zip(_cell(bit), (_CELL_W, _CELL_H), strict=True))
        level = flat[y - _PROBE : y + _PROBE, x - _PROBE : x + _PROBE].mean()
        gray |= int(level < (black + white) / 2) << bit
    number = 0
    while gray:
        number ^= gray
        gray >>= 1
    return number


def _cell(bit: int) -> tuple[int, int]:
    """X and y of a bit's upper left corner."""
    return _LEFT + bit % _COLUMNS * _CELL_W, _TOP + bit // _COLUMNS * _CELL_H
