"""A live source and its watchdog: reads, notices that nothing comes, reconnects."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

from pipeline.errors import SourceError
from pipeline.frame import Frame
from pipeline.ledger import Outages
from pipeline.planes import Matrix
from pipeline.sources.info import AudioTap, SourceInfo
from pipeline.sources.live.address import Address
from pipeline.sources.live.options import LiveOptions
from pipeline.sources.live.process import Reader, Waker
from pipeline.sources.live.stamps import TIME_BASE, Timeline
from pipeline.sources.live.trouble import Trouble
from pipeline.threads import plan_threads

# Pauses before attempts to reconnect grow from the first to the last, seconds. The last is short
# because a source that is back shall be seen within two seconds.
_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.1, 1.0
# A link that held for so long was sound: what breaks then is a new outage. Seconds.
_SOUND_S = 5.0
# A process that has not even started by then never will. Seconds.
_START_S = 60.0
# How long nothing may come, seconds. HLS comes a segment at a time, of ten seconds at most; a
# recording's server may be slow.
_STALL_S, _SLOW_STALL_S = 5.0, 20.0


class _BrokenError(Exception):
    """The link broke, or was never there."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.text)
        self.trouble = trouble


class LiveSource:
    """Pictures of a network stream or a camera as they come, each once, whatever happens to it.

    A recording behind a URL (it has a length) is read like a file instead: every frame, as fast as
    the pipeline takes them, `live` is False, and a break is an error. `say` is told each change of
    state once. Raises SourceError where the source cannot be opened.
    """

    def __init__(
        self,
        address: Address,
        options: LiveOptions | None = None,
        *,
        max_frames: int | None = None,
        duration_s: float | None = None,
        mode: dict[str, str] | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.name = address.shown
        self.lost: dict[str, int] = {}
        self.outages = Outages()
        self.damaged = 0
        """Pictures handed over with parts that the decoder has made up for want of data."""
        self._address, self._options, self._mode = address, options or LiveOptions(), mode or {}
        self._max_frames, self._duration_s, self._say = max_frames, duration_s, say
        self._waker = Waker()
        self._reader: Reader | None = None
        self._failures = 0
        self._connected_at = 0.0
        self._size: tuple[int, int] | None = None
        self._native: list[int] | None = None
        self._timeline = Timeline()
        self._count = 0
        self._last_at = 0.0
        self._before: dict[str, int] = {}
        self._started = False
        try:
            opened = self._connect(at_start=True)
        except BaseException:
            self.close()
            raise
        self.live = not opened["recording"]
        self.info = self._describe(opened)

    @property
    def reader_pid(self) -> int | None:
        """The process that reads now; None between two."""
        reader = self._reader
        return None if reader is None else reader.pid

    def tap_audio(self) -> AudioTap | None:
        """Sound of live sources is not read."""
        return None

    def frames(self) -> Iterator[Frame]:
        """Frames until the stream's own end; closes the source then.

        Raises SourceError when the link is broken for good, StoppedError after `interrupt`.
        """
        if self._started:
            raise SourceError(f"{self.name} has been read; open it again")
        self._started = True
        try:
            assert self._reader is not None
            self._reader.grant()
            # Until now nobody wanted a picture.
            self._last_at = time.perf_counter()
            for message in self._messages():
                frame = self._frame(message)
                if self._duration_s is not None and frame.time_s >= self._duration_s:
                    return
                yield frame
                self._count += 1
                if self._count == self._max_frames:
                    return
        finally:
            self.close()

    def interrupt(self) -> None:
        """Ends a read that waits, for good; from any thread."""
        self._waker.wake()

    def close(self) -> None:
        """Ends the reader. To be called when nobody reads any more."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        self._waker.close()

    def _messages(self) -> Iterator[dict[str, Any]]:
        """Pictures as the reader reports them, through all outages."""
        while True:
            try:
                message = self._next_message()
            except _BrokenError as error:
                if not self._recover(error.trouble):
                    return
                continue
            if message is None:
                return
            yield message

    def _next_message(self) -> dict[str, Any] | None:
        """The next picture; None at the stream's own end. Raises _BrokenError."""
        assert self._reader is not None
        begun = time.perf_counter()
        while True:
            message = self._reader.receive(self._stall_s)
            if message is None:
                self._drop_reader()
                raise _BrokenError(Trouble(f"nothing has come for {self._stall_s:g} s"))
            if message["kind"] == "frame":
                return message
            if message["kind"] == "end":
                if self._finite:
                    return None
                raise _BrokenError(Trouble("the other side has ended the stream"))
            if message["kind"] == "broken":
                raise self._broken(message)
            if time.perf_counter() - begun > 3 * self._stall_s:
                self._drop_reader()
                raise _BrokenError(Trouble("data comes, but no picture can be decoded"))

    def _recover(self, trouble: Trouble) -> bool:
        """Reconnects; False where the stream has come to its own end instead."""
        if not self.live:
            raise SourceError(
                f"{self.name} broke off after {self._count} frames: {trouble.text}; run it again"
            )
        if self._last_at - self._connected_at > _SOUND_S:
            self._failures = 0
        self.outages.count += 1
        begun, reported = self._last_at, self.outages.seconds
        self._say(f"source  {self.name}: lost ({trouble.text})")
        try:
            opened = self._connect(at_start=False, trouble=trouble)
        finally:
            gap_s = time.perf_counter() - begun
            self.outages.seconds = reported + gap_s
        if opened["recording"]:
            # HLS says so only when it is opened: the list has been closed, the stream is over.
            self.outages.count -= 1
            self.outages.seconds = reported
            self._say(f"source  {self.name}: the stream has ended")
            return False
        self._say(f"source  {self.name}: back after {gap_s:.1f} s")
        self._reader_now.grant()
        return True

    def _connect(self, *, at_start: bool, trouble: Trouble | None = None) -> dict[str, Any]:
        """Opens the source, with pauses between attempts, as often as the options allow.

        `trouble` is why there is no link any more; it counts as the first failure.
        """
        limit = self._options.attempts(at_start)
        waiting = not at_start
        while True:
            if trouble is not None:
                self._failures += 1
                if trouble.final or (limit is not None and self._failures > limit):
                    raise SourceError(self._verdict(trouble, at_start, limit))
                if not waiting:
                    self._say(f"source  {self.name}: {trouble.text}; waiting for it")
                    waiting = True
                self._pause()
            try:
                return self._open()
            except _BrokenError as error:
                trouble = error.trouble

    def _verdict(self, trouble: Trouble, at_start: bool, limit: int | None) -> str:
        if at_start:
            return f"{self.name} cannot be opened: {trouble.text}"
        attempts = f" and {limit} attempts to reconnect" if limit else ""
        return f"{self.name} broke off after {self._count} frames{attempts}: {trouble.text}"

    def _pause(self) -> None:
        if self._reader is None:  # it starts meanwhile
            self._reader = Reader(self._waker)
        self._waker.wait(min(_LAST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(10, self._failures - 1)))

    def _open(self) -> dict[str, Any]:
        """One attempt: the reader's message that it has a picture. Raises _BrokenError."""
        if self._reader is None:
            self._reader = Reader(self._waker)
        reader, address = self._reader, self._address
        reader.order(
            "open",
            address=address.kind,
            url=address.url,
            shown=address.shown,
            transport=self._options.rtsp_transport,
            mode=self._mode,
            threads=plan_threads().decode,
            size=self._size,
        )
        limit_s = self._options.open_timeout_s
        begun = time.perf_counter()
        left_s = limit_s if reader.ready else _START_S
        while left_s > 0 and (message := reader.receive(left_s)) is not None:
            kind = message["kind"]
            if kind == "ready":
                begun = time.perf_counter()
            elif kind == "opened":
                self._opened(reader, message)
                return message
            elif kind == "broken":
                raise self._broken(message)
            elif kind == "end":
                raise _BrokenError(Trouble("it ended before its first picture"))
            left_s = begun + limit_s - time.perf_counter()
        self._drop_reader()
        raise _BrokenError(
            Trouble(f"no picture within {limit_s:g} s; check host, port and path, or allow more "
                    "with --open-timeout")
        )  # fmt: skip

    def _opened(self, reader: Reader, message: dict[str, Any]) -> None:
        height, width = message["size"]
        self._size = (height, width)
        reader.map_slots(height, width)
        slow = message["recording"] or message["paced"]
        stall_s = self._options.stall_timeout_s
        self._stall_s = stall_s or (_SLOW_STALL_S if slow else _STALL_S)
        self._finite = message["finite"]
        self._connected_at = time.perf_counter()
        self._timeline.restart()
        self._before = dict(self.lost)
        self._damaged_before = self.damaged

    def _broken(self, message: dict[str, Any]) -> _BrokenError:
        if message.get("ended"):
            self._drop_reader()
        return _BrokenError(Trouble(message["text"], message["final"]))

    @property
    def _reader_now(self) -> Reader:
        assert self._reader is not None
        return self._reader

    def _drop_reader(self) -> None:
        self._reader_now.close()
        self._reader = None

    def _frame(self, message: dict[str, Any]) -> Frame:
        reader, arrived_at = self._reader_now, message["arrived_at"]
        image = reader.picture(message["slot"], message["matrix"])
        reader.free(message["slot"])
        for cause, count in message["lost"].items():
            if total := self._before.get(cause, 0) + count:
                self.lost[cause] = total
        self.damaged = self._damaged_before + message["damaged"]
        if message["native"] != self._native:
            self._notice_size(message["native"])
        self._last_at = arrived_at
        return Frame(
            index=self._count,
            pts=self._stamp(message),
            time_base=TIME_BASE,
            image=image,
            captured_at=arrived_at,
            duration=round(message["duration_s"] / TIME_BASE),
        )

    def _stamp(self, message: dict[str, Any]) -> int:
        return self._timeline.stamp(message["time_s"], message["arrived_at"], jumps=self.live)

    def _notice_size(self, native: list[int]) -> None:
        """The camera has changed its size; sinks cannot: pictures are fitted into the first."""
        assert self._size is not None
        if self._native is not None or tuple(native) != self._size:
            height, width = self._size
            self._say(
                f"source  {self.name}: now sends {native[1]}x{native[0]}; fitted into "
                f"{width}x{height}"
            )
        self._native = native

    def _describe(self, opened: dict[str, Any]) -> SourceInfo:
        height, width = opened["size"]
        rate = Fraction(opened["rate"]) if opened["rate"] else None
        frames = None
        if opened["recording"]:
            frames = opened["frames"] or (rate and round(opened["length_s"] * rate)) or None
        if frames is not None and self._duration_s is not None and rate:
            frames = min(frames, round(self._duration_s * rate))
        if self._max_frames is not None:
            frames = min(self._max_frames, frames or self._max_frames)
        return SourceInfo(
            width=width,
            height=height,
            time_base=TIME_BASE,
            rate=rate,
            frames=frames,
            pixel_aspect=Fraction(opened["pixel_aspect"]),
            codec=opened["codec"],
            matrix=Matrix(opened["matrix"]),
            color_primaries=opened["color_primaries"],
            color_trc=opened["color_trc"],
        )
