"""Ctrl-C and SIGTERM: the first ends the run in order, the second at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """What a signal does now."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._stop: Callable[[], None] | None = None
        self._stopped = False
        self._count = 0

    @contextmanager
    def stopping(self, stop: Callable[[], None]) -> Iterator[None]:
        """Within the block a signal calls `stop`, in a thread of its own.

        Before it a signal ends the program at once, because nothing is open yet; after it the first
        does nothing, because outputs are whole and only summary and report are left to write.
        """
        self._stop = stop
        try:
            yield
        finally:
            self._stopped = True

    def handle(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        if self._stop is None:
            # Not KeyboardInterrupt: raised while a library is imported it comes out as ImportError.
            os._exit(130)
        if self._count > 1:
            os._exit(130)  # asked twice: not even outputs are closed
        # A handler runs between two instructions of the main thread, which may be holding the very
        # lock that `stop` needs. Another thread can wait for it.
        if not self._stopped:
            threading.Thread(target=self._end, args=(self._stop,), name="interrupt").start()

    def _end(self, stop: Callable[[], None]) -> None:
        stop()
        self._say("stopping; outputs are being closed (once more to quit at once)")


@contextmanager
def interruptible(say: Callable[[str], None]) -> Iterator[Interrupt]:
    """Takes SIGINT and SIGTERM for the block, if this is the main thread; else leaves them."""
    interrupt = Interrupt(say)
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    ours = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt.handle) for number in ours}
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
