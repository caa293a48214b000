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

from dataclasses import dataclass

import cv2
import numpy as np

from engines.card import CardInput
from pipeline.frame import Image
from pipeline.planes import Planes, into_rgb

_SAMPLING = {"bilinear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA}


@dataclass(frozen=True)
class Window:
    """Where a picture lies in the network's input, pixels."""

    top: int
    left: int
    height: int
    width: int


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
    inside = out[0, where.top : where.top + where.height, where.left : where.left + where.width]
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
    """Rule 2, with buffers that are kept from frame to frame; for one thread."""

    def __init__(self) -> None:
        self._small = self._mask = self._best = self._higher = np.empty((0, 0), np.uint8)

    def __call__(self, labels: Image, height: int, width: int, want: CardInput) -> Image:
        """uint8 (network height, network width) ids -> a new uint8 (height, width) ids."""
        where = window(height, width, want)
        labels = labels[where.top : where.top + where.height, where.left : where.left + where.width]
        if labels.shape == (height, width):
            return np.array(labels)
        ids = present(labels)
        out = np.full((height, width), ids[0], np.uint8)
        if len(ids) == 1:
            return out
        if self._mask.shape != (height, width) or self._small.shape != labels.shape:
            self._small = np.empty(labels.shape, np.uint8)
            self._mask, self._best, self._higher = (np.empty_like(out) for _ in range(3))
        if len(ids) == 2 and ids[0] == 0:
            # Two masks that add up to 255: the one above the middle is the higher one.
            self._scale(labels, ids[1], self._mask)
            cv2.threshold(self._mask, 127, ids[1], cv2.THRESH_BINARY, out)
            return out
        self._scale(labels, ids[0], self._best)
        for class_id in ids[1:]:
            self._scale(labels, class_id, self._mask)
            cv2.compare(self._mask, self._best, cv2.CMP_GT, self._higher)
            cv2.max(self._mask, self._best, self._best)
            # Ids ascend, so the larger of old and new id is the new one: no masked copy is needed.
            # Not cv2.bitwise_and, which takes a single pixel and a number for two numbers.
            cv2.threshold(self._higher, 0, class_id, cv2.THRESH_BINARY, self._higher)
            cv2.max(out, self._higher, out)
        return out

    def _scale(self, labels: Image, class_id: int, out: Image) -> None:
        cv2.compare(labels, float(class_id), cv2.CMP_EQ, self._small)
        height, width = out.shape
        if height > labels.shape[0] and width > labels.shape[1]:
            # 3x3 with sigma 0 is OpenCV's name for [1 2 1] / 4.
            cv2.GaussianBlur(self._small, (3, 3), 0, self._small, borderType=cv2.BORDER_REPLICATE)
        cv2.resize(self._small, (width, height), out, interpolation=cv2.INTER_LINEAR)
