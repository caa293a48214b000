"""Packets -> pictures without delay: whatever has piled up is passed over, up to a keyframe."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import av
import av.error

# Behind by more than this a reader passes over what it can. Seconds.
_BEHIND_S = 0.25
# A packet that was waited for so short a part of the time between two was there already, or comes
# from a line that catches up: it is one of a pile.
_AT_ONCE = 1 / 3
# While a pile is passed over, a keyframe is shown so often at most. Seconds.
_GLIMPSE_S = 0.2
# Packets of a pile that are kept for want of a keyframe; then they are decoded.
_PILE = 600
# How much a camera's clock may be slow: seconds a second. 100 ppm is a bad crystal.
_DRIFT = 2e-4


@dataclass(frozen=True)
class Picture:
    """A decoded picture and when it came."""

    frame: av.VideoFrame
    arrived_at: float
    """When its packet was read, monotonic seconds (time.perf_counter)."""


@dataclass
class Counts:
    """What was not decoded, so far."""

    undecodable: int = 0
    """Packets that the decoder refused."""
    behind: int = 0
    """Packets passed over because they were old when they came, in a pile."""
    damaged: int = 0
    """Pictures with parts that the decoder has made up for want of data."""


class Lag:
    """How much later than the quickest of a stream its packets come.

    The way from the camera takes a time that nobody here knows; but no packet is quicker than the
    way allows, so the least difference between the clocks is the way, and what exceeds it is lag.
    """

    def __init__(self) -> None:
        self.step_s = 0.0
        """How far apart in the stream its last two packets were, a tenth of a second at most."""
        self._least: float | None = None
        self._at = self._stream_s = 0.0

    def update(self, stream_s: float, arrived_at: float) -> float:
        """Seconds of lag of a packet with that time in the stream."""
        difference = arrived_at - stream_s
        self.step_s, self._stream_s = min(0.1, max(0.0, stream_s - self._stream_s)), stream_s
        if self._least is not None:
            self._least += _DRIFT * (arrived_at - self._at)
        self._at = arrived_at
        if self._least is None or difference < self._least or difference > self._least + 600:
            self._least = difference
        return difference - self._least


class Feed:
    """The pictures of an open stream, in the order of the decoder.

    With `live`, a pile of packets that had to wait (in the network, in a buffer of the system's, or
    because decoding is too slow) is not decoded from its beginning but from its last keyframe, so
    that the newest picture comes soon; of a long pile a keyframe is shown now and then. `alive` is
    called with every packet.
    """

    def __init__(
        self, container: Any, stream: Any, *, live: bool, alive: Callable[[], None]
    ) -> None:
        self._container, self._stream = container, stream
        self._live, self._alive = live, alive
        self._lag = Lag()
        self.counts = Counts()

    def pictures(self) -> Iterator[Picture]:
        """Until the stream ends; raises av.error.FFmpegError where it breaks."""
        pile: list[tuple[Any, float]] = []
        shown_at = asked = time.perf_counter()
        for packet in self._container.demux(self._stream):
            now = time.perf_counter()
            if packet.size:
                self._alive()
                patience_s = _AT_ONCE * self._lag.step_s
                behind = self._behind(packet, now)
                if behind and packet.is_keyframe:
                    self.counts.behind += len(pile)
                    pile.clear()
                pile.append((packet, now))
                glimpse = packet.is_keyframe and now - shown_at > _GLIMPSE_S
                if behind and now - asked < patience_s and len(pile) < _PILE and not glimpse:
                    asked = time.perf_counter()
                    continue
            else:  # the demuxer's sign of the end: the decoder gives out what it holds
                pile.append((packet, now))
            for waiting, arrived_at in pile:
                for frame in self._decode(waiting):
                    yield Picture(frame, arrived_at)
            pile.clear()
            shown_at = asked = time.perf_counter()

    def _behind(self, packet: Any, now: float) -> bool:
        stamp = packet.dts if packet.dts is not None else packet.pts
        if not self._live or stamp is None:
            return False
        return self._lag.update(float(stamp * packet.time_base), now) > _BEHIND_S

    def _decode(self, packet: Any) -> list[av.VideoFrame]:
        try:
            frames = list(self._stream.decode(packet))
        except av.error.EOFError:
            return []
        except av.error.FFmpegError:
            self.counts.undecodable += bool(packet.size)
            return []
        self.counts.damaged += sum(bool(frame.is_corrupt) for frame in frames)
        return frames


class Pace:
    """Lets pictures go at the rate of their timestamps, for streams that come in bursts (HLS).

    What is late moves the line: the stream then stays so much further behind, as a player does.
    """

    def __init__(self) -> None:
        self._line: float | None = None

    def wait(self, stream_s: float) -> None:
        """Returns when the picture with that time in the stream is due."""
        now = time.perf_counter()
        # Ten seconds ahead is not early: the stream's clock has begun anew.
        if self._line is None or not 0 <= self._line + stream_s - now < 10:
            self._line = now - stream_s
        time.sleep(max(0.0, self._line + stream_s - now))
