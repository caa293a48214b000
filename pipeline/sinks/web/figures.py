"""How fast the pipeline is and how late, now and over the run: for the page and for Prometheus."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from pipeline.stats import Histogram
from pipeline.together import Books

TICK_S = 0.5
PERCENTS = (50, 90, 99, 99.9)
_WINDOW_TICKS = 4
_HISTORY_TICKS = 240  # two minutes


@dataclass(frozen=True)
class _Mark:
    """What had happened by a moment."""

    at: float
    delivered: int
    dropped: int
    latency: Histogram


class Figures:
    """Reads a running pipeline's books; `tick` is to be called every `TICK_S`, by one thread.

    What is `now` covers the last two seconds, all else the whole run.
    """

    def __init__(self, pipeline: Books | None) -> None:
        self.pipeline = pipeline
        self.fps = 0.0
        self.history: deque[dict[str, float | None]] = deque(maxlen=_HISTORY_TICKS)
        self._marks: deque[_Mark] = deque(maxlen=_WINDOW_TICKS + 1)
        self._moved_at = time.monotonic()

    @property
    def still_s(self) -> float:
        """Seconds since a frame was last seen to be delivered; infinite before the first."""
        if not self._marks or not self._marks[-1].delivered:
            return float("inf")
        return time.monotonic() - self._moved_at

    def tick(self) -> dict[str, Any]:
        """The figures as the page has them; latencies are milliseconds, capture to sink."""
        mark = self._mark()
        if not self._marks or mark.delivered != self._marks[-1].delivered:
            self._moved_at = mark.at
        self._marks.append(mark)
        first = self._marks[0]
        elapsed = mark.at - first.at
        self.fps = (mark.delivered - first.delivered) / elapsed if elapsed else 0.0
        drops = (mark.dropped - first.dropped) / elapsed if elapsed else 0.0
        recent = mark.latency.since(first.latency)
        now = {
            "fps": round(self.fps, 1),
            "drops": round(drops, 1),
            "p50": _ms(recent, 50),
            "p99": _ms(recent, 99),
        }
        self.history.append(now)
        return {
            "now": now,
            "delivered": mark.delivered,
            "dropped": self.dropped(),
            "lost": self.lost(),
            "latency_ms": {f"p{p:g}": _ms(mark.latency, p) for p in PERCENTS},
        }

    def dropped(self) -> dict[str, int]:
        """Captured frames that were given up, by cause."""
        return self.pipeline.drops if self.pipeline else {"stale": 0}

    def lost(self) -> dict[str, int]:
        """Frames that could not be captured, by cause."""
        return dict(self.pipeline.lost) if self.pipeline else {}

    def latency(self) -> Histogram:
        """Of all frames so far, seconds."""
        return self.pipeline.latency.copy() if self.pipeline else Histogram()

    def _mark(self) -> _Mark:
        delivered = self.pipeline.delivered if self.pipeline else 0
        return _Mark(time.monotonic(), delivered, sum(self.dropped().values()), self.latency())


def _ms(latency: Histogram, percent: float) -> float | None:
    return round(1000 * latency.percentile_s(percent), 1) if len(latency) else None
