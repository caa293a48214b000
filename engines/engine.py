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
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from engines.card import Card
from engines.errors import PictureError
from engines.ring import Ring

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


class RingEngine(Ring[Pictures, Labels]):
    """The half of an engine that all share: checks, a ring of slots, waiting and closing.

    A subclass prepares `slots`, whatever one submission needs (a request, a stream and its
    buffers), and says how to start one and how to finish it.
    """

    def __init__(
        self, card: Card, info: EngineInfo, slots: list[Any], *, batch: int, parallel: int
    ) -> None:
        super().__init__(info.name, slots)
        self.card = card
        self.info = info
        self.batch = batch
        self._parallel = parallel
        self._counting = threading.Lock()
        self._ran_s = 0.0

    @abstractmethod
    def _finish(self, slot: Any) -> tuple[Labels, float]:
        """Waits; returns labels that the caller owns and the seconds that the run took."""

    @property
    def busy_s(self) -> float:
        with self._counting:
            return self._ran_s / self._parallel

    def _check(self, pictures: Pictures) -> None:
        check_pictures(self, pictures)

    def _fetch(self, slot: Any) -> Labels:
        labels, seconds = self._finish(slot)
        with self._counting:
            self._ran_s += seconds
        return labels


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
