"""Labels of frames that the network has not seen: those of the frame before, moved as the picture.

Dense optical flow (DIS: Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016)
between neighbours, at half the network's size: 1.9 ms of a core at 289x513. At its full size it
took 3.7 ms and gained 0.2 points of agreement with the network, at a quarter 1.1 ms and lost one.
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
        small = np.asarray(cv2.resize(picture, shape, interpolation=cv2.INTER_AREA), np.uint8)
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
        half = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        gray = np.asarray(cv2.cvtColor(half, cv2.COLOR_RGB2GRAY), np.uint8)
        if labels is None:
            assert self._labels is not None
            assert self._gray is not None
            labels = self._moved(self._labels, self._gray, gray)
        self._labels, self._gray = labels, gray
        return labels

    def _moved(self, labels: Image, before: Image, now: Image) -> Image:
        """`labels` of the picture `before` as they lie `now`."""
        height, width = labels.shape
        # From now to before: where did this pixel come from?
        flow = self._flow.calc(now, before, None)
        flow = cv2.resize(flow, (width, height), interpolation=cv2.INTER_LINEAR)
        if self._places.shape[:2] != labels.shape:
            ys, xs = np.mgrid[:height, :width].astype(np.float32)
            self._places = np.dstack([xs, ys])
        flow *= np.array([width / now.shape[1], height / now.shape[0]], np.float32)
        flow += self._places
        moved = cv2.remap(labels, flow, None, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(moved, np.uint8)
