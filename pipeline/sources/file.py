"""Video files: everything that PyAV's FFmpeg opens, with exact timestamps."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import av.error
from av.stream import Disposition
from typing_extensions import Self

from pipeline.errors import SourceError
from pipeline.frame import Frame
from pipeline.sources.color import RgbConverter, matrix_of
from pipeline.sources.info import AudioTap, SourceInfo
from pipeline.threads import plan_threads

# FFmpeg takes any text for a video of a terminal's screen. Nobody means that.
_NOT_VIDEO = {"tty"}

# How many packets audio may lie behind the video in a file before we stop looking for it.
_INTERLEAVING = 2000


class FileSource:
    """
    The best video stream of a file, decoded in presentation order.

    A damaged file yields every frame that can be decoded; `lost` says how many could not. With
    `start_s` or `duration_s` (seconds, from the first frame) only that part is read, and its
    timestamps count from its start; otherwise they are the container's own.
    """

    live = False

    def __init__(
        self,
        path: Path,
        *,
        start_s: float = 0.0,
        duration_s: float | None = None,
        max_frames: int | None = None,
    ) -> None:
        self.name = str(path)
        self.lost: dict[str, int] = {}
        self._max_frames = max_frames
        self._taps: list[AudioTap] = []
        self._early: list[tuple[int, Any]] = []  # audio that came before anyone could ask for it
        self._started = False
        self._count = self._discarded = self._broken = 0
        self._container = _open(path)
        try:
            self._stream = _video_stream(self._container, self.name)
            self._audio = list(self._container.streams.audio)
            self._begin, self._end = self._window(start_s, duration_s)
            self._decoded = self._decode()
            # Only a decoded frame shows the size after rotation, and whether there is one at all.
            self._first: av.VideoFrame | None = next(self._decoded, None)
            if self._first is None:
                raise SourceError(f"{self.name} has a video stream, but no frame can be decoded")
            self.info = self._describe(self._first)
        except BaseException:
            self._container.close()
            raise

    def tap_audio(self) -> AudioTap | None:
        """
        The compressed audio that will pass from now on, or None where there is none.

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
        to_rgb = RgbConverter()
        base, shift = self.info.time_base, self._begin or 0
        step = max(1, round(1 / (self.info.rate * base))) if self.info.rate else 1
        last: int | None = None
        with self:
            for picture in self._pictures():
                pts = picture.pts if picture.pts is not None else picture.dts
                # Raw streams carry no timestamps, and damaged ones step back; encoders and
                # containers need rising ones.
                if pts is None:
                    pts = 0 if last is None else last + step
                elif last is not None and pts <= last:
                    pts = last + 1
                last = pts
                yield Frame(
                    index=self._count,
                    pts=pts - shift,
                    time_base=base,
                    image=to_rgb(picture),
                    captured_at=time.perf_counter(),
                    duration=int(picture.duration or 0),
                )
                self._count += 1
            if not self._cut:
                self._count_lost(last)

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

    def _window(self, start_s: float, duration_s: float | None) -> tuple[int | None, int | None]:
        """First and last pts (excluded) that were asked for; seeks to the first."""
        stream, base = self._stream, Fraction(self._stream.time_base or 1)
        first = stream.start_time or 0
        begin = end = None
        if start_s > 0:
            begin = first + round(start_s / base)
            length = float((stream.duration or 0) * base)
            if stream.duration and start_s >= length:
                raise SourceError(
                    f"{self.name} is {length:.1f} s long, so it cannot start at {start_s:g} s"
                )
            self._container.seek(begin, stream=stream)
        if duration_s is not None:
            end = (begin if begin is not None else first) + round(duration_s / base)
        return begin, end

    def _describe(self, first: av.VideoFrame) -> SourceInfo:
        stream = self._stream
        image = RgbConverter()(first)
        aspect = Fraction(stream.sample_aspect_ratio or 1)
        turned = image.shape[:2] != (first.height, first.width)
        rate = stream.average_rate or stream.guessed_rate
        return SourceInfo(
            width=image.shape[1],
            height=image.shape[0],
            time_base=Fraction(stream.time_base or 1),
            rate=Fraction(rate) if rate else None,
            frames=self._expected(Fraction(rate) if rate else None),
            pixel_aspect=1 / aspect if turned else aspect,
            codec=stream.codec_context.codec.name,
            matrix=matrix_of(first.colorspace, first.width, first.height),
            color_primaries=int(first.color_primaries),
            color_trc=int(first.color_trc),
        )

    def _expected(self, rate: Fraction | None) -> int | None:
        """How many frames will come, as far as the container knows; for progress, not promises."""
        stream, base = self._stream, Fraction(self._stream.time_base or 1)
        first, total = stream.start_time or 0, stream.frames or None
        length = self._stream_seconds()
        if total is None and rate and length:
            total = round(length * rate)
        if total is not None and rate:
            begin = float(((self._begin or first) - first) * base)
            end = float(total / rate)
            if self._end is not None:
                end = min(end, float((self._end - first) * base))
            if self._cut:
                total = max(0, round((end - begin) * rate))
        if self._max_frames is not None:
            total = self._max_frames if total is None else min(total, self._max_frames)
        return total

    def _stream_seconds(self) -> float | None:
        """The video's length as the container states it."""
        stream = self._stream
        if stream.duration and stream.time_base:
            return float(stream.duration * stream.time_base)
        if tag := stream.metadata.get("DURATION"):  # Matroska: "00:00:09.642000000"
            hours, minutes, seconds = tag.split(":")
            return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
        return self._container.duration / av.time_base if self._container.duration else None

    def _pictures(self) -> Iterator[av.VideoFrame]:
        """Decoded frames, as many as were asked for."""
        self._started = True
        self._early.clear()
        first, self._first = self._first, None
        assert first is not None
        for taken, picture in enumerate(itertools.chain([first], self._decoded), start=1):
            yield picture
            if taken == self._max_frames:
                return
        for tap in self._taps:
            tap.complete = True

    def _decode(self) -> Iterator[av.VideoFrame]:
        """Decoded frames from `_begin` on, before `_end`; audio packets go to the taps."""
        context = self._stream.codec_context
        context.thread_count = plan_threads().decode
        context.thread_type = "AUTO"
        video = self._stream.index
        for packet in self._demux():
            if packet.stream.index != video:
                self._pass_on(packet)
                continue
            for picture in self._decode_packet(packet):
                pts = picture.pts
                if pts is not None and self._begin is not None and pts < self._begin:
                    continue
                if pts is not None and self._end is not None and pts >= self._end:
                    self._finish_audio()
                    return
                yield picture

    def _demux(self) -> Iterator[Any]:
        """
        Packets in the file's order; a file that breaks off ends, for what is in the decoder
        still counts.
        """
        try:
            yield from self._container.demux([self._stream, *self._audio])
        except av.error.FFmpegError:
            flush = av.Packet()
            flush.stream = self._stream
            yield flush

    def _decode_packet(self, packet: Any) -> list[av.VideoFrame]:
        try:
            return list(self._stream.decode(packet))
        except av.error.EOFError:
            return []
        except av.error.FFmpegError:
            self._broken += 1
            return []
        finally:
            if packet is not None and packet.size:
                self._discarded += packet.is_discard

    def _pass_on(self, packet: Any) -> bool:
        """Hands an audio packet to the taps; False once its stream has passed the end."""
        if packet.size == 0:  # the demuxer's sign that the stream is at its end
            return False
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is not None and (self._begin is not None or self._end is not None):
            scale = self._stream.time_base / packet.time_base
            if self._end is not None and stamp >= self._end * scale:
                return False
            if self._begin is not None:
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

    def _count_lost(self, last: int | None) -> None:
        """Frames that the container promises and nobody could decode."""
        missing = self._broken
        if self._stream.frames:
            missing = self._stream.frames - self._discarded - self._count
        elif self.info.rate and last is not None and (length := self._stream_seconds()):
            end = float((last - (self._stream.start_time or 0)) * self.info.time_base)
            # A frame more or less is rounding; a file that breaks off misses many.
            short = int((length - end) * self.info.rate) - 1
            missing = max(missing, short if short > 1 else 0)
        if missing > 0:
            self.lost["undecodable"] = missing


def _open(path: Path) -> Any:
    try:
        if path.stat().st_size == 0:
            raise SourceError(f"{path} is empty (0 bytes)")
        container = av.open(str(path), "r")
    except FileNotFoundError:
        raise SourceError(f"no file at {path}") from None
    except PermissionError:
        raise SourceError(f"{path} cannot be read: permission denied") from None
    except av.error.InvalidDataError:
        raise SourceError(
            f"{path} is not a video that FFmpeg can read, or its header is damaged"
        ) from None
    except (av.error.FFmpegError, OSError) as error:
        raise SourceError(f"{path} cannot be opened: {error.strerror or error}") from None
    if container.format.name in _NOT_VIDEO:
        container.close()
        raise SourceError(f"{path} is a text file, not a video")
    return container


def _video_stream(container: Any, name: str) -> Any:
    covers = Disposition.attached_pic | Disposition.timed_thumbnails
    streams = [s for s in container.streams.video if not s.disposition & covers]
    best = container.streams.best("video")
    if best is not None and best in streams:
        return best
    if streams:
        return streams[0]
    kinds = sorted({s.type for s in container.streams if s.type})
    raise SourceError(f"{name} has no video stream (it has: {', '.join(kinds) or 'nothing'})")
