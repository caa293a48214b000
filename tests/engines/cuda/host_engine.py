"""An engine for lanes whose network is a table: FakeEngine's, on the host's device memory."""

from __future__ import annotations

import time

import numpy as np

from engines.cuda.device import open_device
from engines.cuda.graph import Graph
from engines.engine import EngineInfo
from engines.errors import PlanError


class HostEngine:
    """Class id of a pixel = (its red value // 8) modulo the number of classes, as FakeEngine's.

    `fail_on`: which runs fail, counted from 0 after each slot's first. `delay`: seconds of a run.
    """

    def __init__(self, cuda, card, *, batch=1, fail_on=(), delay=lambda: 0.0) -> None:
        self.cuda, self.card, self.batch = cuda, card, batch
        self.device = open_device()
        self.info = EngineInfo("host", "fp16", "1", "GPU 0", "asked for")
        self.fail_on, self.delay = set(fail_on), delay
        self.runs = self.contexts = 0
        self.busy_s, self.depth = 0.0, 4
        self.refuse_after: int | None = None
        self.table = (np.arange(256) // 8 % len(card.classes)).astype(np.uint8)

    def bind(self, pictures, labels, most):
        if self.refuse_after is not None and self.contexts >= self.refuse_after:
            raise PlanError("no room on the card")
        self.contexts += 1
        want = self.card.input
        pixels = most * want.height * want.width
        return _Context(self, self.cuda.at(pictures, 3 * pixels), self.cuda.at(labels, pixels))

    def submit(self, pictures):
        raise AssertionError("a lane binds and does not submit")

    def close(self) -> None:
        """Nothing is open."""

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        self.close()


class _Context:
    def __init__(self, engine, pictures, labels) -> None:
        self.engine, self.pictures, self.labels = engine, pictures, labels
        self.graphs, self.ran = [], False

    def enqueue(self, count, stream) -> None:
        engine, each = self.engine, len(self.labels) // self.engine.batch
        first, self.ran = not self.ran, True

        def job() -> None:
            if not first:
                number, engine.runs = engine.runs, engine.runs + 1
                if number in engine.fail_on:
                    raise ValueError(f"run {number} was told to fail")
                time.sleep(engine.delay())
            red = self.pictures[: 3 * each * count : 3]
            np.take(engine.table, red, out=self.labels[: each * count])

        stream.run(job)

    def capture(self, stream, work):
        assert self.ran
        self.graphs.append(Graph(stream, work))
        return self.graphs[-1]

    def free(self) -> None:
        for graph in self.graphs:
            graph.free()
        self.graphs.clear()
        self.engine.contexts -= 1
