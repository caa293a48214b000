"""The two sampling rules: pictures to the network's size, labels back to the picture's.

Both lanes, on the CPU and on the GPU, follow the same two:

1. Picture -> network: bilinear with half-pixel centres and no prefilter (OpenCV's INTER_LINEAR),
   or area averaging where the card asks for it. Aspect `stretch` scales each side by itself;
   `keep` scales both alike, centres the picture and fills the rest with the card's mean.
2. Labels -> picture: each class's mask is smoothed by [1 2 1] / 4 in both directions (edges
   repeated; only where labels are enlarged), interpolated bilinearly with half-pixel centres, and
   a pixel gets the class whose mask is highest there, of two equal ones the lower id. Nearest
   neighbour would show the network's pixels as stairs, interpolation alone as shallower stairs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from engines.card import CardInput
from pipeline.frame import Image
from pipeline.planes import Planes, into_rgb

_SAMPLING = {"bilinear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA}


@dataclass(frozen=True)
class Window:
    """A part of an image, for example where a picture lies in the network's input; pixels."""

    top: int
    left: int
    height: int
    width: int

    def of(self, image: Image) -> Image:
        """The part of an image that lies in it, a view."""
        rows = slice(self.top, self.top + self.height)
        return image[rows, self.left : self.left + self.width]


def window(height: int, width: int, want: CardInput) -> Window:
    """Where a picture of (height, width) goes: everywhere if stretched, else centred."""
    if want.aspect == "stretch":
        return Window(0, 0, want.height, want.width)
    scale = min(want.height / height, want.width / width)
    h = min(want.height, max(1, round(height * scale)))
    w = min(want.width, max(1, round(width * scale)))
    return Window((want.height - h) // 2, (want.width - w) // 2, h, w)


def to_network(image: Image | Planes, want: CardInput) -> Image:
    """Rule 1: RGB, uint8 (H, W, 3), or planes -> a new uint8 (1, height, width, 3) RGB.

    Of planes each is sampled by itself, and the small picture converted: the rule in another
    order, which costs two thirds and differs by rounding, where colours meet by the chroma of half
    a pixel.
    """
    where = window(image.shape[0], image.shape[1], want)
    out = np.empty((1, want.height, want.width, 3), np.uint8)
    inside = where.of(out[0])
    if (where.height, where.width) != (want.height, want.width):
        out[:] = fill_color(want)
    size, how = (where.width, where.height), _SAMPLING[want.sampling]
    if isinstance(image, Planes):
        small = [cv2.resize(p, size, interpolation=how) for p in (image.y, image.u, image.v)]
        cv2.transform(cv2.merge(small), into_rgb(image.matrix), inside)
    else:
        cv2.resize(image, size, inside, interpolation=how)
    return out


def fill_color(want: CardInput) -> tuple[int, int, int]:
    """RGB of what surrounds a picture with aspect `keep`: the mean, which normalises to zero."""
    mean = [round(255 * min(1.0, max(0.0, m))) for m in want.mean]
    if want.color == "gray":
        mean = mean * 3
    if want.color == "bgr":
        mean.reverse()
    return mean[0], mean[1], mean[2]


def present(labels: Image) -> list[int]:
    """The class ids that occur in uint8 labels, ascending."""
    lowest, highest = (int(v) for v in cv2.minMaxLoc(labels)[:2])
    ids = [lowest]
    while ids[-1] != highest:  # a histogram takes ten times as long as each of these steps
        above = cv2.threshold(labels, ids[-1], 255, cv2.THRESH_BINARY)[1]
        ids.append(int(cv2.minMaxLoc(labels, above)[0]))
    return ids


class LabelScaler:
    """Rule 2, with buffers that are kept from frame to frame; for one thread.

    Beyond the surroundings of the other classes there is only the lowest, so each class is looked
    at where it is: the result is that of looking everywhere, to the bit.
    """

    def __init__(self) -> None:
        self._small = self._mask = self._best = self._higher = np.empty((0, 0), np.uint8)

    def __call__(self, labels: Image, height: int, width: int, want: CardInput) -> Image:
        """uint8 (network height, network width) ids -> a new uint8 (height, width) ids."""
        where = window(height, width, want)
        labels = where.of(labels)
        if labels.shape == (height, width):
            return np.array(labels)
        ids = present(labels)
        out = np.full((height, width), ids[0], np.uint8)
        if len(ids) == 1:
            return out
        if self._mask.shape != (height, width) or self._small.shape != labels.shape:
            self._small = np.empty(labels.shape, np.uint8)
            self._mask, self._best, self._higher = (np.empty_like(out) for _ in range(3))
        boxes = [self._reach(labels, class_id, out) for class_id in ids[1:]]
        if len(ids) == 2 and ids[0] == 0:
            # Two masks that add up to 255: the one above the middle is the higher one.
            mask = self._scale(labels, ids[1], self._mask, boxes[0])
            cv2.threshold(mask, 127, ids[1], cv2.THRESH_BINARY, boxes[0].of(out))
            return out
        self._scale(labels, ids[0], self._best, _around(boxes))
        for class_id, box in zip(ids[1:], boxes, strict=True):
            mask = self._scale(labels, class_id, self._mask, box)
            best, higher, part = box.of(self._best), box.of(self._higher), box.of(out)
            cv2.compare(mask, best, cv2.CMP_GT, higher)
            cv2.max(mask, best, best)
            # Ids ascend, so the larger of old and new id is the new one: no masked copy is needed.
            # Not cv2.bitwise_and, which takes a single pixel and a number for two numbers.
            cv2.threshold(higher, 0, class_id, cv2.THRESH_BINARY, higher)
            cv2.max(part, higher, part)
        return out

    def _reach(self, labels: Image, class_id: int, out: Image) -> Window:
        """Where in `out` the class's mask is not 0: its own pixels and two around them, one for
        smoothing and one for interpolation.
        """
        cv2.compare(labels, float(class_id), cv2.CMP_EQ, self._small)
        x, y, w, h = cv2.boundingRect(self._small)
        top, bottom = _enlarged(y - 2, y + h + 2, labels.shape[0], out.shape[0])
        left, right = _enlarged(x - 2, x + w + 2, labels.shape[1], out.shape[1])
        return Window(top, left, bottom - top, right - left)

    def _scale(self, labels: Image, class_id: int, buffer: Image, box: Window) -> Image:
        """The part in `box` of the class's mask at `buffer`'s size; all of it lies in `buffer`.

        Scaling starts at the upper left, wherever the box does, because only there both grids begin
        together; what is beyond the box's lower right is left out.
        """
        height, width = buffer.shape
        down, right = height / labels.shape[0], width / labels.shape[1]
        # Two pixels more, so that the box does not see the cut edge.
        rows = min(labels.shape[0], math.ceil((box.top + box.height) / down) + 2)
        columns = min(labels.shape[1], math.ceil((box.left + box.width) / right) + 2)
        small = self._small[:rows, :columns]
        cv2.compare(labels[:rows, :columns], float(class_id), cv2.CMP_EQ, small)
        if height > labels.shape[0] and width > labels.shape[1]:
            # 3x3 with sigma 0 is OpenCV's name for [1 2 1] / 4.
            cv2.GaussianBlur(small, (3, 3), 0, small, borderType=cv2.BORDER_REPLICATE)
        part = buffer[: round(rows * down), : round(columns * right)]
        cv2.resize(small, None, part, right, down, cv2.INTER_LINEAR)
        return box.of(buffer)


def _enlarged(begin: int, end: int, small: int, large: int) -> tuple[int, int]:
    """A range of `small` pixels in `large` ones, outwards."""
    return max(0, begin * large // small), min(large, -(-end * large // small))


def _around(boxes: list[Window]) -> Window:
    """The least window that holds them all."""
    top, left = min(b.top for b in boxes), min(b.left for b in boxes)
    bottom, right = max(b.top + b.height for b in boxes), max(b.left + b.width for b in boxes)
    return Window(top, left, bottom - top, right - left)
