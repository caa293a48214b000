"""What the parts of benchmarks/gpu.py share: a source, and how a rate is measured."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import cv2
import numpy as np

from pipeline.frame import Frame
from pipeline.planes import Matrix, Planes
from pipeline.sources import SyntheticSource

PICTURE = (1080, 1920)


class PlanesSource(SyntheticSource):
    """Frames of YUV made beforehand: what a decoder gives, without its cost."""

    def __init__(self, height: int, width: int, count: int) -> None:
        super().__init__(height, width, count, fps=Fraction(60))
        rng = np.random.default_rng(0)
        self._kept = []
        for _ in range(16):
            planes = Planes.blank(height, width, Matrix.BT709)
            coarse = rng.integers(16, 236, (height // 8, width // 8), np.uint8)
            planes.y[:] = cv2.resize(coarse, (width, height))
            planes.u[:], planes.v[:] = planes.y[::2, ::2], planes.y[1::2, 1::2]
            self._kept.append(planes)

    def frames(self) -> Iterator[Frame]:
        """All of them; pictures come again and again."""
        for index in range(self._count):
            frame = Frame(index, index, self.info.time_base, None)  # type: ignore[arg-type]
            kept = self._kept[index % len(self._kept)]
            # New ones each time: who wants RGB converts every frame, as a decoder's.
            frame.image = Planes(kept.video, kept.matrix)
            frame.captured_at = time.perf_counter()
            yield frame


def rate(work: Callable[[int], None], each: int, ask: Any) -> float:
    """Frames a second: the median of rounds that are long enough to be measured."""
    work(1)  # what happens once, such as compiling, is not measured
    times = 8
    while True:
        begun = time.perf_counter()
        work(times)
        taken = time.perf_counter() - begun
        if taken > ask.seconds / 4:
            break
        times *= 2
    times = max(1, int(times * ask.seconds / taken))
    rates = []
    for _ in range(ask.rounds):
        begun = time.perf_counter()
        work(times)
        rates.append(times * each / (time.perf_counter() - begun))
    return round(statistics.median(rates), 1)


def size_of(ask: Any) -> tuple[int, int]:
    height, width = (int(part) for part in ask.size.split("x"))
    return height, width
