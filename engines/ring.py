"""Several jobs in flight on a ring of slots, each with what one job needs on its device."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections import deque
from contextlib import suppress
from types import TracebackType
from typing import Any, Generic, TypeVar

from typing_extensions import Self

from engines.errors import EngineError, InferenceError

J = TypeVar("J")
A = TypeVar("A")


class Submission(Generic[J, A]):
    """One use of a slot. Whoever comes first, its owner or the slot's next user, fetches the
    answer; so a result that nobody asks for can never keep the ring from going on.
    """

    def __init__(self, ring: Ring[J, A], slot: Any, job: J) -> None:
        self._ring = ring
        self._slot = slot
        self._job: J | None = job  # alive for as long as the device may read it
        self._lock = threading.Lock()
        self._answers: list[A] = []
        self._error: Exception | None = None

    def result(self) -> A:
        """Waits for the answer; InferenceError if this job failed. For any thread, repeatedly."""
        with self._lock:
            if self._slot is not None:
                try:
                    self._answers.append(self._ring._fetch(self._slot))
                except Exception as error:
                    self._error = error
                self._slot = self._job = None
        if self._error is not None:
            if isinstance(self._error, EngineError):
                raise self._error
            raise InferenceError(
                f"{self._ring.runner} failed on a picture: {_first_line(self._error)}"
            ) from self._error
        return self._answers[0]


class Ring(Generic[J, A]):
    """Checks, slots, waiting and closing, for whatever runs jobs side by side.

    A subclass prepares `slots` and says how to start a job on one and how to fetch its answer.
    """

    def __init__(self, runner: str, slots: list[Any]) -> None:
        self.runner = runner
        """What runs the jobs, for messages."""
        self.depth = len(slots)
        self._free = deque(slots)
        self._flying: deque[tuple[Any, Submission[J, A]]] = deque()
        self._submitting = threading.Lock()
        self._closed = False

    @abstractmethod
    def _check(self, job: J) -> None:
        """Raises PictureError for what cannot be done."""

    @abstractmethod
    def _start(self, slot: Any, job: J) -> None:
        """Starts on the job without waiting."""

    @abstractmethod
    def _fetch(self, slot: Any) -> A:
        """Waits; returns an answer that the caller owns."""

    @abstractmethod
    def _release(self) -> None:
        """Frees what the ring holds; nothing is in flight any more."""

    def submit(self, job: J) -> Submission[J, A]:
        """Starts on a job; waits for the oldest one's slot where all are in flight."""
        self._check(job)
        with self._submitting:
            if self._closed:
                raise EngineError(f"the {self.runner} engine is closed; load it again")
            if self._free:
                slot = self._free.popleft()
            else:
                slot, oldest = self._flying[0]
                _wait(oldest)  # may be interrupted; only then is the slot ours
                self._flying.popleft()
            submission = Submission(self, slot, job)
            try:
                self._start(slot, job)
            except BaseException as error:
                self._free.append(slot)
                if not isinstance(error, Exception):  # Ctrl-C
                    raise
                raise InferenceError(
                    f"{self.runner} could not start on a picture: {_first_line(error)}"
                ) from error
            self._flying.append((slot, submission))
            return submission

    def close(self) -> None:
        """Waits for what is in flight, whose answers can still be had, and frees the rest."""
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


def _wait(submission: Submission[Any, Any]) -> None:
    """Waits until the slot is free; a failure stays with the submission for its owner."""
    with suppress(EngineError):
        submission.result()


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
