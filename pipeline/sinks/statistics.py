"""One JSON line a frame: what part of the picture each class covers, and if wanted, where."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.channel import Policy
from pipeline.frame import Frame, Image
from pipeline.roles import Frames
from pipeline.sinks.destination import Output, check_file, whole_file, whole_lines


class StatisticsSink:
    """Writes JSON lines: `index`, `pts`, `time_s`, `classes` {name: share of the picture, 0..1} of
    the classes that occur; of a still image also its `name`; with `rle` also `rle` {name: COCO RLE
    of that class's mask}.
    """

    policy: Policy = "block"
    takes_card_pictures = True  # it looks at none
    name = "stats"
    advice = "writing statistics is the limit: leave out --rle"

    def __init__(
        self, path: Path, classes: Sequence[str], *, rle: bool = False, force: bool = False
    ) -> None:
        check_file(path, force)
        self.output = Output(path, "jsonl+rle" if rle else "jsonl")
        self.notes: list[str] = []
        self._classes = classes
        self._rle = rle

    def run(self, frames: Frames) -> Frames:
        """Writes each frame and passes it on."""
        with whole_file(self.output, whole_lines) as path:
            # A line a write: whoever follows the file never reads half of one.
            with path.open("w", encoding="utf-8", buffering=1) as file:
                for frame in frames:
                    file.write(json.dumps(self._row(frame)) + "\n")
                    self.output.frames += 1
                    yield frame

    def _row(self, frame: Frame) -> dict[str, Any]:
        assert frame.labels is not None
        counts = cv2.calcHist([frame.labels], [0], None, [256], [0, 256]).ravel()
        ids = [int(i) for i in np.flatnonzero(counts)]
        row: dict[str, Any] = {
            "index": frame.index,
            "pts": frame.pts,
            "time_s": round(frame.time_s, 6),
            "classes": {
                self._classes[i]: round(float(counts[i]) / frame.labels.size, 6) for i in ids
            },
        }
        if frame.name:
            row["name"] = frame.name
        if self._rle:
            # Runs go down the columns: turned once, not once for each class.
            columns = np.ascontiguousarray(frame.labels.T)
            row["rle"] = {self._classes[i]: coco_rle((columns == i).T) for i in ids}
        return row


def coco_rle(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """COCO's compressed RLE of a mask (H, W): {"size": [H, W], "counts": str}.

    Runs go down the columns and begin with the zeros. From the third on each is stored as the
    difference to the one before the last, in groups of 5 bits, low ones first, each in a
    character from 48 on, with bit 32 for "more follow" (cocoapi, common/maskApi.c, rleToString).
    """
    flat = np.ascontiguousarray(mask.T).ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    bounds = np.concatenate(([0], edges, [flat.size]))
    runs = np.diff(bounds)
    if flat.size and flat[0]:
        runs = np.concatenate(([0], runs))
    values = runs.astype(np.int64)
    values[3:] -= runs[1:-2]
    return {"size": list(mask.shape), "counts": _characters(values)}


def _characters(values: NDArray[np.int64]) -> str:
    """Every value's groups of 5 bits as characters; all values a group at a time."""
    groups: list[Image] = []
    alive = np.ones(len(values), bool)
    rest = values.copy()
    while alive.any():
        low = rest & 31
        rest >>= 5
        # The last group must show the sign in its own bit 16, so that it can be read back.
        last = np.where(low & 16, rest == -1, rest == 0)
        groups.append(np.where(alive, low + np.where(last, 0, 32) + 48, 0).astype(np.uint8))
        alive &= ~last
    return np.stack(groups, axis=1).ravel().tobytes().replace(b"\0", b"").decode("ascii")
