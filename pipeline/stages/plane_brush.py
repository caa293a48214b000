"""Paints on YUV planes what colorize paints on RGB, so that nothing is converted there and back."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from pipeline.frame import Image
from pipeline.planes import Matrix, Planes, from_rgb, into_rgb
from pipeline.stages.draw import copy_masked


class PlaneBrush:
    """Colours of classes, uint8 (256, 3) RGB, as a matrix has them in YUV; for one thread.

    A pixel of luma is painted as a pixel of RGB would be. A pixel of chroma stands for four of the
    picture: it gets as much of each one's colour as they would have got together.
    """

    def __init__(self, colors: Image, matrix: Matrix) -> None:
        self.matrix = matrix
        table = cv2.transform(colors.reshape(256, 1, 3), from_rgb(matrix))
        self._luma, *self._chroma = (np.ascontiguousarray(c) for c in cv2.split(table))

    def lay(
        self,
        picture: Planes,
        labels: Image,
        mask: Image | None,
        lines: Image | None,
        box: tuple[int, ...],
        share: float,
    ) -> None:
        """Paints in place, inside `box` (x, y, width, height): where `mask` is 255 (None is
        everywhere) `share` of the classes' colours, on `lines` nothing else.
        """
        (left, right), (top, bottom) = _even(box[0], box[2]), _even(box[1], box[3])
        part = np.s_[top:bottom, left:right]
        ids, luma = labels[part], picture.y[part]
        colors = cv2.LUT(ids, self._luma)
        mixed = cv2.addWeighted(luma, 1 - share, colors, share, 0)
        # Weight and mask of the colours that are laid on; without a mask, everywhere.
        layers: list[tuple[float, Image | None]] = [(share, None if mask is None else mask[part])]
        if lines is not None:
            under = np.asarray(cv2.bitwise_not(lines[part]), np.uint8)
            inside = layers[0][1]
            if inside is not None:
                cv2.bitwise_and(inside, under, under)
            layers = [(share, under), (1.0, lines[part])]
        copy_masked(mixed, layers[0][1], luma)
        if lines is not None:
            copy_masked(colors, lines[part], luma)
        half = np.s_[top // 2 : bottom // 2, left // 2 : right // 2]
        for plane, table in zip((picture.u[half], picture.v[half]), self._chroma, strict=True):
            _mix(plane, cv2.LUT(ids, table), layers)

    def draw(self, picture: Planes, bottom: int, right: int, draw: Callable[[Image], None]) -> None:
        """Lets `draw` change the picture's upper left (bottom, right) pixels as RGB."""
        bottom, right = (
            min(s, n + n % 2) for s, n in zip(picture.shape, (bottom, right), strict=True)
        )
        luma = picture.y[:bottom, :right]
        chroma = [p[: bottom // 2, : right // 2] for p in (picture.u, picture.v)]
        whole = [luma, *(c.repeat(2, axis=0).repeat(2, axis=1) for c in chroma)]
        rgb = cv2.transform(cv2.merge(whole), into_rgb(self.matrix))
        draw(rgb)
        changed = cv2.split(cv2.transform(rgb, from_rgb(self.matrix)))
        np.copyto(luma, changed[0])
        for plane, large in zip(chroma, changed[1:], strict=True):
            np.copyto(plane, _halve(large))


def brush_for(last: PlaneBrush | None, colors: Image, picture: Planes) -> PlaneBrush:
    """The brush that was used last, if it is for such a picture, else a new one."""
    if last is None or last.matrix != picture.matrix:
        return PlaneBrush(colors, picture.matrix)
    return last


def _mix(plane: Image, colors: Image, layers: list[tuple[float, Image | None]]) -> None:
    """Mixes colours at the picture's size into chroma at half of it, in place. The layers' masks do
    not overlap.
    """
    if layers[0][1] is None:
        share = layers[0][0]
        cv2.addWeighted(plane, 1 - share, _halve(colors), share, 0, plane)
        return
    # What remains of each pixel of chroma: 255 where none of its four is painted.
    rest = np.full(plane.shape, 255, np.uint8)
    for share, mask in layers:
        assert mask is not None
        cv2.addWeighted(rest, 1, _halve(mask), -share, 0, rest)
    cv2.multiply(plane, rest, plane, 1 / 255)
    for share, mask in layers:
        assert mask is not None
        cv2.addWeighted(plane, 1, _halve(cv2.bitwise_and(colors, mask)), share, 0, plane)


def _even(begin: int, length: int) -> tuple[int, int]:
    """The least range between even numbers that holds `length` from `begin` on."""
    return begin - begin % 2, begin + length + (begin + length) % 2


def _halve(plane: Image) -> Image:
    """The means of 2 x 2 pixels."""
    height, width = plane.shape
    return np.asarray(
        cv2.resize(plane, (width // 2, height // 2), interpolation=cv2.INTER_AREA), np.uint8
    )
