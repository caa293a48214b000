"""The protocol of every engine: pictures in, class ids out, several submissions in flight.

    with load_engine("voc") as engine:
        pending = engine.submit(pictures)   # uint8 (N, height, width, 3) RGB
        labels = pending.result()           # uint8 (N, height, width) class ids

An engine that runs on new hardware subclasses `RingEngine`, which keeps the promises that the
contract test checks: results belong to their submission whatever the order of completion, at
most `depth` run at once, a failure belongs to one submission and the next one works.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from engines.card import Card
from engines.errors import EngineError, InferenceError, PictureError

Pictures = NDArray[np.uint8]
Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class EngineInfo:
    """What runs the network, for the report and for the user's eyes."""

    name: str
    """`openvino`, `onnxruntime`, `tensorrt`, `torch` or `fake`."""
    precision: str
    """What the network computes in, as the runtime itself states it: fp32, bf16, fp16 or int8."""
    version: str
    """The runtime's version."""
    device: str
    """The device's own name, for example the CPU's model."""
    why: str = ""
    """One clause: why this engine and precision."""
    refine: str = "none"
    """How scores are refined in the graph, with every parameter (engines/refine.py)."""


class Pending(Protocol):
    """A submission under way."""

    def result(self) -> Labels:
        """Waits for the class ids, uint8 (N, height, width).

        Raises InferenceError if this submission failed. May be called again, by any thread.
        """
        ...


class Engine(Protocol):
    """A network ready to run. A context manager; `close` waits for what is in flight."""

    @property
    def card(self) -> Card:
        """What the network takes and what its classes mean."""
        ...

    @property
    def info(self) -> EngineInfo:
        """What runs it."""
        ...

    @property
    def batch(self) -> int:
        """The most pictures that one submission may hold."""
        ...

    @property
    def depth(self) -> int:
        """How many submissions may be in flight; one more waits for the oldest to finish."""
        ...

    @property
    def busy_s(self) -> float:
        """Seconds for which the engine was at work so far: the sum of its finished submissions'
        run times divided by how many run side by side.
        """
        ...

    def submit(self, pictures: Pictures) -> Pending:
        """Starts on uint8 (N, height, width, 3) RGB pictures, 1 <= N <= batch.

        The array must not change until the result is there. Raises PictureError for any other
        shape or type and EngineError after `close`.
        """
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class _Submission:
    """One use of a slot. Whoever comes first, its owner or the slot's next user, fetches the
    labels; so a result that nobody asks for can never keep the engine from going on.
    """

    def __init__(self, engine: RingEngine, slot: Any, pictures: Pictures) -> None:
        self._engine = engine
        self._slot = slot
        self._pictures: Pictures | None = pictures  # alive for as long as the device may read it
        self._lock = threading.Lock()
        self._labels: Labels | None = None
        self._error: Exception | None = None

    def result(self) -> Labels:
        with self._lock:
            if self._slot is not None:
                try:
                    self._labels, seconds = self._engine._finish(self._slot)
                    self._engine._count(seconds)
                except Exception as error:
                    self._error = error
                self._slot = self._pictures = None
        if self._error is not None:
            if isinstance(self._error, EngineError):
                raise self._error
            raise InferenceError(
                f"{self._engine.info.name} failed on a picture: {_first_line(self._error)}"
            ) from self._error
        assert self._labels is not None
        return self._labels


class RingEngine:
    """The half of an engine that all share: checks, a ring of slots, waiting and closing.

    A subclass prepares `slots`, whatever one submission needs (a request, a stream and its
    buffers), and says how to start one and how to finish it.
    """

    def __init__(
        self, card: Card, info: EngineInfo, slots: list[Any], *, batch: int, parallel: int
    ) -> None:
        self.card = card
        self.info = info
        self.batch = batch
        self.depth = len(slots)
        self._parallel = parallel
        self._free = deque(slots)
        self._flying: deque[tuple[Any, _Submission]] = deque()
        self._submitting = threading.Lock()
        self._counting = threading.Lock()
        self._ran_s = 0.0
        self._closed = False

    @abstractmethod
    def _start(self, slot: Any, pictures: Pictures) -> None:
        """Starts on the pictures without waiting."""

    @abstractmethod
    def _finish(self, slot: Any) -> tuple[Labels, float]:
        """Waits; returns labels that the caller owns and the seconds that the run took."""

    @abstractmethod
    def _release(self) -> None:
        """Frees what the engine holds; nothing is in flight any more."""

    @property
    def busy_s(self) -> float:
        with self._counting:
            return self._ran_s / self._parallel

    def _count(self, seconds: float) -> None:
        with self._counting:
            self._ran_s += seconds

    def submit(self, pictures: Pictures) -> Pending:
        check_pictures(self, pictures)
        with self._submitting:
            if self._closed:
                raise EngineError(f"the {self.info.name} engine is closed; load it again")
            if self._free:
                slot = self._free.popleft()
            else:
                slot, oldest = self._flying[0]
                _wait(oldest)  # may be interrupted; only then is the slot ours
                self._flying.popleft()
            submission = _Submission(self, slot, pictures)
            try:
                self._start(slot, pictures)
            except Exception as error:
                self._free.append(slot)
                raise InferenceError(
                    f"{self.info.name} could not start on a picture: {_first_line(error)}"
                ) from error
            self._flying.append((slot, submission))
            return submission

    def close(self) -> None:
        with self._submitting:
            if self._closed:
                return
            self._closed = True
            for _, submission in self._flying:
                _wait(submission)
            self._flying.clear()
            self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def check_pictures(engine: Engine, pictures: Pictures) -> None:
    """Raises PictureError unless `engine.submit` may take them."""
    want = engine.card.input
    shape = (want.height, want.width, 3)
    ok = (
        isinstance(pictures, np.ndarray)
        and pictures.dtype == np.uint8
        and pictures.ndim == 4
        and pictures.shape[1:] == shape
        and 1 <= pictures.shape[0] <= engine.batch
        and pictures.flags.c_contiguous
    )
    if not ok:
        got = f"{getattr(pictures, 'dtype', type(pictures).__name__)} "
        got += str(getattr(pictures, "shape", ""))
        raise PictureError(
            f"{engine.card.name} on {engine.info.name} takes contiguous uint8 "
            f"(1..{engine.batch}, {want.height}, {want.width}, 3) RGB pictures, got {got.strip()}"
        )


def _wait(submission: _Submission) -> None:
    """Waits until the slot is free; a failure stays with the submission for its owner."""
    with suppress(EngineError):
        submission.result()


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
