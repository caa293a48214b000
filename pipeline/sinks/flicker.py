"""How much the labels flicker, with smoothing and without, measured beside the run."""

from __future__ import annotations

import math
import time
from typing import Any

from pipeline.channel import Policy
from pipeline.flicker import Flicker
from pipeline.frame import Frame
from pipeline.roles import Frames

# Of one core's time, at most: optical flow costs more than many a network.
_SHARE = 0.05


class FlickerSink:
    """Compares pairs of neighbouring frames, now and then, from `frame.smoothed`.

    A viewer: what it has no time for it does not see, and nothing waits for it.
    """

    policy: Policy = "drop_oldest"
    name = "flicker"
    advice = "measuring flicker is the limit: leave out --report"
    output = None
    samples = True
    """What it passes over is no loss to anybody, so the ledger does not tell."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._raw, self._smoothed = Flicker(), Flicker()

    def run(self, frames: Frames) -> Frames:
        """Passes each frame on."""
        before: Frame | None = None
        rest_until = 0.0
        for frame in frames:
            follows = before is not None and frame.index == before.index + 1
            if before is not None and follows and time.perf_counter() >= rest_until:
                begun = time.thread_time()
                self._compare(before, frame)
                rest_until = time.perf_counter() + (time.thread_time() - begun) / _SHARE
            before = frame
            yield frame

    def _compare(self, before: Frame, frame: Frame) -> None:
        for score, which in ((self._raw, 0), (self._smoothed, 1)):
            score.begin()
            for one in (before, frame):
                assert one.smoothed is not None
                score.add(one.image, one.smoothed[which])

    def as_dict(self) -> dict[str, Any]:
        """The report's `flicker`."""
        return {
            "raw": _number(self._raw.score),
            "smoothed": _number(self._smoothed.score),
            "pairs": self._raw.pairs,
        }

    def __str__(self) -> str:
        raw, smoothed = self._raw.score, self._smoothed.score
        if math.isnan(raw) or math.isnan(smoothed):
            return "not known: no two neighbouring frames could be compared"
        return (
            f"{100 * smoothed:.2f}% of the pixels a frame change their class without motion, "
            f"{100 * raw:.2f}% unsmoothed ({self._raw.pairs} pairs of frames)"
        )


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)
