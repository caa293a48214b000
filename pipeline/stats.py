"""Time at work and time waiting, a stage at a time, and what limits the frame rate.

Waits are measured where they happen (in channels, and for the engine's answer); a stage is busy
for the rest. Thread CPU time and the time that the thread waited for a core (pipeline/cores.py)
stand beside it, because wall time lies where threads share cores.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from engines.cores import available_cores
from pipeline.cores import core_wait_s

_current = threading.local()


class Meter:
    """One stage's clock; made by the runner, started and finished in the stage's own thread."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.cpu_s = 0.0
        self.wall_s = 0.0
        self.engine_wait_s = 0.0
        self.core_wait_s: float | None = None
        """Seconds that the thread could have run and had no core; None where nobody can tell."""

    @contextmanager
    def running(self) -> Iterator[None]:
        """Measures the calling thread until the block ends."""
        _current.meter = self
        wall, cpu, waited = time.perf_counter(), time.thread_time(), core_wait_s()
        try:
            yield
        finally:
            self.wall_s = time.perf_counter() - wall
            self.cpu_s = time.thread_time() - cpu
            if waited is not None:
                self.core_wait_s = (core_wait_s() or waited) - waited
            _current.meter = None

    def add_engine_wait(self, begun: float, ended: float) -> None:
        """Takes down that the engine was waited for from `begun` to `ended` (time.perf_counter)."""
        self.engine_wait_s += ended - begun


class engine_wait:  # noqa: N801 - it is used like a function, and a generator costs three times as much
    """Marks the block as waiting for the engine, so that the stage that waits is not called busy.

    Outside a pipeline (the same stages chained by hand) it does nothing.
    """

    __slots__ = ("_begun",)

    def __enter__(self) -> None:
        self._begun = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        meter: Meter | None = getattr(_current, "meter", None)
        if meter is not None:
            meter.add_engine_wait(self._begun, time.perf_counter())


@dataclass(frozen=True)
class StageStats:
    """What one stage or sink did, in seconds summed over all frames."""

    name: str
    frames: int
    busy_s: float
    cpu_s: float
    wait_in_s: float
    wait_out_s: float
    advice: str = ""
    core_wait_s: float | None = None
    """For how long its threads could have run and had no core; None where nobody can tell."""
    elsewhere: bool = False
    """Whether the work is done by other threads than its own, perhaps several."""

    def as_dict(self) -> dict[str, Any]:
        """A row of the report's `stages`, milliseconds a frame."""
        n = max(1, self.frames)
        return {
            "name": self.name,
            "frames": self.frames,
            "busy_ms": round(1000 * self.busy_s / n, 3),
            "cpu_ms": round(1000 * self.cpu_s / n, 3),
            "wait_in_ms": round(1000 * self.wait_in_s / n, 3),
            "wait_out_ms": round(1000 * self.wait_out_s / n, 3),
        }


class Histogram:
    """Durations in buckets 1% wide: percentiles of any number of frames in constant memory."""

    _LEAST_S = 1e-5
    _STEP = math.log(1.01)

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._total = 0
        self._max_s = 0.0

    def add(self, seconds: float) -> None:
        bucket = int(math.log(max(seconds, self._LEAST_S) / self._LEAST_S) / self._STEP)
        self._counts[bucket] = self._counts.get(bucket, 0) + 1
        self._total += 1
        self._max_s = max(self._max_s, seconds)

    def percentile_s(self, percent: float) -> float:
        """The duration that `percent` of all stay at or under, within 1%; 0 if there are none."""
        rank, seen = math.ceil(self._total * percent / 100), 0
        for bucket in sorted(self._counts):
            seen += self._counts[bucket]
            if seen >= rank:
                middle = self._LEAST_S * math.exp((bucket + 0.5) * self._STEP)
                return min(middle, self._max_s)
        return 0.0

    def __len__(self) -> int:
        """How many durations have been added."""
        return self._total

    def merge(self, other: Histogram) -> None:
        """Adds all that `other` holds."""
        for bucket, count in other._counts.items():
            self._counts[bucket] = self._counts.get(bucket, 0) + count
        self._total += other._total
        self._max_s = max(self._max_s, other._max_s)

    def copy(self) -> Histogram:
        """What it holds now; another thread may go on adding meanwhile."""
        other = Histogram()
        # dict() copies in one step; counting is left to the copy, so that the two agree.
        other._counts, other._max_s = dict(self._counts), self._max_s
        other._total = sum(other._counts.values())
        return other

    def since(self, earlier: Histogram) -> Histogram:
        """What has been added after `earlier` was copied from this one; its largest to 1%."""
        other = Histogram()
        for bucket, count in self._counts.items():
            if added := count - earlier._counts.get(bucket, 0):
                other._counts[bucket] = added
        other._total = sum(other._counts.values())
        if other._counts:
            highest = self._LEAST_S * math.exp((max(other._counts) + 1) * self._STEP)
            other._max_s = min(highest, self._max_s)
        return other

    def buckets(self) -> list[tuple[float, float, int]]:
        """Where the durations lie: (from, to, how many) in seconds, ascending, none empty."""
        lows = {bucket: self._LEAST_S * math.exp(bucket * self._STEP) for bucket in self._counts}
        ratio = math.exp(self._STEP)
        return [(lows[b], lows[b] * ratio, self._counts[b]) for b in sorted(lows)]

    def as_dict(self, percents: Sequence[float] = (50, 90, 95, 99, 99.9)) -> dict[str, float]:
        """Milliseconds by name, `p50` ... and `max`; without arguments the report's `latency_ms`.

        Of fewer than 100 / (100 - p) durations the percentile p is the largest of them.
        """
        out = {f"p{p:g}": round(1000 * self.percentile_s(p), 3) for p in percents}
        return {**out, "max": round(1000 * self._max_s, 3)}


@dataclass(frozen=True)
class Bottleneck:
    """The stage that limits the rate, and what the others could reach without it."""

    stage: str
    fps_limit: float
    """Frames a second that the rest could reach if this stage cost nothing."""
    advice: str

    def as_dict(self) -> dict[str, Any]:
        # JSON has no infinity: where nothing else takes time, there is no limit to report.
        limit = round(self.fps_limit, 1) if math.isfinite(self.fps_limit) else None
        return {"stage": self.stage, "fps_limit": limit, "advice": self.advice}


def find_bottleneck(
    stages: list[StageStats], *, wall_s: float, cpu_s: float, cores: float | None = None
) -> Bottleneck | None:
    """Names the stage without which the rest would be fastest, and how fast that is.

    Without a stage the rest is limited by its slowest stage and by the cores: min(1 / seconds a
    frame that any other stage takes by itself, cores / CPU seconds a frame of all others). Of
    stages that would gain the same the slowest is named. Waiting for a core is nobody's own time.
    Python's lock is: beside a stage that keeps it, the others look slower than they are and the
    limit is too low. Returns None for a run without frames.
    """
    cores = cores or available_cores()
    stages = [s for s in stages if s.frames]
    if not stages or wall_s <= 0:
        return None
    saturated = cpu_s > 0.85 * cores * wall_s
    own = [_own_s(s, cores, saturated) for s in stages]

    def limit_without(i: int) -> float:
        alone = [cost / s.frames for s, cost in zip(stages, own, strict=True)]
        limits = [1 / cost for cost in (*alone[:i], *alone[i + 1 :]) if cost > 0]
        # Of a live source more frames may have been captured than others had work with.
        rest_cpu_s = max(0.0, cpu_s - stages[i].cpu_s) / stages[i].frames
        if rest_cpu_s > 0:
            limits.append(cores / rest_cpu_s)
        return min(limits, default=math.inf)

    limits = [limit_without(i) for i in range(len(stages))]
    alike = [i for i, limit in enumerate(limits) if limit >= 0.98 * max(limits)]
    worst = max(alike, key=lambda i: own[i])
    return Bottleneck(stages[worst].name, limits[worst], stages[worst].advice)


def _own_s(stage: StageStats, cores: float, saturated: bool) -> float:
    """Seconds that the stage was busy with its own work, and not for want of a core."""
    busy, cpu, waited = stage.busy_s, stage.cpu_s, stage.core_wait_s
    if waited is None:
        # A stage that shares saturated cores is slow for want of them; its CPU time is its own.
        return min(busy, cpu) if saturated else busy
    # Work elsewhere may be on several threads side by side, which then wait side by side.
    side_by_side = max(1.0, (cpu + waited) / busy) if stage.elsewhere and busy else 1.0
    # Some of the waiting for a core came at the end of other waits, which are not in `busy`.
    return max(cpu / cores if stage.elsewhere else cpu, busy - waited / side_by_side)
