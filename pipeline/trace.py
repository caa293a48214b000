"""Takes down what every frame goes through, stage by stage, at the price of a few microseconds.

    with Recorder() as trace:
        with Pipeline(source, stages, sinks, trace=trace) as pipeline:
            ...
        write_trace(trace, "run.json")     # pipeline/perfetto.py

Everything passes a channel, so the channels know all: when a stage asked for a frame, got it and
gave it away. A traced pipeline has channels that say so; in any other none of this code takes part.
While frames run nothing is formatted: a record is 24 bytes, kept by each thread for itself without
locks, and spilled to an unnamed temporary file, so that memory is bounded however long the run is.
"""

from __future__ import annotations

import struct
import tempfile
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from time import perf_counter
from types import TracebackType
from typing import Any, BinaryIO

from typing_extensions import Self

from pipeline.accounts import Branch, Lane
from pipeline.channel import Channel, Policy
from pipeline.errors import StoppedError
from pipeline.frame import Frame
from pipeline.stats import Meter

_RECORD = struct.Struct("<BBHIdd")
_pack = _RECORD.pack
_HEADER = struct.Struct("<II")
# Bytes a thread keeps to itself: 2730 records, some seconds of video.
_CHUNK = 64 * 1024


class Kind(IntEnum):
    """What a record says."""

    GET = 1
    """Asked for a frame at `begun`, had it at `ended`."""
    PUT = 2
    """Had a frame ready at `begun`, it was in the channel at `ended`."""
    DROP = 3
    """A frame gave way to a newer one, or was too late, at `ended`."""
    ENGINE = 4
    """Waited for the engine from `begun` to `ended`."""
    END = 5
    """Asked at `begun`, and at `ended` there was no more, or all was stopped."""


# Plain numbers for the hot path: an enum's member takes longer to find and to pack.
_GET, _PUT, _DROP, _ENGINE, _END = map(int, Kind)


@dataclass(frozen=True)
class Record:
    """One thing that a thread did; times are seconds (time.perf_counter)."""

    kind: Kind
    channel: int
    """Position in `Recorder.channels`."""
    length: int
    """Frames in that channel afterwards (GET, PUT and DROP)."""
    index: int
    """The frame's (GET, PUT and DROP)."""
    begun: float
    ended: float


class Track:
    """What one thread did, in order. Only that thread adds to it."""

    def __init__(self, recorder: Recorder, number: int, name: str, terminal: bool) -> None:
        self.number = number
        self.name = name
        self.terminal = terminal
        """Whether frames end here (sinks, the caller): one is done when the next is asked for."""
        self.ranges: Any = recorder.ranges
        self._recorder = recorder
        self._records = bytearray()

    def add(
        self, kind: int, channel: int, length: int, index: int, begun: float, ended: float
    ) -> None:
        self._records += _pack(kind, channel, length, index, begun, ended)
        if len(self._records) >= _CHUNK:
            self.spill()

    def spill(self) -> None:
        """Moves what it holds to the recorder's file."""
        if self._records:
            self._recorder._write(self.number, self._records)
            self._records = bytearray()


class _Items(deque[Frame]):
    """A channel's frames. It is changed under the channel's lock, so what it takes down about its
    length is true, and in order.
    """

    def __init__(self, number: int, producer: Track, consumer: Track) -> None:
        super().__init__()
        self.number = number
        self.producer, self.consumer = producer, consumer
        self.put_begun = self.get_begun = 0.0
        """When the one thread that puts, and the one that gets, came to the channel."""

    def append(self, frame: Frame) -> None:
        super().append(frame)
        now = perf_counter()
        self.producer.add(_PUT, self.number, len(self), frame.index, self.put_begun, now)

    def popleft(self) -> Frame:
        frame = super().popleft()
        now = perf_counter()
        self.consumer.add(_GET, self.number, len(self), frame.index, self.get_begun, now)
        return frame

    def drop(self, track: Track) -> None:
        frame = super().popleft()
        now = perf_counter()
        track.add(_DROP, self.number, len(self), frame.index, now, now)


class TracedChannel(Channel[Frame]):
    """A channel between two threads that takes down who waited, for which frame, and how full it
    was.
    """

    def __init__(
        self, capacity: int, policy: Policy, number: int, producer: Track, consumer: Track
    ) -> None:
        super().__init__(capacity, policy)
        self._watched = _Items(number, producer, consumer)
        self._items = self._watched
        self._first = number == 0
        self._marked = producer.ranges is not None

    def put(self, item: Frame) -> None:
        watched = self._watched
        if self._marked:
            watched.producer.ranges.leave(watched.producer.name)
        watched.put_begun = perf_counter()
        try:
            super().put(item)
        except StoppedError:
            self._ended_for(watched.producer, watched.put_begun)
            raise
        if self._marked and self._first:  # the source waits for nobody: it is at work again
            watched.producer.ranges.enter(watched.producer.name)

    def get(self) -> Frame:
        watched = self._watched
        if self._marked and watched.consumer.terminal:
            watched.consumer.ranges.leave(watched.consumer.name)
        watched.get_begun = perf_counter()
        try:
            frame = super().get()
        except (EOFError, StoppedError):
            self._ended_for(watched.consumer, watched.get_begun)
            raise
        if self._marked:
            watched.consumer.ranges.enter(watched.consumer.name)
        return frame

    def end(self) -> None:
        super().end()
        self._leave()

    def stop(self) -> None:
        super().stop()
        self._leave()

    def _leave(self) -> None:
        """Whoever ends or stops a channel is done with its frame; the source says it only so."""
        if self._marked:
            self._watched.producer.ranges.leave(self._watched.producer.name)

    def _drop(self) -> None:
        self._watched.drop(self._watched.producer)
        self.dropped += 1

    def _drop_late(self) -> None:
        self._watched.drop(self._watched.consumer)
        self.late += 1

    def _ended_for(self, track: Track, begun: float) -> None:
        track.add(_END, self._watched.number, 0, 0, begun, perf_counter())
        if self._marked:
            track.ranges.leave(track.name)


class _TracedMeter(Meter):
    """A meter that takes down each wait for the engine."""

    def __init__(self, track: Track) -> None:
        super().__init__(track.name)
        self._track = track

    def add_engine_wait(self, begun: float, ended: float) -> None:
        super().add_engine_wait(begun, ended)
        self._track.add(_ENGINE, 0, 0, 0, begun, ended)


@dataclass(frozen=True)
class ChannelInfo:
    """A channel of the traced pipeline."""

    name: str
    capacity: int


class Recorder:
    """The records of one pipeline. A context manager; records are gone after it.

    `ranges`, if given, is told each thread's work as it begins and ends (pipeline/nvtx.py).
    """

    def __init__(self, ranges: Any = None) -> None:
        self.ranges = ranges
        self.tracks: list[Track] = []
        self.channels: list[ChannelInfo] = []
        self.begun = perf_counter()
        self.error: OSError | None = None
        """Why records are missing, if the temporary file could not take them."""
        self._file: BinaryIO | None = None
        self._lock = threading.Lock()

    def attach(self, lanes: Sequence[Lane], branches: Sequence[Branch]) -> None:
        """Called by a pipeline before it starts: puts traced channels and meters in their places.

        Raises RuntimeError if it records another pipeline already.
        """
        if self.tracks:
            raise RuntimeError("a recorder takes down one pipeline; make a new one")
        self.begun = perf_counter()
        stages = [self._track(lane.stage.name) for lane in lanes]
        caller = self._track("deliver", terminal=True)
        for i, lane in enumerate(lanes):
            consumer = stages[i + 1] if i + 1 < len(lanes) else caller
            lane.channel = self._traced(lane.channel, lane.stage.name, stages[i], consumer)
            lane.meter = _TracedMeter(stages[i])
        for branch in branches:
            sink = self._track(branch.sink.name, terminal=True)
            branch.channel = self._traced(branch.channel, f"to {branch.sink.name}", caller, sink)
            branch.meter = _TracedMeter(sink)

    def records(self) -> Iterator[tuple[Track, Record]]:
        """Every record, each thread's in order; to be called when no thread of the run is left."""
        for track in self.tracks:
            track.spill()
        if self._file is None:
            return
        self._file.seek(0)
        while header := self._file.read(_HEADER.size):
            number, size = _HEADER.unpack(header)
            for kind, channel, *rest in _RECORD.iter_unpack(self._file.read(size)):
                yield self.tracks[number], Record(Kind(kind), channel, *rest)

    def close(self) -> None:
        """Lets go of the records."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _track(self, name: str, terminal: bool = False) -> Track:
        self.tracks.append(Track(self, len(self.tracks), name, terminal))
        return self.tracks[-1]

    def _traced(
        self, plain: Channel[Frame], name: str, producer: Track, consumer: Track
    ) -> TracedChannel:
        number = len(self.channels)
        self.channels.append(ChannelInfo(name, plain.capacity))
        traced = TracedChannel(plain.capacity, plain.policy, number, producer, consumer)
        traced.is_late = plain.is_late
        return traced

    def _write(self, track: int, records: bytearray) -> None:
        with self._lock:
            if self.error is not None:
                return
            try:
                if self._file is None:
                    self._file = tempfile.TemporaryFile(prefix="streamseg-trace-")  # noqa: SIM115
                self._file.write(_HEADER.pack(track, len(records)) + records)
            except OSError as error:  # a full disk ends the trace, not the run
                self.error = error
