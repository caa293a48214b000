"""Labels of frames that the network has not seen: those of the frame before, moved as the picture.

Dense optical flow (DIS: Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016)
between neighbours, at half the network's size. At its full size it gained 0.2 points of agreement
with the network, at a quarter it lost one.
"""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.frame import Frame, Image

# Gray levels by which the mean pixel of two neighbours differs where the one says nothing about the
# other. Cuts of the clips it was tried on differ by 40 and more, a camera in a running hand by 15.
_CUT = 30.0
# Cuts are looked for in pictures of so many pixels a side: small things that move do not count.
_COARSE = 32


# Pixels a side that the flow gets at least: OpenCV 5.0's DIS has crashed on 16 x 150.
_LEAST = 64
# Seconds between two frames beyond which motion no longer joins them.
_GAP_S = 0.5


class Turns:
    """Decides which frames the network sees: one of `every` so many, and each that has no like
    before it. For the frames of one video, in order; for one thread.
    """

    def __init__(self, every: int) -> None:
        self._every = every
        self._passed = 0
        self._before: Image | None = None
        self._size: tuple[int, ...] = ()
        self._time_s = 0.0

    def due(self, frame: Frame, picture: Image) -> bool:
        """Whether it is the frame's turn; `picture` is the network's uint8 (H, W, 3) RGB input."""
        shape = (_COARSE, _COARSE)
        # A few points of each cell stand for all of them: a fifth of the time of their mean.
        few = cv2.resize(picture, (4 * _COARSE, 4 * _COARSE), interpolation=cv2.INTER_NEAREST)
        small = np.asarray(cv2.resize(few, shape, interpolation=cv2.INTER_AREA), np.uint8)
        size = frame.held_image.shape[:2]
        joined = (
            self._before is not None
            and size == self._size
            and 0 <= frame.time_s - self._time_s <= _GAP_S
            and float(cv2.absdiff(small, self._before).mean()) <= _CUT
        )
        self._before, self._size, self._time_s = small, size, frame.time_s
        self._passed = self._passed + 1 if joined else self._every
        if self._passed < self._every:
            return False
        self._passed = 0
        return True


class Carrier:
    """For the frames of one video, in order; for one thread."""

    def __init__(self) -> None:
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._gray: Image | None = None
        self._labels: Image | None = None
        self._places = np.empty((0, 0, 2), np.float32)

    def __call__(self, labels: Image | None, picture: Image) -> Image:
        """uint8 (H, W) ids, or None where the network has not seen the frame, and the network's
        input, uint8 (H, W, 3) RGB -> the frame's ids. The first frame must have some.
        """
        height, width = picture.shape[:2]
        size = (max(_LEAST, width // 2), max(_LEAST, height // 2))
        # At half the size both ways that OpenCV offers are the mean of 2 x 2; this one is SIMD
        # where a side is odd, too.
        whole = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        gray = np.asarray(cv2.resize(whole, size, interpolation=cv2.INTER_LINEAR), np.uint8)
        if labels is None:
            assert self._labels is not None
            assert self._gray is not None
            labels = self._moved(self._labels, self._gray, gray)
        self._labels, self._gray = labels, gray
        return labels

    def _moved(self, labels: Image, before: Image, now: Image) -> Image:
        """`labels` of the picture `before` as they lie `now`."""
        height, width = labels.shape
        rows, columns = now.shape
        scale = (width / columns, height / rows)
        if self._places.shape[:2] != now.shape:
            ys, xs = np.mgrid[:rows, :columns] + 0.5
            self._places = np.dstack([xs * scale[0], ys * scale[1]]).astype(np.float32) - 0.5
        # From now to before: where in the labels did what is in this place come from?
        flow = self._flow.calc(now, before, None)
        flow *= np.array(scale, np.float32)
        flow += self._places
        where = cv2.resize(flow, (width, height), interpolation=cv2.INTER_LINEAR)
        moved = cv2.remap(labels, where, None, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(moved, np.uint8)
