"""The reader's end of the hand-over: orders in, messages out, pictures in shared memory.

Messages and orders are lines of JSON; pictures lie in slots of a file without a name, which both
processes have mapped and which is gone with them, however they end.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import threading
import time
from collections import deque
from typing import Any

from pipeline.sources.live.slots import Slots, slots_size

# How often the other side hears that data comes although no picture does. Seconds.
_ALIVE_S = 0.25


class Link:
    """For the reader's main thread; orders are taken in by a thread of its own.

    The end of stdin means that the other side is gone: then this process and all that it has
    started end at once, wherever they are.
    """

    def __init__(self, orders: int, messages: int, memory: int) -> None:
        self._messages, self._memory = messages, memory
        self._free: deque[int] = deque()
        self._changed = threading.Condition()
        self._opens: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self.slots: Slots | None = None
        self._said_at = 0.0
        self.granted = False
        """Whether pictures are wanted yet: before that they are no one's loss."""
        threading.Thread(target=self._listen, args=(orders,), daemon=True).start()

    def next_open(self) -> dict[str, Any]:
        """Waits for the order to open a source."""
        return self._opens.get()

    def send(self, kind: str, **more: Any) -> None:
        """Says something. Whoever does not listen any more has no need of this process."""
        self._said_at = time.perf_counter()
        try:
            os.write(self._messages, (json.dumps({"kind": kind, **more}) + "\n").encode())
        except OSError:
            _end()

    def alive(self) -> None:
        """Says that data comes, if nothing has been said for a while."""
        if time.perf_counter() - self._said_at > _ALIVE_S:
            self.send("alive")

    def make_room(self, height: int, width: int) -> None:
        """Makes room for pictures of that size."""
        if self.slots is None or self.slots.shape != (height, width):
            os.ftruncate(self._memory, slots_size(height, width))
            self.slots = Slots(self._memory, height, width)

    def take_slot(self, wait: bool) -> int | None:
        """A free slot; None where there is none and nobody wants to `wait`."""
        with self._changed:
            while wait and not self._free:
                self._changed.wait()
            return self._free.popleft() if self._free else None

    def _listen(self, orders: int) -> None:
        with os.fdopen(orders, "r", encoding="utf-8") as lines:
            for line in lines:
                order = json.loads(line)
                if order["kind"] == "free":
                    with self._changed:
                        self._free.extend(order["slots"])
                        self.granted = True
                        self._changed.notify()
                else:
                    self._opens.put(order)
        _end()


def _end() -> None:
    # The reader leads a process group of its own; a bridge that it has started is in it.
    os.killpg(0, signal.SIGKILL)
