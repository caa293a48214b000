"""The books of several pipelines that run side by side, as those of one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from pipeline.stats import Histogram


class Books(Protocol):
    """What a running pipeline says of itself, at any time and to any thread."""

    @property
    def delivered(self) -> int: ...
    @property
    def dropped(self) -> int: ...
    @property
    def drops(self) -> dict[str, int]: ...
    @property
    def lost(self) -> dict[str, int]: ...
    @property
    def latency(self) -> Histogram: ...


class Together:
    """The sum of those that are there so far; `add` may come at any time."""

    def __init__(self, pipelines: Sequence[Books] = ()) -> None:
        self._pipelines = list(pipelines)

    def add(self, pipeline: Books) -> None:
        self._pipelines.append(pipeline)

    @property
    def delivered(self) -> int:
        return sum(p.delivered for p in self._pipelines)

    @property
    def dropped(self) -> int:
        return sum(p.dropped for p in self._pipelines)

    @property
    def drops(self) -> dict[str, int]:
        """`dropped`, by cause."""
        return _sum({"stale": 0}, *(p.drops for p in self._pipelines))

    @property
    def lost(self) -> dict[str, int]:
        """Frames that could not be captured, by cause."""
        return _sum(*(p.lost for p in self._pipelines))

    @property
    def latency(self) -> Histogram:
        """Of all their frames, seconds; a copy."""
        whole = Histogram()
        for pipeline in self._pipelines:
            whole.merge(pipeline.latency.copy())
        return whole


def _sum(*counts: dict[str, int]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(total)
