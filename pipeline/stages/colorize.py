"""Class ids -> the picture that people look at."""

from __future__ import annotations

from typing import overload

import cv2
import numpy as np

from engines.card import Card
from pipeline.frame import Frame, Image
from pipeline.planes import Planes
from pipeline.roles import Frames, Stage
from pipeline.stages.carry import Carrier
from pipeline.stages.draw import contours, copy_masked, line_width
from pipeline.stages.geometry import LabelScaler, window
from pipeline.stages.legend import Legend
from pipeline.stages.look import Controls, Look
from pipeline.stages.plane_brush import PlaneBrush, brush_for
from pipeline.stages.smooth import Smoother
from pipeline.stats import engine_wait


def colorize(
    card: Card,
    look: Look | Controls | None = None,
    *,
    smooth: bool = False,
    carry: bool = False,
) -> Stage:
    """Waits for the engine's answer, then fills in `labels` and `picture`, both at frame size.

    With `Controls` each frame wears the look that is set when it is painted. With `smooth` labels
    hold still where the picture does; with `carry` frames that `infer` has passed over get those of
    the frame before, moved as the picture. For both `infer` must leave it the network's input.
    """
    controls = look if isinstance(look, Controls) else Controls(look)

    def run(frames: Frames) -> Frames:
        scale = LabelScaler()
        smoother = Smoother() if smooth else None
        carrier = Carrier() if carry else None
        painter = Painter(card, controls.look)
        for frame in frames:
            small = None
            if frame.pending is not None:
                with engine_wait():
                    small = frame.pending.result()[0]
                frame.pending = None
            if carrier is not None:
                assert frame.tensor is not None
                small = carrier(small, frame.tensor[0])
            assert small is not None
            height, width = frame.held_image.shape[:2]
            if smoother is not None:
                small = _smooth(smoother, frame, small, card)
            frame.tensor = None
            frame.labels = scale(small, height, width, card.input)
            if painter.look is not controls.look:
                painter.wear(controls.look)
            frame.picture = painter.paint(frame.held_image, frame.labels, still=bool(frame.name))
            yield frame

    return Stage(
        "colorize", run, "painting is the limit: turn off --contours and --legend, or shrink frames"
    )


def _smooth(smoother: Smoother, frame: Frame, labels: Image, card: Card) -> Image:
    assert frame.tensor is not None
    where = window(frame.held_image.shape[0], frame.held_image.shape[1], card.input)
    steady = smoother(labels, frame.tensor[0], where, frame.time_s)
    # Copies: the next frame overwrites the one, and an engine may overwrite the other.
    frame.smoothed = where.of(labels).copy(), where.of(steady).copy()
    return steady


class Painter:
    """Paints labels; its buffers are kept from frame to frame. For one thread."""

    def __init__(self, card: Card, look: Look) -> None:
        self._card = card
        self._colors = card.colors
        self._legend = Legend(card)
        self._table = card.colors.reshape(256, 1, 3)
        self._painted = np.zeros(256, np.uint8)
        self._scratch = np.empty(0, np.uint8)
        self._mask = np.empty((0, 0), np.uint8)
        self._brush: PlaneBrush | None = None
        self.wear(look)

    def wear(self, look: Look) -> None:
        """Paints in this look from now on."""
        painted = look.painted(self._card)
        self.look = look
        self._painted[:] = 0
        self._painted[list(painted)] = 255
        off = sorted(set(range(len(self._card.classes))) - set(painted))
        self._everything = not off
        self._all_but_0 = off == [0]
        self._legend.name(painted)

    @overload
    def paint(self, image: Image, labels: Image, still: bool = False) -> Image: ...
    @overload
    def paint(
        self, image: Image | Planes, labels: Image, still: bool = False
    ) -> Image | Planes: ...
    def paint(self, image: Image | Planes, labels: Image, still: bool = False) -> Image | Planes:
        """uint8 (H, W, 3) RGB or planes, and uint8 (H, W) ids -> the painted picture, alike.

        Where nothing is painted the result is `image` itself, not a copy. Elsewhere a pixel is
        round((1 - overlay) * image + overlay * colour). A `still` has a legend of its own classes;
        a video's remembers those of the last second.
        """
        mask = None if self._everything else self._mask_of(labels)
        box = (0, 0, labels.shape[1], labels.shape[0]) if mask is None else cv2.boundingRect(mask)
        picture = image
        if box[2] and (self.look.overlay or self.look.contours):
            if isinstance(image, Planes):
                picture = self._blend_planes(image, labels, mask, box)
            else:
                picture = self._blend(image, labels, mask, box)
        if self.look.legend:
            picture = picture.copy() if picture is image else picture
            # Every fourth pixel will do: what is smaller than that needs no name.
            self._legend.draw(picture, np.ascontiguousarray(labels[::4, ::4]), still)
        return picture

    def _blend(
        self, image: Image, labels: Image, mask: Image | None, box: tuple[int, ...]
    ) -> Image:
        """A copy of `image` with everything inside `box` (x, y, width, height) painted."""
        x, y, w, h = box
        part = np.s_[y : y + h, x : x + w]
        picture = image.copy()
        colors, blended = self._buffers(h, w)
        cv2.applyColorMap(labels[part], self._table, colors)
        inside = None if mask is None else mask[part]
        if self.look.overlay:
            share = self.look.overlay
            cv2.addWeighted(image[part], 1 - share, colors, share, 0, blended)
            copy_masked(blended, inside, picture[part])
        if self.look.contours:
            copy_masked(colors, _lines(labels, mask, box), picture[part])
        return np.asarray(picture)

    def _blend_planes(
        self, image: Planes, labels: Image, mask: Image | None, box: tuple[int, ...]
    ) -> Planes:
        """The same for planes."""
        self._brush = brush_for(self._brush, self._colors, image)
        picture = image.copy()
        lines = None
        if self.look.contours:
            x, y, w, h = box
            lines = np.zeros(labels.shape, np.uint8)
            lines[y : y + h, x : x + w] = _lines(labels, mask, box)
        self._brush.lay(picture, labels, mask, lines, box, self.look.overlay)
        return picture

    def _mask_of(self, labels: Image) -> Image:
        """uint8 (H, W), 255 where a class is painted; to be overwritten by the next frame."""
        if self._mask.shape != labels.shape:
            self._mask = np.empty_like(labels)
        if self._all_but_0:
            cv2.threshold(labels, 0, 255, cv2.THRESH_BINARY, self._mask)  # a tenth of LUT's time
        else:
            cv2.LUT(labels, self._painted, self._mask)
        return self._mask

    def _buffers(self, h: int, w: int) -> tuple[Image, Image]:
        """Two pictures of uint8 (h, w, 3), to be overwritten by the next frame."""
        size = h * w * 3
        if self._scratch.size < 2 * size:
            self._scratch = np.empty(2 * size, np.uint8)
        one, two = self._scratch[:size], self._scratch[size : 2 * size]
        return one.reshape(h, w, 3), two.reshape(h, w, 3)


def _lines(labels: Image, mask: Image | None, box: tuple[int, ...]) -> Image:
    """Contours inside `box`, uint8 (height, width) of 0 or 255; of what is painted only."""
    x, y, w, h = box
    # An object's border lies at the edge of its box: the lines need its surroundings.
    reach = line_width(labels.shape[0])
    top, left = max(0, y - reach), max(0, x - reach)
    around = labels[top : y + h + reach, left : x + w + reach]
    lines = contours(around, labels.shape[0])[y - top :, x - left :][:h, :w]
    if mask is not None:
        cv2.bitwise_and(lines, mask[y : y + h, x : x + w], lines)
    return lines
