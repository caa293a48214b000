"""What a source tells its sinks and its users before the first frame."""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av

from pipeline.planes import Matrix


@dataclass(frozen=True)
class SourceInfo:
    """What is known when a source is opened; unknown is None."""

    width: int
    """Pixels, upright."""
    height: int
    time_base: Fraction
    """Seconds a unit of pts."""
    rate: Fraction | None = None
    """Frames a second, on average."""
    frames: int | None = None
    """How many frames will come, as far as the container knows."""
    pixel_aspect: Fraction = Fraction(1)
    """Width of a pixel divided by its height."""
    codec: str = ""
    matrix: Matrix | None = None
    """The YUV matrix of the source's pictures, so that what is encoded again keeps it."""
    color_primaries: int = 2
    """ITU-T H.273 number; 2 is unspecified. Passed through, like the next."""
    color_trc: int = 2
    audio: bool = False
    """Whether there is sound beside the pictures."""


class AudioTap:
    """Compressed audio on its way past the stages, from the thread that demuxes to one that muxes.

    The source appends; the sink takes. The video channels between them keep it short.
    """

    def __init__(self, streams: list[Any]) -> None:
        # The source's own streams are freed with its file, for a short one before a sink has seen
        # the first frame; PyAV would crash. These belong to a container that is never written.
        self._keeper: Any = av.open(os.devnull, "w", format="null")
        self.streams = [self._keep(stream) for stream in streams]
        """Copies of the source's av.AudioStream objects: templates for a container's own."""
        self.frames: int | None = None
        """How many the source had, once it has come to its natural end: with the last of them goes
        all audio that is left."""
        self._packets: deque[tuple[int, Any]] = deque()

    def _keep(self, stream: Any) -> Any:
        copy = self._keeper.add_stream_from_template(stream)
        copy.metadata.update(stream.metadata)
        return copy

    def add(self, number: int, packet: Any) -> None:
        """Appends a packet of `streams[number]`."""
        self._packets.append((number, packet))

    def take(self, until_s: float | None) -> list[tuple[int, Any]]:
        """Removes and returns packets in order up to a time in seconds; None takes all."""
        taken: list[tuple[int, Any]] = []
        while self._packets:
            if until_s is not None and _time_s(self._packets[0][1]) > until_s:
                break
            taken.append(self._packets.popleft())
        return taken


def _time_s(packet: Any) -> float:
    stamp = packet.pts if packet.pts is not None else packet.dts
    return float((stamp or 0) * packet.time_base)
