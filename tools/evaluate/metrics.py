"""How well labels agree with the truth, from one table of counts.

With, for a class, tp the pixels that are it and are called it, fp those called it that are not, and
fn those that are it and are called something else:

    iou       tp / (tp + fp + fn)        the Jaccard index
    dice      2 tp / (2 tp + fp + fn)    the F1 score
    accuracy  tp / (tp + fn)             the share of the class that is found, its recall

A class that is neither in the truth nor in the labels has none of these (NaN) and does not count in
a mean; one that is only in the labels has an IoU of 0, which does. `miou` is the mean IoU,
`mean_accuracy` the mean accuracy, `pixel_accuracy` the share of pixels that are right.

Void, the truth's pixels without a class: with `ignore` they count nowhere, as VOC, Cityscapes and
CamVid have it. With `error` what is called a class there is a false positive of that class, and a
pixel that is wrong; a network cannot reach 100% then, but is not free to paint there either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.frame import Image
from tools.data.labelled import VOID

Void = Literal["ignore", "error"]
Floats = NDArray[np.float64]


class Confusion:
    """Counts of (true id, labelled id) pairs; sums of them are sums over pictures."""

    def __init__(self, classes: int, labels: int | None = None) -> None:
        self.counts = np.zeros((classes + 1, labels or classes), np.int64)
        """int64 (classes + 1, labels): rows are the truth, the last one void; columns what the
        pixels were called.
        """

    def add(self, truth: Image, labels: Image) -> None:
        """Counts a picture: uint8 (H, W) true ids with VOID, uint8 (H, W) labelled ids."""
        rows, columns = self.counts.shape
        if truth.shape != labels.shape:
            raise ValueError(f"truth of shape {truth.shape}, labels of shape {labels.shape}")
        if labels.size and labels.max() >= columns:
            raise ValueError(f"labels go up to {labels.max()}; there are {columns} classes")
        both = truth.reshape(-1).astype(np.int32) * columns + labels.reshape(-1)
        found = np.bincount(both, minlength=256 * columns).reshape(256, columns)
        if found[rows - 1 : VOID].any():
            raise ValueError(f"true ids go up to {truth[truth != VOID].max()}; {rows - 1} classes")
        self.counts[:-1] += found[: rows - 1]
        self.counts[-1] += found[VOID]


@dataclass(frozen=True)
class Scores:
    """The figures of all classes, in the order of the counts; NaN where a class has none."""

    iou: Floats
    dice: Floats
    accuracy: Floats
    miou: float
    mean_accuracy: float
    pixel_accuracy: float


def scores(counts: NDArray[np.int64], void: Void = "ignore") -> Scores:
    """From int64 (classes + 1, classes or more) counts as `Confusion` makes them.

    Columns beyond the classes are labels that stand for none of them: always wrong.
    """
    classes = counts.shape[0] - 1
    rows = counts if void == "error" else counts[:-1]
    tp = np.diagonal(counts).astype(np.float64)[:classes]
    truth = counts[:-1].sum(axis=1)
    called = rows[:, :classes].sum(axis=0)
    union = truth + called - tp
    iou = _share(tp, union)
    accuracy = _share(tp, truth)
    return Scores(
        iou=iou,
        dice=_share(2 * tp, truth + called),
        accuracy=accuracy,
        miou=mean(iou),
        mean_accuracy=mean(accuracy),
        pixel_accuracy=float(_share(tp.sum(), rows.sum())),
    )


def mean(values: Floats) -> float:
    """Over the classes that have a value; NaN where none has."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _share(part: Floats, whole: Floats) -> Floats:
    """The part divided by the whole, NaN where the whole is nothing."""
    out = np.full(np.shape(whole), np.nan)
    return np.asarray(np.divide(part, whole, out=out, where=np.asarray(whole) > 0))
