"""What was refused and why: counted, and told now and then, never with what was sent."""

from __future__ import annotations

import time
from collections.abc import Callable

# A program that knocks a thousand times a second must not fill anybody's screen or disk.
_TELL_EVERY_S = 10.0


class Refusals:
    """Counts by reason. For the server's loop; `counts` may be read by any thread.

    Neither path nor header is told: a token may be in either, right or nearly right.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.counts: dict[str, int] = {}
        self._say = say
        self._told: dict[str, tuple[float, int]] = {}
        """When each reason was told last, and how many there were by then."""

    def __call__(self, reason: str, client: str) -> None:
        """Takes down that `client`, an address, was refused."""
        count = self.counts[reason] = self.counts.get(reason, 0) + 1
        told_at, told = self._told.get(reason, (-_TELL_EVERY_S, 0))
        now = time.monotonic()
        if now - told_at >= _TELL_EVERY_S or not told:
            self._told[reason] = (now, count)
            others = f" ({count - told - 1} more since the last of these lines)"
            self._say(f"web: refused {client}: {reason}{others if count - told > 1 else ''}")
