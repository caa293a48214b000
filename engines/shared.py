"""One engine for several sources: each has its turn, and what waits at the same time goes together.

    with SharedEngine(engine, 3) as shared:
        one, two, three = shared.views      # engines, for a pipeline each

A view keeps the engine's promises to its own pipeline. Requests that wait are taken in turns, one
from each view, so nobody's share depends on how fast he asks; who does not ask costs nothing.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from concurrent.futures import Future
from contextlib import suppress
from types import TracebackType

import numpy as np
from typing_extensions import Self

from engines.card import Card
from engines.cuda.network import DeviceContext, DeviceEngine
from engines.engine import Engine, EngineInfo, Labels, Pending, Pictures, check_pictures
from engines.errors import EngineError, InferenceError

# How long a request may wait for others to make up a batch, seconds: a fraction of what a batch
# takes on the cards that gain from batches.
GATHER_S = 0.003


class _Request:
    """A view's pictures, from the asking to the answer."""

    def __init__(self, engine: Engine, pictures: Pictures) -> None:
        self.asked_at = time.perf_counter()
        self.count = len(pictures)
        self.pictures: Pictures | None = pictures
        self.started: Future[tuple[Pending, int, bool]] = Future()
        """What the engine was given: its answer to come, where ours begins in it, and whether it
        holds others' pictures too."""
        self._engine = engine
        self._lock = threading.Lock()
        self._labels: Labels | None = None

    def result(self) -> Labels:
        pending, begin, together = self.started.result()
        with self._lock:
            if self._labels is None:
                try:
                    self._labels = pending.result()[begin : begin + self.count]
                except InferenceError:
                    if not together:
                        raise
                    # It may have been somebody else's picture that failed.
                    assert self.pictures is not None
                    self._labels = self._engine.submit(self.pictures).result()
                self.pictures = None
            return self._labels


class View:
    """An engine to the pipeline that has it; a share of one in truth."""

    def __init__(self, shared: SharedEngine, engine: Engine) -> None:
        self.card: Card = engine.card
        self.info: EngineInfo = engine.info
        self.batch = engine.batch
        # A source that is alone, because others stall, can keep the whole engine busy.
        self.depth = max(2, engine.depth * engine.batch)
        self.waiting: deque[_Request] = deque()
        """Not yet given to the engine; only to be touched under the lock of `shared`."""
        self.closed = False
        self.pictures = 0
        """Pictures that the engine has been given for this view."""
        self._shared, self._engine = shared, engine
        self._latest: deque[_Request] = deque(maxlen=2 * self.depth)

    @property
    def busy_s(self) -> float:
        """The part of the engine's working time that falls to this view, by its pictures."""
        return self._engine.busy_s * self.pictures / max(1, self._shared.pictures)

    def submit(self, pictures: Pictures) -> Pending:
        """As the engine's own. Waits while this view has as much waiting as makes a batch."""
        check_pictures(self._engine, pictures)
        request = _Request(self._engine, pictures)
        self._shared.ask(self, request)
        self._latest.append(request)
        return request

    def close(self) -> None:
        """Waits for what it has in flight; the engine goes on for the others."""
        self._shared.leave(self)
        for request in self._latest:
            with suppress(EngineError):  # it stays with the request, for its owner
                request.result()
        self._latest.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class DeviceView(View):
    """A share of an engine on a GPU, on whose card its pipeline may have a lane of its own."""

    def __init__(self, shared: SharedEngine, engine: DeviceEngine) -> None:
        super().__init__(shared, engine)
        self.device = engine.device
        self._bound = engine

    def bind(self, pictures: int, labels: int, most: int) -> DeviceContext:
        """As the engine's own."""
        return self._bound.bind(pictures, labels, most)


class SharedEngine:
    """Owns neither engine nor pipelines: leaving the block ends the sharing."""

    def __init__(self, engine: Engine, count: int, gather_s: float = GATHER_S) -> None:
        self.views = [
            DeviceView(self, engine) if isinstance(engine, DeviceEngine) else View(self, engine)
            for _ in range(count)
        ]
        self.pictures = 0
        """Pictures that the engine has been given for all."""
        self._engine, self._gather_s = engine, gather_s
        self._turn = 0
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="share")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for view in self.views:
            view.close()
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def ask(self, view: View, request: _Request) -> None:
        """Takes a request in; waits for room in the view's queue."""
        with self._changed:
            while len(view.waiting) >= view.batch and not view.closed:
                self._changed.wait()
            if view.closed:
                raise EngineError(f"this share of the {view.info.name} engine is closed")
            view.waiting.append(request)
            self._changed.notify_all()

    def leave(self, view: View) -> None:
        """Nothing more will come from this view; what waits is still done."""
        with self._changed:
            view.closed = True
            self._changed.notify_all()

    def _serve(self) -> None:
        while requests := self._next():
            pictures = [r.pictures for r in requests if r.pictures is not None]
            whole = pictures[0] if len(pictures) == 1 else np.concatenate(pictures)
            try:
                pending = self._engine.submit(whole)
            except Exception as error:
                for request in requests:
                    request.started.set_exception(error)
                continue
            begin = 0
            for request in requests:
                request.started.set_result((pending, begin, len(requests) > 1))
                begin += request.count

    def _next(self) -> list[_Request]:
        """Waits for requests that make up a batch, or have waited for one; none at the end."""
        with self._changed:
            while not self._closed:
                left_s = self._left_s()
                if left_s is not None and left_s <= 0:
                    break
                self._changed.wait(left_s)
            taken = self._take()
            self._changed.notify_all()
            return taken

    def _left_s(self) -> float | None:
        """How long what waits may go on waiting; None where nothing does."""
        asked = [view.waiting[0].asked_at for view in self.views if view.waiting]
        if not asked:
            return None
        waiting = sum(r.count for view in self.views for r in view.waiting)
        everyone = all(view.waiting or view.closed for view in self.views)
        if waiting >= self._engine.batch or everyone:
            return 0.0
        return min(asked) + self._gather_s - time.perf_counter()

    def _take(self) -> list[_Request]:
        """One request of each view in turn, as long as they fit into a batch."""
        taken: list[_Request] = []
        room, passed = self._engine.batch, 0
        while passed < len(self.views):
            view = self.views[self._turn % len(self.views)]
            if view.waiting and view.waiting[0].count > room:
                break  # it comes first the next time
            self._turn += 1
            passed += 1
            if view.waiting:
                passed = 0
                request = view.waiting.popleft()
                taken.append(request)
                room -= request.count
                view.pictures += request.count
                self.pictures += request.count
        return taken
