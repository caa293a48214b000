"""Sources, stages, engines and sinks that fail, wait and count as they are told."""

from __future__ import annotations

import random
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np

from engines.fake_engine import FakeEngine, fake_card
from pipeline.frame import Frame
from pipeline.roles import Stage
from pipeline.runner import Pipeline
from pipeline.stages import colorize, infer, preprocess

CARD = fake_card(9, 16)
WHEN = ("set-up", "first", "middle", "last", "clean-up")
HEIGHT, WIDTH = 18, 32


class Fault(Exception):  # noqa: N818
    """What was asked for."""


class Broken(BaseException):
    """What no `except Exception` may stop, as KeyboardInterrupt."""


@dataclass
class Plan:
    """Who fails when; and everything that happened."""

    who: str = "nobody"
    when: str = "first"
    count: int = 12
    kind: type[BaseException] = Fault
    faults: list[BaseException] = field(default_factory=list)
    opened: dict[str, threading.Thread] = field(default_factory=dict)
    closed: dict[str, threading.Thread] = field(default_factory=dict)
    delays: Callable[[], float] | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fail(self, who: str) -> None:
        with self.lock:  # an engine runs several pictures at once
            if self.faults:
                return
            fault = self.kind(f"{who} was told to fail: {self.when}")
            self.faults.append(fault)
        raise fault

    @contextmanager
    def inside(self, who: str) -> Iterator[None]:
        """A resource of `who`: opened and closed in its own thread, failing there if so planned."""
        assert who not in self.opened
        self.opened[who] = threading.current_thread()
        try:
            self.at(who, "set-up")
            yield
        finally:
            assert who not in self.closed
            self.closed[who] = threading.current_thread()
            self.at(who, "clean-up")

    def at(self, who: str, when: str) -> None:
        if (who, when) == (self.who, self.when):
            self.fail(who)

    def frame(self, who: str, number: int, index: int) -> None:
        """`who` holds its frame `number`, whose index is `index`; waits, or fails, if planned."""
        if self.delays is not None and (pause := self.delays()) > 0:
            time.sleep(pause)
        if who != self.who:
            return
        # The newest frame is never dropped, so everybody comes to the last one, live or not.
        if (
            (self.when == "first" and number == 0)
            or (self.when == "middle" and index >= self.count // 2)
            or (self.when == "last" and index == self.count - 1)
        ):
            self.fail(who)


class Numbers:
    """`plan.count` frames; green is the index, red differs from pixel to pixel."""

    name = "numbers"

    def __init__(self, plan: Plan, live: bool = False, pause_s: float = 0.0) -> None:
        self.plan, self.live, self.pause_s = plan, live, pause_s
        self.lost: dict[str, int] = {}
        self.alive = self.most_alive = 0
        self._lock = threading.Lock()

    def frames(self) -> Iterator[Frame]:
        with self.plan.inside("source"):
            for index in range(self.plan.count):
                if self.pause_s:
                    time.sleep(self.pause_s)
                self.plan.frame("source", index, index)
                yield Frame(index, 3 * index, Fraction(1, 90), self.picture(index))

    def picture(self, index: int) -> np.ndarray:
        image = np.empty((HEIGHT, WIDTH, 3), np.uint8)
        image[..., 0] = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) + 37 * index
        image[..., 1], image[..., 2] = index % 256, 0
        with self._lock:
            self.alive += 1
            self.most_alive = max(self.most_alive, self.alive)
        weakref.finalize(image, self._gone)
        return image

    def _gone(self) -> None:
        with self._lock:
            self.alive -= 1


class TroubledEngine(FakeEngine):
    """Fails on the planned picture; runs for a random time; counts what is in flight."""

    def __init__(self, plan: Plan, longest_s: float = 0.0, seed: int = 0, **options: Any) -> None:
        super().__init__(CARD, **options)
        self.plan, self.longest_s = plan, longest_s
        self._random = random.Random(seed)
        self.flying = self.most_flying = 0
        self._mutex = threading.Lock()

    def _start(self, slot: int, pictures: np.ndarray) -> None:
        with self._mutex:
            self.flying += 1
            self.most_flying = max(self.most_flying, self.flying)
        super()._start(slot, pictures)

    def _finish(self, slot: int) -> tuple[np.ndarray, float]:
        try:
            return super()._finish(slot)
        finally:
            with self._mutex:
                self.flying -= 1

    def _run(self, number: int, pictures: np.ndarray) -> tuple[np.ndarray, float]:
        if self.longest_s:
            time.sleep(self._random.uniform(0, self.longest_s))
        self.plan.frame("engine", number, int(pictures[0, 0, 0, 1]))
        return super()._run(number, pictures)


class Collector:
    """
    A sink that keeps what it gets.

    With `lag` it yields a frame only once it holds so many more, as an encoder does.
    """

    advice = ""

    def __init__(
        self,
        plan: Plan,
        name: str = "file",
        policy: Any = "block",
        lag: int = 0,
        pause_s: float = 0,
    ) -> None:
        self.plan, self.name, self.policy = plan, name, policy
        self.lag, self.pause_s = lag, pause_s
        self.seen: list[int] = []

    def run(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        with self.plan.inside(self.name):
            held: list[Frame] = []
            for number, frame in enumerate(frames):
                if self.pause_s:
                    time.sleep(self.pause_s)
                self.plan.frame(self.name, number, frame.index)
                assert frame.picture is not None
                self.seen.append(frame.index)
                held.append(frame)
                if len(held) > self.lag:
                    yield held.pop(0)
            yield from held


def guarded(stage: Stage, plan: Plan) -> Stage:
    """The same stage with a resource of its own, failing and waiting as planned."""

    def run(frames: Iterator[Frame]) -> Iterator[Frame]:
        with plan.inside(stage.name), closing(stage.run(frames)) as inner:
            for number, frame in enumerate(inner):
                plan.frame(stage.name, number, frame.index)
                yield frame

    return replace(stage, run=run)


def stages_of(engine: FakeEngine, plan: Plan) -> list[Stage]:
    stages = [preprocess(CARD), infer(engine), colorize(CARD)]
    return [guarded(stage, plan) for stage in stages]


def receive(pipeline: Pipeline, plan: Plan, seen: list[int]) -> None:
    """What a caller does: the loop, with the planned failure of its body."""
    with pipeline:
        plan.at("caller", "set-up")
        for number, frame in enumerate(pipeline):
            seen.append(frame.index)
            plan.frame("caller", number, frame.index)
        plan.at("caller", "clean-up")


def check_accounts(pipeline: Pipeline, seen: list[int], sinks: list[Collector]) -> None:
    """What must hold after any run, good or bad."""
    ledger = pipeline.ledger
    assert ledger.unaccounted == 0, ledger
    assert min(ledger.captured, ledger.delivered, ledger.failed, *ledger.dropped.values(), 0) >= 0
    assert seen == sorted(set(seen))
    files = [sink for sink in sinks if sink.policy == "block"]
    if files:
        assert ledger.delivered <= min(len(sink.seen) for sink in files)
    else:
        assert ledger.delivered == len(seen)
    for sink in sinks:
        assert sink.seen == sorted(set(sink.seen))
    for sink in files:
        assert sink.seen == seen[: len(sink.seen)] or sink.seen[:-1] == seen


def check_closed(plan: Plan, names: list[str]) -> None:
    """Everything that was opened was closed, in its own thread, which has ended."""
    assert set(plan.opened) == set(plan.closed) == set(names)
    for name in names:
        assert plan.opened[name] is plan.closed[name]
        assert plan.opened[name] is not threading.main_thread()
        assert not plan.opened[name].is_alive()
    threads = {id(thread) for thread in plan.opened.values()}
    assert len(threads) == len(names)
