"""Whether the stage that is named as the bottleneck is it, and the rate without it as foretold.

    python -m benchmarks.verdict [--rounds 3] [--json FILE]

Five stages in their threads pass 720p frames on, each at a cost that is known because it does
nothing else: it sleeps (as who waits for a device does) or works on a picture without Python's lock
(as OpenCV, codecs and networks do). One of the five costs more than the others. The pipeline says
which, and how fast the rest would be; then the same runs with that stage free of cost. `error` is
the foretold rate over the measured one, less 1.

A run during which other programs took more than 5 % of the cores is taken again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.machine import describe, undisturbed
from engines.engine import Labels, Pictures
from engines.fake_engine import FakeEngine, fake_card
from pipeline.channel import Policy
from pipeline.frame import Frame
from pipeline.roles import Stage
from pipeline.runner import Pipeline
from pipeline.stages import infer
from pipeline.stats import engine_wait

STAGES = ("capture", "preprocess", "infer", "colorize", "sink")
_CARD = fake_card(9, 16)
_own = threading.local()
_PLANE = np.random.default_rng(0).integers(0, 256, (720, 1280)).astype(np.uint8)


@dataclass(frozen=True)
class Cost:
    """What a stage does with each frame."""

    sleep_s: float = 0.0
    blurs: int = 0
    """How often it blurs 720p of luma, 0.2 to 0.3 ms of a core each."""

    def pay(self) -> None:
        if self.sleep_s:
            time.sleep(self.sleep_s)
        if self.blurs and not hasattr(_own, "plane"):
            _own.plane = np.empty_like(_PLANE)  # fresh memory each time would cost as much again
        for _ in range(self.blurs):
            cv2.blur(_PLANE, (5, 5), _own.plane)


FREE = Cost()


@dataclass(frozen=True)
class Case:
    """What the slowed stage costs, and each of the other four."""

    slow: Cost
    others: Cost


CASES = {
    "sleeps among sleepers": Case(Cost(sleep_s=0.012), Cost(sleep_s=0.004)),
    "works among sleepers": Case(Cost(blurs=48), Cost(sleep_s=0.004)),
    "sleeps among workers": Case(Cost(sleep_s=0.016), Cost(blurs=14)),
    "works among workers": Case(Cost(blurs=48), Cost(blurs=8)),
    "works among workers, two cores full": Case(Cost(blurs=32), Cost(blurs=16)),
}


class Payer(FakeEngine):
    """A fake engine that pays in its own thread."""

    def __init__(self, cost: Cost) -> None:
        self._cost = cost
        super().__init__(_CARD, parallel=1)

    def _run(self, number: int, pictures: Pictures) -> tuple[Labels, float]:
        begun = time.perf_counter()
        self._cost.pay()
        labels, _ = super()._run(number, pictures)
        return labels, time.perf_counter() - begun


@dataclass
class Camera:
    """Hands out one picture over and over."""

    cost: Cost
    count: int
    name = "camera"
    live = False

    @property
    def lost(self) -> dict[str, int]:
        """Nothing is lost."""
        return {}

    def frames(self) -> Iterator[Frame]:
        """All frames, once."""
        image = np.dstack([_PLANE] * 3)
        for i in range(self.count):
            self.cost.pay()
            yield Frame(i, i, Fraction(1, 30), image)


@dataclass
class Screen:
    """Looks at no picture."""

    cost: Cost
    name = "sink"
    advice = ""
    policy: Policy = "block"

    def run(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        for frame in frames:
            self.cost.pay()
            yield frame


def run(costs: dict[str, Cost], count: int) -> Pipeline:
    """A pipeline that has run, `costs` by stage; each other costs nothing."""
    tensor = np.zeros((1, _CARD.input.height, _CARD.input.width, 3), np.uint8)

    def preprocess(frames: Iterator[Frame]) -> Iterator[Frame]:
        for frame in frames:
            costs.get("preprocess", FREE).pay()
            frame.tensor = tensor
            yield frame

    def colorize(frames: Iterator[Frame]) -> Iterator[Frame]:
        for frame in frames:
            assert frame.pending is not None
            with engine_wait():
                frame.pending.result()
            frame.pending = None
            costs.get("colorize", FREE).pay()
            yield frame

    with Payer(costs.get("infer", FREE)) as engine:
        stages = [Stage("preprocess", preprocess), infer(engine), Stage("colorize", colorize)]
        source = Camera(costs.get("capture", FREE), count)
        pipeline = Pipeline(source, stages, [Screen(costs.get("sink", FREE))])
        pipeline.run()
    return pipeline


def examine(case: Case, slow: str, count: int = 80) -> dict[str, Any]:
    """What is said of a run with one slow stage, and what comes of the rest without it."""
    costs = dict.fromkeys(STAGES, case.others)
    whole = run({**costs, slow: case.slow}, count)
    without = run({**costs, slow: FREE}, 2 * count)
    assert whole.bottleneck is not None
    measured = 2 * count / without.wall_s
    return {
        "named": whole.bottleneck.stage,
        "fps": round(count / whole.wall_s, 1),
        "fps_foretold": round(whole.bottleneck.fps_limit, 1),
        "fps_without": round(measured, 1),
        "error": round(whole.bottleneck.fps_limit / measured - 1, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    todo: dict[str, dict[str, Callable[[], dict[str, Any]]]] = {
        name: {slow: partial(examine, case, slow) for slow in STAGES}
        for name, case in CASES.items()
    }
    result: dict[str, Any] = {**describe(), "cases": {name: {} for name in todo}}
    for name, stages in todo.items():
        for slow, work in stages.items():
            rounds = [undisturbed(work) for _ in range(args.rounds)]
            right = all(r["named"] == slow for r in rounds)
            error = statistics.median(r["error"] for r in rounds)
            row = {"named_rightly": right, "median_error": error, "rounds": rounds}
            result["cases"][name][slow] = row
            print(
                f"{name:36} {slow:11} {'right' if right else 'WRONG'} {error:+.1%} {rounds[-1]}",
                flush=True,
            )
    errors = [r["median_error"] for case in result["cases"].values() for r in case.values()]
    result["largest_median_error"] = max(errors, key=abs)
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
