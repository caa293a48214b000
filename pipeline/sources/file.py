"""Video files: everything that PyAV's FFmpeg opens, with exact timestamps."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import av.error
from typing_extensions import Self

from pipeline.card_planes import CardPlanes
from pipeline.errors import SourceError
from pipeline.frame import Frame
from pipeline.sources.color import Converter, matrix_of
from pipeline.sources.container import (
    Clock,
    listed_frames,
    open_file,
    stated_end_s,
    video_stream,
)
from pipeline.sources.gpu import open_on_gpu, why_not
from pipeline.sources.info import AudioTap, SourceInfo
from pipeline.threads import plan_threads

# How many packets audio may lie behind the video in a file before we stop looking for it.
_INTERLEAVING = 2000

# Seconds before the asked start from which decoding begins, until a frame before it is seen: MPEG
# streams have no index of their keyframes.
_RUN_UPS_S = (0, 2, 10, 60)

Timed = tuple[int, av.VideoFrame]


class FileSource:
    """The best video stream of a file, decoded in presentation order.

    A damaged file yields every frame that can be decoded; `lost` says how many could not. With
    `start_s` or `duration_s` (seconds, from the first frame) only that part is read, and its
    timestamps count from its start; otherwise they are the container's own.

    With `decode_on`, CUDA's number of a GPU, frames are decoded there and stay there as
    `CardPlanes`. Where that GPU cannot decode this file, the processor does, and `say` is told why.
    """

    live = False

    def __init__(
        self,
        path: Path,
        *,
        start_s: float = 0.0,
        duration_s: float | None = None,
        max_frames: int | None = None,
        decode_on: int | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.name = str(path)
        self.gpu = decode_on
        """CUDA's number of the GPU that decodes; None where the processor does."""
        self._say = say
        self.lost: dict[str, int] = {}
        self._path = path
        self._max_frames = max_frames
        self._taps: list[AudioTap] = []
        self._early: list[tuple[int, Any]] = []  # audio that came before anyone could ask for it
        self._started = False
        self._count = self._broken = 0
        self._owed = 0  # packets for which the decoder has given neither a frame nor an error
        self._in_time = False  # whether a frame at or before `_begin` has been decoded
        self._reached_s = 0.0
        self._open_at(start_s, duration_s)
        if self.gpu is not None and (why := why_not(self._stream, self._first[1])):
            say(f"note: {self.name} is decoded by the processor: {why}")
            self._container.close()
            self.gpu = None
            self._open_at(start_s, duration_s)

    def tap_audio(self) -> AudioTap | None:
        """The compressed audio that will pass from now on, or None where there is none.

        To be called before `frames`; each caller gets all of it.
        """
        if not self._audio:
            return None
        tap = AudioTap(self._audio)
        for number, packet in self._early:
            tap.add(number, packet)
        self._taps.append(tap)
        return tap

    def frames(self) -> Iterator[Frame]:
        """All frames, once; closes the file at the end."""
        if self._started:
            raise SourceError(f"{self.name} has been read; open it again")
        convert = Converter()
        base, shift = self.info.time_base, self._begin or 0
        first: int | None = None
        last = end = broken = 0
        with self:
            for pts, picture in self._pictures():
                image = convert(picture)
                if self.gpu is not None and not isinstance(image, CardPlanes):
                    self._say(
                        f"note: {self.name} does not stay on GPU {self.gpu} any more from frame "
                        f"{self._count} on: what is in it has changed"
                    )
                    self.gpu = None
                yield Frame(
                    index=self._count,
                    pts=pts - shift,
                    time_base=base,
                    image=image,
                    captured_at=time.perf_counter(),
                    duration=int(picture.duration or 0),
                )
                self._count += 1
                first = pts if first is None else first
                last, end, broken = pts, pts + int(picture.duration or 0), self._broken
            if first is not None and not self._cut:
                gaps = max(1, self._count - 1)
                self._count_lost(float(end * base), float((last - first) * base / gaps), broken)

    def close(self) -> None:
        self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def _cut(self) -> bool:
        limits = (self._begin, self._end, self._max_frames)
        return any(limit is not None for limit in limits)

    def _open_at(self, start_s: float, duration_s: float | None) -> None:
        """Opens the file and decodes the first frame that was asked for."""
        self._open()
        try:
            self._begin, self._end = self._window(start_s, duration_s)
            # Only a decoded frame shows the size after rotation, and whether there is one at all.
            self._first = self._first_picture(start_s)
            self.info = self._describe(self._first[1])
        except BaseException:
            self._container.close()
            raise

    def _open(self) -> None:
        if self.gpu is None:
            self._container = open_file(self._path)
        else:
            self._container = open_on_gpu(self._path, self.gpu)
        try:
            self._stream = video_stream(self._container, self.name)
        except BaseException:
            self._container.close()
            raise
        context = self._stream.codec_context
        # Threads would cost the GPU surfaces, of which it has few, and are of no use to it.
        context.thread_count = plan_threads().decode if self.gpu is None else 1
        context.thread_type = "AUTO"
        self._audio = list(self._container.streams.audio)
        self._early.clear()

    def _window(self, start_s: float, duration_s: float | None) -> tuple[int | None, int | None]:
        """First and last pts (excluded) that were asked for; None where nothing was."""
        if start_s <= 0 and duration_s is None:
            return None, None
        base = Fraction(self._stream.time_base or 1)
        begin = (self._stream.start_time or 0) + round(Fraction(max(0.0, start_s)) / base)
        return begin, None if duration_s is None else begin + round(Fraction(duration_s) / base)

    def _first_picture(self, start_s: float) -> Timed:
        """The first frame that was asked for; `_decoded` goes on behind it."""
        first = self._stream.start_time or 0
        for run_up_s in _RUN_UPS_S if start_s > 0 else ():
            assert self._begin is not None
            target = self._begin - round(run_up_s / self._stream.time_base)
            if target <= first:
                break
            try:
                self._container.seek(target, stream=self._stream)
            except av.error.FFmpegError:  # a raw stream
                break
            self._early.clear()
            self._decoded = self._decode()
            found = next(self._decoded, None)
            if found is not None and self._in_time:
                return found
        if start_s > 0:  # from the very beginning, with a decoder that has seen nothing yet
            self._container.close()
            self._open()
        self._broken = 0
        self._decoded = self._decode()
        found = next(self._decoded, None)
        if found is not None:
            return found
        if start_s > 0 or self._end is not None:
            stated = stated_end_s(self._container, self._stream)
            length = f"; it ends at about {stated[0]:.1f} s" if stated else ""
            raise SourceError(
                f"{self.name} has no frames in the part from {start_s:g} s on{length}"
            )
        raise SourceError(f"{self.name} has a video stream, but no frame can be decoded")

    def _describe(self, first: av.VideoFrame) -> SourceInfo:
        stream = self._stream
        height, width = Converter()(first).shape[:2]
        aspect = Fraction(stream.sample_aspect_ratio or 1)
        turned = (height, width) != (first.height, first.width)
        rate = stream.average_rate or stream.guessed_rate
        return SourceInfo(
            width=width,
            height=height,
            time_base=Fraction(stream.time_base or 1),
            rate=Fraction(rate) if rate else None,
            frames=self._expected(Fraction(rate) if rate else None),
            pixel_aspect=1 / aspect if turned else aspect,
            codec=stream.codec_context.codec.name,
            matrix=matrix_of(first.colorspace, first.width, first.height),
            color_primaries=int(first.color_primaries),
            color_trc=int(first.color_trc),
            audio=bool(self._audio),
        )

    def _expected(self, rate: Fraction | None) -> int | None:
        """How many frames will come, as far as the container knows; for progress, not promises."""
        stream, base = self._stream, Fraction(self._stream.time_base or 1)
        first = float((stream.start_time or 0) * base)
        stated = stated_end_s(self._container, stream)
        total = None
        if stream.frames and self._container.format.name != "avi":
            total = listed_frames(stream) or stream.frames
        elif rate and stated:
            total = max(1, round((stated[0] - first) * rate))
        if total is not None and rate and self._begin is not None:
            begin = float(self._begin * base)
            end = first + float(total / rate)
            if self._end is not None:
                end = min(end, float(self._end * base))
            total = max(1, round((end - begin) * rate))
        if self._max_frames is not None:
            total = self._max_frames if total is None else min(total, self._max_frames)
        return total

    def _pictures(self) -> Iterator[Timed]:
        """Decoded frames, as many as were asked for."""
        self._started = True
        self._early.clear()
        for taken, timed in enumerate(itertools.chain([self._first], self._decoded), start=1):
            yield timed
            if taken == self._max_frames:
                return
        for tap in self._taps:
            tap.frames = taken

    def _decode(self) -> Iterator[Timed]:
        """Frames from `_begin` on, before `_end`, timed; audio packets go to the taps."""
        video, rate, base = self._stream.index, self._stream.average_rate, self._stream.time_base
        clock = Clock(self._container, max(1, round(1 / (rate * base))) if rate else 1)
        self._owed, self._in_time = 0, False
        pts: int | None = None
        for packet in self._demux():
            if packet.stream.index != video:
                self._pass_on(packet)
                continue
            clock.prepare(packet)
            for picture in self._decode_packet(packet, clock):
                pts = clock.time(picture)
                if self._begin is not None and pts < self._begin:
                    self._in_time = True
                    continue
                if self._end is not None and pts >= self._end:
                    self._finish_audio()
                    return
                self._in_time = self._in_time or pts == self._begin
                yield pts, picture
        if self._owed > 0 and self._stream.codec_context.thread_count != 1 and pts is not None:
            yield from self._decode_tail(pts)

    def _decode_tail(self, last: int) -> Iterator[Timed]:
        """The frames after `last`, read again by one thread.

        With several threads FFmpeg decodes ahead, and PyAV's flush ends at the first damaged
        packet: what came after it in a file that is cut off would be lost.
        """
        with open_file(self._path) as container:
            stream = container.streams[self._stream.index]
            stream.codec_context.thread_count = 1
            with suppress(av.error.FFmpegError):
                container.seek(last, stream=stream)
            for packet in container.demux(stream):
                try:
                    pictures = stream.decode(packet)
                except av.error.FFmpegError:
                    self._broken += packet.pts is not None and packet.pts > last
                    continue
                for picture in pictures:
                    if picture.pts is not None and picture.pts > last:
                        if self._end is not None and picture.pts >= self._end:
                            return
                        yield picture.pts, picture

    def _demux(self) -> Iterator[Any]:
        """Packets in the file's order; a file that breaks off ends, for what is in the decoder
        still counts.
        """
        try:
            for packet in self._container.demux([self._stream, *self._audio]):
                stamp = packet.pts if packet.pts is not None else packet.dts
                if stamp is not None:
                    end = float((stamp + (packet.duration or 0)) * packet.time_base)
                    self._reached_s = max(self._reached_s, end)
                yield packet
        except av.error.FFmpegError:
            flush = av.Packet()
            flush.stream = self._stream
            yield flush

    def _decode_packet(self, packet: Any, clock: Clock) -> list[av.VideoFrame]:
        self._owed += bool(packet.size) and not packet.is_discard
        try:
            pictures = list(self._stream.decode(packet))
        except av.error.EOFError:
            return []
        except av.error.FFmpegError:
            clock.skip()
            if packet.size:  # else it is the flush: _decode_tail finds out what was damaged
                self._broken += 1
                self._owed -= 1
            return []
        self._owed -= len(pictures)
        return pictures

    def _pass_on(self, packet: Any) -> bool:
        """Hands an audio packet to the taps; False once its stream has passed the end."""
        if packet.size == 0:  # the demuxer's sign that the stream is at its end
            return False
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is not None and self._begin is not None:
            scale = self._stream.time_base / packet.time_base
            if self._end is not None and stamp >= self._end * scale:
                return False
            begin = round(self._begin * scale)
            if stamp < begin:
                return True
            packet.pts = stamp - begin
            packet.dts = None if packet.dts is None else packet.dts - begin
        number = next(i for i, s in enumerate(self._audio) if s.index == packet.stream.index)
        if not self._started:
            self._early.append((number, packet))
        for tap in self._taps:
            tap.add(number, packet)
        return True

    def _finish_audio(self) -> None:
        """Reads on until the audio, too, has reached the end of the window."""
        going = {stream.index for stream in self._audio} if self._taps else set()
        for packet in itertools.islice(self._demux(), _INTERLEAVING) if going else ():
            if packet.stream.index in going and not self._pass_on(packet):
                going.discard(packet.stream.index)
            if not going:
                return

    def _count_lost(self, end_s: float, interval_s: float, broken: int) -> None:
        """Frames that the container promises and nobody could decode: the last one came to its end
        at `end_s`, they came `interval_s` apart, and `broken` packets failed before that one.
        """
        missing = self._broken
        listed = listed_frames(self._stream)
        stated = stated_end_s(self._container, self._stream)
        if listed is not None:
            missing = listed - self._count
        elif stated and interval_s:
            promised_s, own = stated
            short_s = promised_s - (end_s if own else self._reached_s)
            # A little is rounding, or the delay of B-frames; a file that breaks off misses much.
            tail = (
                round(short_s / interval_s) if short_s > (1.5 * interval_s if own else 0.5) else 0
            )
            missing = broken + max(self._broken - broken, tail)
        if missing > 0:
            self.lost["undecodable"] = missing
