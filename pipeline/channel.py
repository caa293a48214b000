"""A bounded hand-over between two threads, which counts what waits and what is dropped.

The end of a stream and its failure are states of the channel, never items in it, so neither can
be overtaken, drained away or waited for in vain.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Generic, Literal, TypeVar

from pipeline.errors import StoppedError

T = TypeVar("T")
Policy = Literal["block", "drop_oldest"]


class Channel(Generic[T]):
    """At most `capacity` items, handed over in order.

    With policy `block` a full channel makes `put` wait; with `drop_oldest` it never waits and the
    oldest item is dropped and counted. Any thread may `end` or `stop` it at any time.
    """

    def __init__(self, capacity: int, policy: Policy = "block") -> None:
        if capacity < 1:
            raise ValueError(f"a channel holds at least 1 item, not {capacity}")
        self.capacity = capacity
        self.policy: Policy = policy
        self.taken = 0
        """Items that `get` has handed out."""
        self.accepted = 0
        """Items that `put` has taken in."""
        self.dropped = 0
        """Items that gave way to newer ones (policy drop_oldest)."""
        self.is_late: Callable[[T], bool] | None = None
        """Which items are not to be handed out any more; None where all are."""
        self.late = 0
        """Those that were not handed out for that."""
        self.put_wait_s = 0.0
        """Seconds that the producer waited for room."""
        self.get_wait_s = 0.0
        """Seconds that the consumer waited for an item."""
        self._items: deque[T] = deque()
        self._ended = False
        self._stopped = False
        self._lock = threading.Lock()
        self._changed_for_get = threading.Condition(self._lock)
        self._changed_for_put = threading.Condition(self._lock)
        # How many wait: waking nobody costs as much as the rest of the hand-over.
        self._getters = self._putters = 0

    def put(self, item: T) -> None:
        """Hands an item over; raises StoppedError if the channel is stopped or has ended."""
        with self._lock:
            if len(self._items) >= self.capacity and not (self._stopped or self._ended):
                if self.policy == "drop_oldest":
                    self._drop()
                else:
                    begun = perf_counter()
                    self._putters += 1
                    try:
                        while len(self._items) >= self.capacity and not (
                            self._stopped or self._ended
                        ):
                            self._changed_for_put.wait()
                    finally:
                        self._putters -= 1
                    self.put_wait_s += perf_counter() - begun
            if self._stopped or self._ended:
                raise StoppedError("the channel takes no more")
            self._items.append(item)
            self.accepted += 1
            if self._getters:
                self._changed_for_get.notify()

    def get(self) -> T:
        """The next item; raises EOFError after the last one, StoppedError once stopped."""
        with self._lock:
            if self.is_late is not None:
                self._expire()
            if not self._items and not (self._ended or self._stopped):
                begun = perf_counter()
                self._getters += 1
                try:
                    while not self._items and not (self._ended or self._stopped):
                        self._changed_for_get.wait()
                        if self.is_late is not None:
                            self._expire()
                finally:
                    self._getters -= 1
                self.get_wait_s += perf_counter() - begun
            if self._stopped:
                raise StoppedError("the channel gives no more")
            if not self._items:
                raise EOFError
            item = self._items.popleft()
            self.taken += 1
            if self._putters:
                self._changed_for_put.notify()
            return item

    def _drop(self) -> None:
        self._items.popleft()
        self.dropped += 1

    def _expire(self) -> None:
        """Drops what is late, from the front on: later ones are younger."""
        while self.is_late and self._items and not self._stopped and self.is_late(self._items[0]):
            self._drop_late()
            self._changed_for_put.notify()

    def _drop_late(self) -> None:
        self._items.popleft()
        self.late += 1

    def __iter__(self) -> Iterator[T]:
        """Items until the end; raises StoppedError if the channel is stopped before it."""
        while True:
            try:
                item = self.get()
            except EOFError:
                return
            yield item

    def __len__(self) -> int:
        return len(self._items)

    def clear(self) -> None:
        """Lets go of what is in a stopped or ended channel, once it has been counted."""
        with self._lock:
            self._items.clear()

    def end(self) -> None:
        """No more items will come; those that are in it can still be had. Not after `stop`."""
        with self._lock:
            self._ended = True
            self._changed_for_get.notify_all()
            self._changed_for_put.notify_all()

    def stop(self) -> None:
        """Both sides get StoppedError from now on; items that are in it stay, to be counted."""
        with self._lock:
            self._stopped = True
            self._changed_for_get.notify_all()
            self._changed_for_put.notify_all()
