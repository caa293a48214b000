"""Class ids -> the picture that people look at."""

from __future__ import annotations

import cv2
import numpy as np

from engines.card import Card
from pipeline.frame import Frame, Image
from pipeline.runner import Frames, Stage
from pipeline.stages.draw import contours, draw_legend, line_width
from pipeline.stages.geometry import LabelScaler, present, window
from pipeline.stages.look import Controls, Look
from pipeline.stages.smooth import Smoother
from pipeline.stats import engine_wait

# A class that leaves the picture stays in the legend for this many frames, so that a flickering
# class does not make the legend jump.
_LEGEND_FRAMES = 25


def colorize(card: Card, look: Look | Controls | None = None, *, smooth: bool = False) -> Stage:
    """Waits for the engine's answer, then fills in `labels` and `picture`, both at frame size.

    With `Controls` each frame wears the look that is set when it is painted. With `smooth` labels
    hold still where the picture does; `infer` must leave it the network's input for that.
    """
    controls = look if isinstance(look, Controls) else Controls(look)

    def run(frames: Frames) -> Frames:
        scale = LabelScaler()
        smoother = Smoother() if smooth else None
        painter = Painter(card, controls.look)
        for frame in frames:
            assert frame.pending is not None
            with engine_wait():
                small = frame.pending.result()[0]
            frame.pending = None
            height, width = frame.image.shape[:2]
            if smoother is not None:
                small = _smooth(smoother, frame, small, card)
            frame.labels = scale(small, height, width, card.input)
            if painter.look is not controls.look:
                painter.wear(controls.look)
            frame.picture = painter.paint(frame.image, frame.labels, still=bool(frame.name))
            yield frame

    return Stage(
        "colorize", run, "painting is the limit: turn off --contours and --legend, or shrink frames"
    )


def _smooth(smoother: Smoother, frame: Frame, labels: Image, card: Card) -> Image:
    assert frame.tensor is not None
    where = window(frame.image.shape[0], frame.image.shape[1], card.input)
    steady = smoother(labels, frame.tensor[0], where, frame.time_s)
    frame.tensor = None
    part = np.s_[where.top : where.top + where.height, where.left : where.left + where.width]
    # Copies: the next frame overwrites the one, and an engine may overwrite the other.
    frame.smoothed = labels[part].copy(), steady[part].copy()
    return steady


class Painter:
    """Paints labels; its buffers are kept from frame to frame. For one thread."""

    def __init__(self, card: Card, look: Look) -> None:
        self._names = card.classes
        self._background = card.background
        self._colors = card.colors
        self._table = card.colors.reshape(256, 1, 3)
        self._painted = np.zeros(256, np.uint8)
        self._seen: dict[int, int] = {}
        self._scratch = np.empty(0, np.uint8)
        self._mask = np.empty((0, 0), np.uint8)
        self.wear(look)

    def wear(self, look: Look) -> None:
        """Paints in this look from now on."""
        painted = look.classes
        count = len(self._names)
        if painted is None:
            painted = tuple(i for i in range(count) if i != self._background)
        self.look = look
        self._painted[:] = 0
        self._painted[list(painted)] = 255
        self._everything = len(set(painted)) == count
        self._seen = {i: left for i, left in self._seen.items() if self._painted[i]}

    def paint(self, image: Image, labels: Image, still: bool = False) -> Image:
        """uint8 (H, W, 3) RGB and uint8 (H, W) ids -> uint8 (H, W, 3) RGB.

        Where nothing is painted the result is `image` itself, not a copy. Elsewhere a pixel is
        round((1 - overlay) * image + overlay * colour). A `still` has a legend of its own classes;
        a video's remembers those of the last second.
        """
        mask = None if self._everything else self._mask_of(labels)
        box = (0, 0, labels.shape[1], labels.shape[0]) if mask is None else cv2.boundingRect(mask)
        picture = image
        if box[2] and (self.look.overlay or self.look.contours):
            picture = self._blend(image, labels, mask, box)
        if self.look.legend:
            picture = picture.copy() if picture is image else picture
            self._draw_legend(picture, labels, still)
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
            _copy(blended, inside, picture[part])
        if self.look.contours:
            # An object's border lies at the edge of its box: the lines need its surroundings.
            reach = line_width(image.shape[0])
            top, left = max(0, y - reach), max(0, x - reach)
            around = labels[top : y + h + reach, left : x + w + reach]
            lines = contours(around, image.shape[0])[y - top :, x - left :][:h, :w]
            if inside is not None:
                cv2.bitwise_and(lines, inside, lines)
            _copy(colors, lines, picture[part])
        return np.asarray(picture)

    def _mask_of(self, labels: Image) -> Image:
        """uint8 (H, W), 255 where a class is painted; to be overwritten by the next frame."""
        if self._mask.shape != labels.shape:
            self._mask = np.empty_like(labels)
        cv2.LUT(labels, self._painted, self._mask)
        return self._mask

    def _buffers(self, h: int, w: int) -> tuple[Image, Image]:
        """Two pictures of uint8 (h, w, 3), to be overwritten by the next frame."""
        size = h * w * 3
        if self._scratch.size < 2 * size:
            self._scratch = np.empty(2 * size, np.uint8)
        one, two = self._scratch[:size], self._scratch[size : 2 * size]
        return one.reshape(h, w, 3), two.reshape(h, w, 3)

    def _draw_legend(self, picture: Image, labels: Image, still: bool) -> None:
        if still:
            self._seen.clear()
        # Every fourth pixel will do: what is smaller than that needs no name.
        for class_id in present(np.ascontiguousarray(labels[::4, ::4])):
            if self._painted[class_id]:
                self._seen[class_id] = _LEGEND_FRAMES
        shown = sorted(self._seen)
        draw_legend(picture, [self._names[i] for i in shown], self._colors[shown])
        self._seen = {i: left - 1 for i, left in self._seen.items() if left > 1}


def _copy(source: Image, mask: Image | None, target: Image) -> None:
    if mask is None:
        np.copyto(target, source)
    else:
        cv2.copyTo(source, mask, target)
