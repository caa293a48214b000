"""Labels that hold still where the picture does: smoothing over time at the network's size.

A network that is undecided at a place changes its mind from frame to frame, though nothing moves.
Here a new class is shown once it has come `hold` frames running, or at once where the picture has
changed: what moves is not held back. After a cut nothing is held.

A pass over a few small uint8 arrays, no optical flow: that would cost more than many a network.
"""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.frame import Image
from pipeline.stages.geometry import Window

HOLD = 3

# Levels of a channel by which a pixel must differ from the frame before to count as moved. Noise
# and a codec's own changes are mostly below; a moving edge is mostly above.
_MOVED = 10

# What moves is judged by its surroundings: a moving body is not textured everywhere.
_AROUND = np.ones((3, 3), np.uint8)

# Of all pixels; beyond this share the frame shows something else, or the whole camera moves.
_CUT = 0.5

# Seconds between two frames, beyond which the one says nothing about the other. Not any missing
# frame: of a camera that is faster than the network some are always dropped.
_GAP_S = 0.5


class Smoother:
    """For the frames of one video, in order; for one thread."""

    def __init__(self, hold: int = HOLD) -> None:
        self._hold = hold
        self._shown = self._candidate = self._count = self._one = np.empty((0, 0), np.uint8)
        self._picture = np.empty((0, 0, 3), np.uint8)
        self._begun: tuple[Window, tuple[int, ...]] | None = None
        self._time_s = 0.0

    def __call__(self, labels: Image, picture: Image, where: Window, time_s: float) -> Image:
        """uint8 (H, W) ids, the network's uint8 (H, W, 3) RGB input that they are of, where in it
        the picture lies, and the frame's time -> uint8 (H, W) ids, valid until the next call.
        """
        before, self._picture = self._picture, picture
        begun, self._begun = self._begun, (where, labels.shape)
        passed_s, self._time_s = time_s - self._time_s, time_s
        if begun != self._begun or not 0 <= passed_s <= _GAP_S:
            return self._begin(labels)
        # In any channel: red and gray may be equally bright. Gray of a mark is not 0.
        marks = cv2.threshold(cv2.absdiff(picture, before), _MOVED, 255, cv2.THRESH_BINARY)[1]
        moved = cv2.cvtColor(marks, cv2.COLOR_RGB2GRAY)
        # Only there: what surrounds a picture that keeps its aspect never moves.
        inside = where.of(moved)
        if cv2.countNonZero(inside) > _CUT * inside.size:
            return self._begin(labels)
        moved = cv2.dilate(moved, _AROUND)
        # Frames running in which the candidate has come: 1 where it is a new one, else one more.
        again = cv2.compare(labels, self._candidate, cv2.CMP_EQ)
        cv2.bitwise_and(self._count, again, self._count)
        # The one as an array: with a number OpenCV takes small arrays for pairs of numbers.
        cv2.add(self._count, self._one, self._count)
        np.copyto(self._candidate, labels)
        steady = cv2.threshold(self._count, self._hold - 1, 255, cv2.THRESH_BINARY)[1]
        cv2.copyTo(labels, cv2.bitwise_or(moved, steady), self._shown)
        return self._shown

    def _begin(self, labels: Image) -> Image:
        self._shown, self._candidate = labels.copy(), labels.copy()
        self._count = np.full_like(labels, self._hold)
        self._one = np.ones_like(labels)
        return self._shown
