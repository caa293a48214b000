"""The other end of the hand-over: starts a reader, hears it, ends it."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from contextlib import suppress
from typing import Any

from pipeline.errors import StoppedError
from pipeline.frame import Image
from pipeline.planes import Planes
from pipeline.sources.live.slots import SLOTS, Slots

_READER = "pipeline.sources.live.reader"


class Waker:
    """Ends the waiting of another thread, once and for all."""

    def __init__(self) -> None:
        self.reading, self._writing = os.pipe()
        self.woken = False
        self._closed = False
        self._lock = threading.Lock()

    def wake(self) -> None:
        """May be called by any thread, any number of times, also after `close`."""
        with self._lock:  # else the descriptor could be closed by now, and be another file's
            if not (self.woken or self._closed):
                self.woken = True  # before whoever waits can look
                os.write(self._writing, b"!")
            self.woken = True

    def wait(self, timeout_s: float) -> None:
        """Sleeps; raises StoppedError once it is woken."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.reading, selectors.EVENT_READ)
            selector.select(timeout_s)
        self.check()

    def check(self) -> None:
        if self.woken:
            raise StoppedError("the source is interrupted")

    def close(self) -> None:
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self.reading)
                os.close(self._writing)


class Reader:
    """A process that reads one source; killed by `close`, whatever it is waiting for."""

    def __init__(self, waker: Waker) -> None:
        self._waker = waker
        self._memory = _unnamed_file()
        self._messages, theirs = os.pipe()
        paths = os.pathsep.join(path for path in sys.path if path)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", _READER, str(self._memory), str(theirs)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # FFmpeg's log would hold the URL
                pass_fds=[self._memory, theirs],
                # Out of reach of the terminal's Ctrl-C, which is for us to act on.
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": paths},
            )  # fmt: skip
        except BaseException:
            os.close(self._messages)
            os.close(self._memory)
            raise
        finally:
            os.close(theirs)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._messages, selectors.EVENT_READ)
        self._selector.register(waker.reading, selectors.EVENT_READ)
        self._partial = b""
        self._heard: deque[dict[str, Any]] = deque()
        self._slots: Slots | None = None
        self._closed = self._granted = False
        self.ready = False
        """Whether it has started, as far as heard."""

    @property
    def pid(self) -> int:
        return self._process.pid

    def order(self, kind: str, **more: Any) -> None:
        """Tells it something; what it cannot hear any more shows in `receive`."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.write((json.dumps({"kind": kind, **more}) + "\n").encode())
            self._process.stdin.flush()

    def grant(self) -> None:
        """Asks for pictures: all slots may be filled. Once; it keeps them through reconnections."""
        if not self._granted:
            self._granted = True
            self.order("free", slots=list(range(SLOTS)))

    def free(self, slot: int) -> None:
        """Gives a slot back to be filled again."""
        self.order("free", slots=[slot])

    def receive(self, timeout_s: float) -> dict[str, Any] | None:
        """The next message; None where none came in time. A process that has ended says `broken`.

        Raises StoppedError once the waker is woken.
        """
        self._waker.check()
        if not self._heard:
            ready = {key.fd for key, _ in self._selector.select(max(0.0, timeout_s))}
            self._waker.check()
            if self._messages not in ready:
                return None
            while not self._heard:  # a line may come in parts
                self._hear()
        message = self._heard.popleft()
        self.ready = self.ready or message["kind"] == "ready"
        return message

    def map_slots(self, height: int, width: int) -> None:
        """Sees the pictures that it fills in, of that size."""
        if self._slots is None:
            self._slots = Slots(self._memory, height, width)

    def picture(self, slot: int, matrix: int | None) -> Image | Planes:
        """A copy of what is in a slot: planes of that matrix, or RGB, uint8 (H, W, 3)."""
        assert self._slots is not None
        return self._slots.read(slot, matrix)

    def close(self) -> None:
        """Kills it and what it has started, and waits until it is gone."""
        if self._closed:
            return
        self._closed = True
        with suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        self._selector.close()
        os.close(self._messages)
        if self._slots is not None:
            self._slots.close()
        os.close(self._memory)

    def _hear(self) -> None:
        data = os.read(self._messages, 65536)
        if not data:
            code = self._process.wait()
            how = f"signal {-code}" if code < 0 else f"code {code}"
            self._heard.append({"kind": "broken", "text": f"its reader ended with {how}",
                                "final": False, "ended": True})  # fmt: skip
            return
        *lines, self._partial = (self._partial + data).split(b"\n")
        self._heard.extend(json.loads(line) for line in lines)


def _unnamed_file() -> int:
    """A descriptor of memory that goes when its last process does, also when that is killed."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("streamseg")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
