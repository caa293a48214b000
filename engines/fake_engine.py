"""A deterministic engine without a network: labels are a plain function of the picture.

For tests of pipelines and for trying one out; it keeps the protocol to the letter, runs its
submissions on real threads, and fails where it is told to.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from queue import SimpleQueue

import numpy as np

from engines.card import Card, CardInput
from engines.engine import EngineInfo, Labels, Pictures, RingEngine


def fake_card(height: int = 36, width: int = 64, classes: int = 21) -> Card:
    """A card for the fake engine, in VOC's colours."""
    return Card(
        name="fake",
        input=CardInput(height=height, width=width, mean=(0, 0, 0), std=(1, 1, 1), color="rgb"),
        classes=("background", *(f"class{i}" for i in range(1, classes))),
        license="Apache-2.0",
        source="computed, no weights",
    )


class FakeEngine(RingEngine):
    """Class id of a pixel = (its red value // 8) modulo the number of classes.

    `fail_on` holds the numbers (from 0) of submissions that fail; `delay_s` is how long each one
    takes, `parallel` how many run side by side.
    """

    def __init__(
        self,
        card: Card | None = None,
        *,
        batch: int = 1,
        depth: int = 4,
        parallel: int = 2,
        delay_s: float = 0.0,
        fail_on: Collection[int] = (),
    ) -> None:
        card = card or fake_card()
        info = EngineInfo("fake", "fp32", "1", "this process", "asked for")
        super().__init__(card, info, list(range(depth)), batch=batch, parallel=parallel)
        # Not an executor: its futures cost more than the pictures that this is for.
        self._work: SimpleQueue[tuple[int, int, Pictures] | None] = SimpleQueue()
        self._done: list[SimpleQueue[tuple[Labels, float] | Exception]] = [
            SimpleQueue() for _ in range(depth)
        ]
        self._threads = [
            threading.Thread(target=self._serve, name=f"fake_{i}", daemon=True)
            for i in range(parallel)
        ]
        self._delay_s = delay_s
        self._fail_on = frozenset(fail_on)
        self._submitted = 0
        self._table = (np.arange(256) // 8 % len(card.classes)).astype(np.uint8)
        for thread in self._threads:
            thread.start()

    def _start(self, slot: int, pictures: Pictures) -> None:
        self._work.put((slot, self._submitted, pictures))
        self._submitted += 1

    def _serve(self) -> None:
        """One thread: whatever is next, until there is nothing more."""
        while (work := self._work.get()) is not None:
            slot, number, pictures = work
            try:
                self._done[slot].put(self._run(number, pictures))
            except Exception as error:
                self._done[slot].put(error)
            del work, pictures

    def _run(self, number: int, pictures: Pictures) -> tuple[Labels, float]:
        begun = time.perf_counter()
        if number in self._fail_on:
            raise ValueError(f"submission {number} was told to fail")
        labels = self._table.take(pictures[..., 0])
        if self._delay_s:
            time.sleep(max(0.0, self._delay_s - (time.perf_counter() - begun)))
        return labels, time.perf_counter() - begun

    def _finish(self, slot: int) -> tuple[Labels, float]:
        outcome = self._done[slot].get()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _release(self) -> None:
        for _ in self._threads:
            self._work.put(None)
        for thread in self._threads:
            thread.join()
