"""The flicker score: how much of the labels changes from frame to frame without a reason.

Where a pixel came from is told by dense optical flow (DIS; Kroeger et al. 2016, arXiv 1603.03590).
Its label should come along, so a pixel flickers when its class is nowhere in the 3x3 pixels that it
came from. Like the temporal consistency of Varghese et al. (CVPR workshops 2020, "Unsupervised
temporal consistency metric for video segmentation"), it needs no truth, and says nothing about
whether labels are right: a network that always says background has the best score.

The 3x3 forgive what flow and sampling cannot tell. What was hidden, has left, or does not look like
what it came from is not compared, and neither are two frames with a cut between them.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.frame import Image
from pipeline.stages.geometry import present

# Of the larger side of what is looked at, pixels: flow at full size costs more than a network.
_SIDE = 480

# The flow there and the flow back must meet, but for a hundredth of their squared lengths and half
# a pixel: Sundaram et al., ECCV 2010, equation 5.
_SLACK, _PIXEL = 0.01, 0.5

# Gray levels between a pixel and what it came from, beyond which one of them is something else.
_ALIKE = 25

# Of the pixels, at least: with fewer that can be followed there is a cut.
_LEAST = 0.3

# DIS matches patches of 8x8 pixels on ever smaller pictures, and fails on those that hold none.
_LEAST_SIDE = 16

Flow = NDArray[np.float32]

_NEIGHBOURS = np.ones((3, 3), np.uint8)


class Flicker:
    """Adds up over the frames of one video, given in order."""

    def __init__(self) -> None:
        self.pairs = 0
        """Frames that were compared with the one before."""
        self.cuts = 0
        """Frames that were not, because hardly anything of the one before is in them."""
        self._compared = self._flickered = 0
        self._flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self._before: tuple[Image, Image] | None = None

    @property
    def score(self) -> float:
        """The share of the compared pixels that flicker, 0..1; NaN before the second frame."""
        return self._flickered / self._compared if self._compared else float("nan")

    def begin(self) -> None:
        """The next frame is not compared with the one before it."""
        self._before = None

    def add(self, image: Image, labels: Image) -> None:
        """The next frame: uint8 (H, W, 3) RGB and uint8 (H, W) class ids.

        A frame of another size than the one before begins anew, as after a cut.
        """
        height, width = labels.shape
        shrink = min(1.0, _SIDE / max(height, width))
        size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
        seen = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        gray = np.asarray(cv2.cvtColor(seen, cv2.COLOR_RGB2GRAY), np.uint8)
        small = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST_EXACT)
        before, self._before = self._before, (gray, small)
        if before is None or before[0].shape != gray.shape or min(size) < _LEAST_SIDE:
            return
        came = self._flow.calc(gray, before[0], None)
        went = self._flow.calc(before[0], gray, None)
        place = came + _positions(gray.shape)
        known = _followed(gray, before[0], came, went, place)
        if np.count_nonzero(known) < _LEAST * known.size:
            self.cuts += 1
            return
        changed = cv2.bitwise_and(_changed(small, before[1], place), known)
        self.pairs += 1
        self._compared += int(np.count_nonzero(known))
        self._flickered += int(np.count_nonzero(changed))


def _positions(shape: tuple[int, ...]) -> Flow:
    """float32 (H, W, 2): each pixel's own x and y."""
    rows, columns = np.indices(shape[:2], np.float32)
    return np.dstack([columns, rows])


def _followed(gray: Image, before: Image, came: Flow, went: Flow, place: Flow) -> Image:
    """255 where a pixel's way is known: there and back again, inside of the picture, and alike."""
    height, width = gray.shape
    back = cv2.remap(went, place, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    off = ((came + back) ** 2).sum(2)
    far = (came**2).sum(2) + (back**2).sum(2)
    x, y = place[..., 0], place[..., 1]
    inside = (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1)
    moved = cv2.remap(before, place, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    alike = cv2.absdiff(gray, moved) <= _ALIKE
    return np.asarray(255 * (inside & alike & (off <= _SLACK * far + _PIXEL)), np.uint8)


def _changed(labels: Image, before: Image, place: Flow) -> Image:
    """255 where a pixel's class is nowhere around where it came from."""
    out = np.zeros_like(labels)
    for class_id in present(labels):
        now = cv2.compare(labels, float(class_id), cv2.CMP_EQ)
        then = cv2.dilate(cv2.compare(before, float(class_id), cv2.CMP_EQ), _NEIGHBOURS)
        then = cv2.remap(then, place, None, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
        out |= now & ~then
    return out
