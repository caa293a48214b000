"""Lines and letters on pictures, sized by the picture."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from pipeline.frame import Image

_FONT = cv2.FONT_HERSHEY_SIMPLEX


def line_width(height: int) -> int:
    """Pixels: 2 for a picture 720 pixels high and in proportion for others, at least 2."""
    return max(2, round(height / 360))


def contours(labels: Image, height: int) -> Image:
    """A mask, uint8 (H, W) of 0 or 255, of lines between classes, `line_width(height)` pixels wide.

    `labels` may be a part of the picture that is `height` pixels high; a line is whole where the
    part reaches that many pixels beyond it.
    """
    size = line_width(height) + 1  # a window of n pixels meets a border at n - 1 places
    gradient = cv2.morphologyEx(labels, cv2.MORPH_GRADIENT, np.ones((size, size), np.uint8))
    # Not cv2.compare: it takes a single pixel and a number for two arrays of different types.
    return np.asarray(cv2.threshold(gradient, 0, 255, cv2.THRESH_BINARY)[1], np.uint8)


def copy_masked(source: Image, mask: Image | None, target: Image) -> None:
    """Copies where the mask is not 0; None is everywhere."""
    if mask is None:
        np.copyto(target, source)
    else:
        cv2.copyTo(source, mask, target)


def draw_legend(picture: Image, names: Sequence[str], colors: Image, height: int) -> None:
    """Draws a box with each name and its colour, RGB, into the top left corner of a picture that is
    `height` pixels high, or of a part of it that reaches as far as `legend_extent` says.
    """
    if not names:
        return
    unit, scale, thickness = _type(height)
    bottom, right = legend_extent(names, height)
    panel = picture[unit // 2 : bottom, unit // 2 : right]
    cv2.addWeighted(panel, 0.35, np.zeros_like(panel), 0.65, 0, panel)
    for i, (text, color) in enumerate(zip(_texts(names), colors, strict=True)):
        top = unit * (i + 1)
        rgb = tuple(int(v) for v in color)
        cv2.rectangle(picture, (unit, top), (unit + unit * 3 // 4, top + unit * 3 // 4), rgb, -1)
        cv2.putText(
            picture, text, (unit * 2, top + unit * 3 // 4), _FONT, scale, (255, 255, 255),
            thickness, cv2.LINE_AA,
        )  # fmt: skip


def draw_lines(picture: Image, lines: Sequence[str]) -> None:
    """Writes lines of text, white on a darkened box, into the picture's lower left corner."""
    unit = max(10, picture.shape[0] // 36)  # height of a line, pixels
    scale, thickness = unit / 28, max(1, unit // 14)
    widest = max(cv2.getTextSize(line, _FONT, scale, thickness)[0][0] for line in lines)
    top = max(0, picture.shape[0] - unit // 2 - unit * 5 // 4 * len(lines) - unit)
    panel = picture[top : picture.shape[0] - unit // 2, unit // 2 : unit // 2 + widest + unit * 2]
    if not panel.size:
        return  # a picture of a few pixels
    cv2.addWeighted(panel, 0.35, np.zeros_like(panel), 0.65, 0, panel)
    for i, line in enumerate(lines):
        where = (unit // 2 + unit, top + unit * 5 // 4 * (i + 1) + unit // 4)
        cv2.putText(picture, line, where, _FONT, scale, (255, 255, 255), thickness, cv2.LINE_AA)


def legend_extent(names: Sequence[str], height: int) -> tuple[int, int]:
    """Rows and columns of a picture, from its top left corner, in which its legend lies."""
    unit, scale, thickness = _type(height)
    widths = [cv2.getTextSize(text, _FONT, scale, thickness)[0][0] for text in _texts(names)]
    bottom = min(height, unit * (len(names) + 1) + unit // 2)
    return bottom, unit // 2 + max(widths, default=0) + unit * 5 // 2


def _type(height: int) -> tuple[int, float, int]:
    """A line's height in pixels, the font's scale and the strokes' width."""
    unit = max(10, height // 36)
    return unit, unit / 28, max(1, unit // 14)


def _texts(names: Sequence[str]) -> list[str]:
    return [name.encode("ascii", "replace").decode() for name in names]  # all that the font has
