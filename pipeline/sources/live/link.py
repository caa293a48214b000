"""The reader's end of the hand-over: orders in, messages out, pictures in shared memory.

Messages and orders are lines of JSON; pictures lie in slots of a file without a name, which both
processes have mapped and which is gone with them, however they end.
"""

from __future__ import annotations

import json
import mmap
import os
import queue
import signal
import threading
import time
from collections import deque
from typing import Any

import numpy as np

from pipeline.frame import Image
from pipeline.planes import Planes

SLOTS = 3
"""One is being written, one read, one on its way."""

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
        self._map: mmap.mmap | None = None
        self._slots: list[Image] = []
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

    def shape_slots(self, height: int, width: int) -> None:
        """Makes room for pictures of that size."""
        if self._slots and self._slots[0].shape[:2] == (height, width):
            return
        size = height * width * 3
        os.ftruncate(self._memory, SLOTS * size)
        self._map = mmap.mmap(self._memory, SLOTS * size)
        self._slots = [
            np.frombuffer(self._map, np.uint8, size, i * size).reshape(height, width, 3)
            for i in range(SLOTS)
        ]

    def take_slot(self, wait: bool) -> int | None:
        """A free slot; None where there is none and nobody wants to `wait`."""
        with self._changed:
            while wait and not self._free:
                self._changed.wait()
            return self._free.popleft() if self._free else None

    def fill(self, slot: int, image: Image | Planes) -> None:
        """Puts a picture into a slot: RGB, or planes one after the other in half the room."""
        if isinstance(image, Planes):
            parts = plane_views(self._slots[slot])
            for mine, theirs in zip(parts, (image.y, image.u, image.v), strict=True):
                np.copyto(mine, theirs)
        else:
            np.copyto(self._slots[slot], image)

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


def plane_views(slot: Image) -> list[Image]:
    """Where Y, U and V lie in a slot for a uint8 (H, W, 3) picture with even sides."""
    height, width = slot.shape[:2]
    views, begin = [], 0
    for h, w in ((height, width), (height // 2, width // 2), (height // 2, width // 2)):
        views.append(slot.reshape(-1)[begin : begin + h * w].reshape(h, w))
        begin += h * w
    return views


def _end() -> None:
    # The reader leads a process group of its own; a bridge that it has started is in it.
    os.killpg(0, signal.SIGKILL)
