"""Decoded video frames -> upright pictures, with the colours that the file means."""

from __future__ import annotations

from typing import Any

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, VideoReformatter

from pipeline.card_planes import CARD_FORMAT, CARD_SAMPLES, CardPlanes
from pipeline.frame import Image
from pipeline.planes import FORMAT, Matrix, Planes, to_rgb

# ITU-T H.273 matrix coefficients (AVColorSpace has the same numbers) -> what they mean here.
_MATRICES = {
    1: Matrix.BT709,
    4: Matrix.FCC,
    5: Matrix.BT601,
    6: Matrix.BT601,
    7: Matrix.SMPTE240M,
    9: Matrix.BT2020,
    10: Matrix.BT2020,
}


# The display matrix of a picture that is to be shown as it is.
_UPRIGHT = (1, 0, 0, 1)


def matrix_of(colorspace: int, width: int, height: int) -> Matrix:
    """The YUV matrix of a frame. Files that do not say are BT.709 from 1280 pixels wide or above
    576 high and BT.601 below, the rule that players (mpv among them) follow.
    """
    guess = Matrix.BT709 if width >= 1280 or height > 576 else Matrix.BT601
    return _MATRICES.get(int(colorspace), guess)


def range_of(color_range: int, pixel_format: str) -> ColorRange:
    """Full or limited range. Files that do not say are limited, but for JPEG's own formats."""
    if int(color_range) in (1, 2):
        return ColorRange(int(color_range))
    full = pixel_format.startswith(("yuvj", "gray", "ya", "rgb", "bgr", "gbr", "pal", "mono"))
    return ColorRange.JPEG if full else ColorRange.MPEG


class Converter:
    """av.VideoFrame -> `Planes` where it is upright YUV 4:2:0 of 8 bits, limited range and even
    sides, as nearly every video's, and uint8 (H, W, 3) RGB, upright, elsewhere. Such planes of a
    frame that lies on a card stay there (`CardPlanes`). For one thread.
    """

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()
        self._rotation: int | None = None
        self._turn: tuple[int, int, int, int] | None = None

    def __call__(self, frame: av.VideoFrame) -> Image | Planes:
        name = frame.format.name
        on_card = name == CARD_FORMAT
        if on_card:
            name = getattr(frame.sw_format, "name", "")
        # Asking a frame for its side data ties it to itself, so that its buffers outlive it until
        # the garbage collector comes: a gigabyte a minute. Its rotation can be had without.
        if frame.rotation != self._rotation:
            self._rotation, self._turn = frame.rotation, _display_matrix(frame)
        matrix = matrix_of(frame.colorspace, frame.width, frame.height)
        color_range = range_of(frame.color_range, name)
        even = not (frame.width % 2 or frame.height % 2)
        limited = color_range == ColorRange.MPEG
        plain = limited and even and self._turn in (None, _UPRIGHT)
        if plain and name == FORMAT:
            return Planes(frame, matrix)
        if plain and on_card and name == CARD_SAMPLES:
            return CardPlanes(frame, matrix)
        image = to_rgb(self._reformatter, frame, matrix, color_range)
        if name.startswith("gray") and int(frame.color_range) == ColorRange.MPEG:
            image = np.asarray(cv2.LUT(image, _EXPAND), np.uint8)
        return upright(image, self._turn)


# 16..235 -> 0..255 (ITU-R BT.601): swscale takes every gray format for full range.
_EXPAND = np.clip(np.rint((np.arange(256) - 16) * 255 / 219), 0, 255).astype(np.uint8)


def _display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int] | None:
    """(a, b, c, d) of the display matrix, as -1, 0 or 1, or None where there is none.

    x' = a x + c y, y' = b x + d y (ISO/IEC 14496-12, 6.2.2; FFmpeg's libavutil/display.h).
    """
    side: Any = frame.side_data.get("DISPLAYMATRIX")
    if side is None:
        return None
    m = np.frombuffer(side, np.int32)
    biggest = max(abs(int(v)) for v in (m[0], m[1], m[3], m[4])) or 1
    a, b, c, d = (round(int(v) / biggest) for v in (m[0], m[1], m[3], m[4]))
    return a, b, c, d


def upright(image: Image, matrix: tuple[int, int, int, int] | None) -> Image:
    """Applies a display matrix of quarter turns and mirrors; others leave the picture as it is."""
    if matrix is None or matrix == _UPRIGHT:
        return image
    a, b, c, d = matrix
    if abs(a) == 1 and abs(d) == 1 and not (b or c):
        code = {(-1, -1): -1, (-1, 1): 1, (1, -1): 0}[(a, d)]
        return np.asarray(cv2.flip(image, code), np.uint8)
    if abs(b) == 1 and abs(c) == 1 and not (a or d):
        turned = np.asarray(cv2.transpose(image), np.uint8)
        if (c, b) == (1, 1):
            return turned
        code = {(-1, -1): -1, (-1, 1): 1, (1, -1): 0}[(c, b)]
        return np.asarray(cv2.flip(turned, code), np.uint8)
    return image
