"""A live source of a fixed rate: how late frames are, how unsteadily, and how many never come.

The frames are due by the clock, as a camera's are, and a latency runs from when its frame was due.
So a stall is charged to every frame that it delays, and not only to the one under way, as it would
be if the next frame waited for the last.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from engines.engine import Engine
from pipeline.api import stages_for
from pipeline.runner import Pipeline
from pipeline.sources import SyntheticSource
from pipeline.stats import Histogram
from tools.bench.measure import Stop
from tools.bench.plan import Size

PERCENTS = (50, 90, 99, 99.9)

MOST_MISSED = 0.01
"""A rate is sustained if a smaller share of its frames is missed ..."""
LEAST_DELIVERED = 0.97
"""... and frames are delivered, and made, at this share of it at least: else a backlog grows that
only the end of the measurement hides. The 3% are room for a late last frame."""

_CLOSE_ENOUGH = 1.03
"""The search for the peak ends where the rate that fails is this near to one that is sustained."""


@dataclass(frozen=True)
class LiveRun:
    """What one run at a fixed rate came to, its warm-up left out."""

    fps: float
    frames: int
    missed: int
    """Frames that never came out: dropped because newer ones had come."""
    latency: Histogram
    """From when a frame was due to when the caller had it, seconds."""
    jitter_s: float
    """Mean |latency - latency of the frame delivered before it|."""
    delivered_fps: float
    offered_fps: float
    """The rate at which the source in fact made frames; less than `fps` where it fell behind."""

    @property
    def sustained(self) -> bool:
        return (
            self.missed < MOST_MISSED * self.frames
            and self.delivered_fps >= LEAST_DELIVERED * self.fps
            and self.offered_fps >= LEAST_DELIVERED * self.fps
        )


def run_live(
    engine: Engine, fps: float, seconds: float, warmup_s: float, picture: Size, stop: Stop
) -> LiveRun:
    """Frames of (H, W) `picture` at `fps` for `seconds` after a warm-up, as a camera's: what is
    behind is dropped for what is newer.
    """
    rate = Fraction(fps).limit_denominator(1000)
    warm = max(1, round(warmup_s * rate))
    frames = max(2, round(seconds * rate))
    source = SyntheticSource(*picture, count=warm + frames, fps=rate, paced=True)
    latency, times, late = Histogram(), [], []
    pipeline = Pipeline(source, stages_for(engine, live=True))
    with stop.ending(pipeline):
        for frame in pipeline:
            now = time.perf_counter()
            if frame.index >= warm:
                times.append(now)
                late.append(now - frame.captured_at)
                latency.add(late[-1])
    steps = [abs(b - a) for a, b in itertools.pairwise(late)]
    lasted = (frames - 1) / float(rate)
    delivered_s = times[-1] - times[0] if len(times) > 1 else 0.0
    return LiveRun(
        fps=float(rate),
        frames=frames,
        missed=frames - len(times),
        latency=latency,
        jitter_s=sum(steps) / len(steps) if steps else 0.0,
        delivered_fps=(len(times) - 1) / delivered_s if delivered_s else 0.0,
        offered_fps=(frames - 1) / (lasted + source.behind_s),
    )


def search_peak(probe: Callable[[float], bool], start: float, most_probes: int) -> float:
    """The highest rate found for which `probe` says that it is sustained, 0 if none was.

    Steps from `start` by a third up or down until one rate is sustained and a higher one is not,
    then halves the gap between the two (their geometric mean) until they are within 3%.
    """
    good, bad = 0.0, math.inf
    rate = start
    for _ in range(most_probes):
        if probe(rate):
            good = max(good, rate)
        else:
            bad = min(bad, rate)
        if good and bad <= good * _CLOSE_ENOUGH:
            break
        if not good:
            rate = bad * 0.75
        elif math.isinf(bad):
            rate = good * 4 / 3
        else:
            rate = math.sqrt(good * bad)
    return good
