"""Timestamps that rise through every fault of a live stream."""

from __future__ import annotations

from fractions import Fraction

TIME_BASE = Fraction(1, 90_000)
"""Of every live source: that of RTP video and MPEG-TS, so that their own times stay exact, and the
same after a reconnection, because a file's cannot change."""

# How far a stream's clock may be from ours before it has begun anew: a camera that was set, a file
# that is sent round and round. Seconds.
_JUMP_S = 5.0


class Timeline:
    """Puts the stream's own times, which begin anywhere and anew, on one rising line from 0.

    Within a connection they are the stream's. Where it begins, or breaks, they go on by the time
    that has passed here, so that an outage shows as a gap of its own length.
    """

    def __init__(self) -> None:
        self._begun: float | None = None
        self._last = -1
        self._anchor: tuple[float, int] | None = None
        """A stream time in seconds, and the timestamp that it has."""
        self._previous = (0.0, 0.0)
        """When the last picture was in the stream, and came."""
        self._ahead = 0
        """How far its timestamp was ahead of the time that had passed here."""

    def restart(self) -> None:
        """A new connection: its times have nothing to do with those before."""
        self._anchor = None

    def stamp(self, stream_s: float | None, arrived_at: float, *, jumps: bool = True) -> int:
        """The timestamp, in units of TIME_BASE, of the next picture: greater than the last.

        `stream_s` is its time in the stream, None where that has none; `arrived_at` is when it
        came, monotonic seconds. Without `jumps` nothing is made of the time that passes here:
        a recording comes faster or slower than it was taken.
        """
        if self._begun is None:
            self._begun = arrived_at
        here = round((arrived_at - self._begun) / TIME_BASE)
        there = None
        if stream_s is not None and self._anchor is not None:
            there = self._anchor[1] + round((stream_s - self._anchor[0]) / TIME_BASE)
            step_s = (stream_s - self._previous[0]) - (arrived_at - self._previous[1])
            # A stream that comes late is still itself, and so is one that catches up, in steps too.
            away = abs(there - here) > max(_JUMP_S / TIME_BASE, abs(self._ahead))
            if jumps and abs(step_s) > _JUMP_S and away:
                there = None
        if there is None:
            there = max(here, self._last + 1)
            self._anchor = None if stream_s is None else (stream_s, there)
        if stream_s is not None:
            self._previous = (stream_s, arrived_at)
            self._ahead = there - here
        self._last = max(there, self._last + 1)
        return self._last
