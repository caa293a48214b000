"""How long a card was at work for runs that may overlap."""

from __future__ import annotations

import threading


class Busy:
    """Adds up runs by the card's own clock; for any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last_end_ms = 0.0

    def add(self, begin_ms: float, end_ms: float) -> float:
        """Seconds of a run that no run before it has covered, from and to milliseconds since one
        event.
        """
        with self._lock:
            busy_ms = end_ms - max(begin_ms, self._last_end_ms)
            self._last_end_ms = max(end_ms, self._last_end_ms)
        return max(0.0, busy_ms) / 1000.0
