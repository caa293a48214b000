"""What the pipeline itself costs: frames so small that nothing else takes time.

    python -m benchmarks.framework [--frames 20000] [--rounds 5] [--json FILE]

Capture, preprocess, the fake engine, colorize and a sink, each in its thread, every wait and every
frame accounted for, as in any run. Beside it, in the same rounds, four bare channels (a deque, a
lock, two conditions; depth 4) between five threads that pass on numbers: what Python's threads can
do at all on the machine at that moment. Then with deeper channels and a longer stream: neither may
cost more a frame.

`empty stages` are three that only pass frames on, behind a source that hands out one picture over
and over: channels, threads and accounts without any work. Where a process can be bound to cores
(Linux), these, the bare channels and the pipeline are taken on one core as well: no thread on
another core then has to be woken for Python's lock. A run during which other programs took more
than 5 % of the cores is taken again.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.machine import describe, undisturbed
from engines.fake_engine import FakeEngine, fake_card
from pipeline.channel import Policy
from pipeline.frame import Frame
from pipeline.roles import Source, Stage
from pipeline.runner import Pipeline
from pipeline.sources import SyntheticSource
from pipeline.stages import colorize, infer, preprocess

SIZE = (16, 32)  # pixels; the network's size as well, so that labels need no scaling
STAGES = 5


class Take:
    """A sink that looks at no picture."""

    name = "take"
    advice = ""
    policy: Policy = "block"

    def run(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        yield from frames


class OnePicture:
    """A source that makes nothing."""

    name = "one picture"
    live = False

    def __init__(self, count: int) -> None:
        self.lost: dict[str, int] = {}
        self._count = count

    def frames(self) -> Iterator[Frame]:
        """All frames, once."""
        image, unit = np.zeros((*SIZE, 3), np.uint8), Fraction(1, 30)
        for i in range(self._count):
            yield Frame(i, i, unit, image)


def run_pipeline(count: int, ahead: int = 4) -> dict[str, float]:
    """Frames a second, and processor time a frame."""
    card = fake_card(*SIZE)
    with FakeEngine(card, depth=8) as engine:
        stages = [preprocess(card), infer(engine), colorize(card)]
        return measured(SyntheticSource(*SIZE, count), stages, count, ahead)


def run_empty(count: int) -> dict[str, float]:
    """The same with stages that do nothing."""
    stages = [Stage(name, lambda frames: frames) for name in ("preprocess", "infer", "colorize")]
    return measured(OnePicture(count), stages, count)


def measured(source: Source, stages: list[Stage], count: int, ahead: int = 4) -> dict[str, float]:
    """Frames a second through these, and processor time a frame."""
    pipeline = Pipeline(source, stages, [Take()], ahead=ahead)
    begun, cpu = time.perf_counter(), time.process_time()
    pipeline.run()
    wall, used = time.perf_counter() - begun, time.process_time() - cpu
    if pipeline.ledger.delivered != count or len(pipeline.stage_stats) != STAGES:
        raise RuntimeError(f"{pipeline.ledger.delivered} of {count} frames came through")
    return {"fps": count / wall, "cpu_us": 1e6 * used / count}


class Bare:
    """The least that hands things from one thread to another, in order and bounded."""

    def __init__(self, capacity: int = 4) -> None:
        self._items: deque[Any] = deque()
        self._capacity = capacity
        lock = threading.Lock()
        self._filled, self._emptied = threading.Condition(lock), threading.Condition(lock)

    def put(self, item: Any) -> None:
        with self._emptied:
            while len(self._items) >= self._capacity:
                self._emptied.wait()
            self._items.append(item)
            self._filled.notify()

    def get(self) -> Any:
        with self._filled:
            while not self._items:
                self._filled.wait()
            item = self._items.popleft()
            self._emptied.notify()
            return item


def run_bare(count: int) -> dict[str, float]:
    """The same for bare channels."""
    channels = [Bare() for _ in range(STAGES - 1)]

    def work(number: int) -> None:
        for i in range(count):
            item = i if number == 0 else channels[number - 1].get()
            if number < len(channels):
                channels[number].put(item)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(STAGES)]
    begun, cpu = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall, used = time.perf_counter() - begun, time.process_time() - cpu
    return {"fps": count / wall, "cpu_us": 1e6 * used / count}


def on_one_core(run: Callable[[int], dict[str, float]], count: int) -> dict[str, float]:
    """The same with all threads on one core."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        return run(count)
    finally:
        os.sched_setaffinity(0, allowed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    count = args.frames
    kinds: dict[str, Callable[[], dict[str, float]]] = {
        "bare": partial(run_bare, count),
        "empty stages": partial(run_empty, count),
        "pipeline": partial(run_pipeline, count),
        "64 frames deep": partial(run_pipeline, count, ahead=64),
        "5 times as long": partial(run_pipeline, 5 * count),
    }
    if hasattr(os, "sched_setaffinity"):
        for kind, run in (
            ("bare", run_bare),
            ("empty stages", run_empty),
            ("pipeline", run_pipeline),
        ):
            kinds[f"{kind}, on one core"] = partial(on_one_core, run, count)
    rounds: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    for _ in range(args.rounds):
        for kind, measure in kinds.items():
            rounds[kind].append(undisturbed(measure))
    medians = {
        kind: {key: round(statistics.median(r[key] for r in rows), 1) for key in rows[0]}
        for kind, rows in rounds.items()
    }
    for kind, values in medians.items():
        print(f"{kind:26} {values['fps']:8.0f} frames/s {values['cpu_us']:7.1f} us of CPU a frame")
    if args.json:
        result = {**describe(), "frames": count, "medians": medians, "rounds": rounds}
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
