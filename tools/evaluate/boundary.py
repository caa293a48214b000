"""How well the classes' borders agree: the boundary F-score.

For each class and picture, precision is the share of the labels' border pixels that have one of the
truth's within the tolerance, recall the share of the truth's that have one of the labels', and the
score is their harmonic mean; a class's score is the mean over the pictures in which it has a border
in either (Csurka et al., "What is a good evaluation measure for semantic segmentation?", BMVC
2013). The tolerance is 0.75% of the picture's diagonal, that paper's.

A class's border is its pixels with one of the four neighbours outside of it. The picture's edge is
no border, and neither is where void begins: nobody said what lies behind it.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.frame import Image
from pipeline.stages.geometry import present
from tools.data.labelled import VOID

# Of the picture's diagonal: Csurka et al. 2013, section 4.
TOLERANCE = 0.0075

_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


class BoundaryScores:
    """Sums of the classes' scores over pictures."""

    def __init__(self, classes: int) -> None:
        self._sums = np.zeros(classes)
        self._pictures = np.zeros(classes, np.int64)

    def add(self, truth: Image, labels: Image) -> None:
        """Scores a picture: uint8 (H, W) ids with VOID in the truth; ids from `classes` on are no
        class.
        """
        height, width = truth.shape
        reach = TOLERANCE * math.hypot(height, width)
        void = cv2.compare(truth, float(VOID), cv2.CMP_EQ)
        for class_id in sorted({*present(truth), *present(labels)}):
            if class_id < len(self._sums):
                score = boundary_f(
                    cv2.compare(truth, float(class_id), cv2.CMP_EQ),
                    cv2.compare(labels, float(class_id), cv2.CMP_EQ),
                    void,
                    reach,
                )
                if score is not None:
                    self._sums[class_id] += score
                    self._pictures[class_id] += 1

    @property
    def scores(self) -> NDArray[np.float64]:
        """Float64 (classes,), NaN for a class that never has a border."""
        out = np.full(len(self._sums), np.nan)
        return np.asarray(np.divide(self._sums, self._pictures, out=out, where=self._pictures > 0))


def boundary_f(truth: Image, labels: Image, void: Image, reach: float) -> float | None:
    """The score of one class in one picture, None where it has no border in either.

    All three are masks, uint8 (H, W) of 0 and 255; `reach` is the tolerance in pixels.
    """
    # What is farther away than this changes nothing, and most classes are small.
    x, y, w, h = cv2.boundingRect(truth | labels)
    part = np.s_[max(0, y - 1) : y + h + 1, max(0, x - 1) : x + w + 1]
    ours, theirs = _border(labels[part], void[part]), _border(truth[part], void[part])
    counts = np.count_nonzero(ours), np.count_nonzero(theirs)
    if not any(counts):
        return None
    if not all(counts):
        return 0.0
    precision = np.count_nonzero(_distance(theirs)[ours] <= reach) / counts[0]
    recall = np.count_nonzero(_distance(ours)[theirs] <= reach) / counts[1]
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _border(mask: Image, void: Image) -> NDArray[np.bool_]:
    """Bool (H, W): the mask's pixels beside one that is neither in it nor void."""
    # OpenCV takes what is outside of the picture for set when it erodes.
    inner = cv2.erode(mask | void, _CROSS)
    return np.asarray((mask & ~inner & ~void) > 0)


def _distance(border: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Float32 (H, W): how far the nearest border pixel is, in pixels."""
    away = np.where(border, 0, 255).astype(np.uint8)
    found = cv2.distanceTransform(away, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(found, np.float32)
