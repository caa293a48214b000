"""A video file: the coloured pictures with the source's own timestamps and audio."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import cv2
import numpy as np
from av.bitstream import BitStreamFilterContext
from av.codec.context import Flags
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from pipeline.card_planes import CARD_SAMPLES, CardPlanes
from pipeline.channel import Policy
from pipeline.errors import SinkError
from pipeline.fit import fit
from pipeline.frame import Frame, Image
from pipeline.planes import FORMAT, Matrix, Planes
from pipeline.roles import Frames
from pipeline.sinks.destination import Output, check_file, playable_frames, whole_file
from pipeline.sinks.encoder import DEFAULT_QUALITY, Encoder, card_encoder, choose_encoder
from pipeline.sources.color import matrix_of
from pipeline.sources.info import AudioTap, SourceInfo
from pipeline.threads import plan_threads

# What FFmpeg's muxer knows a type for (libavformat/mpegtsenc.c); its list has the defaults alone.
_MPEGTS_AUDIO = {"aac", "ac3", "dts", "eac3", "mp2", "mp3", "opus"}


class VideoSink:
    """Encodes `frame.picture` into a container chosen by the path's suffix.

    Timestamps are the source's, to the container's tick. Audio packets go through untouched where
    the container can carry them; `notes` says where not. If the source changes its size, pictures
    are fitted into the first one's.
    """

    policy: Policy = "block"
    reads_labels = False
    name = "encode"
    advice = (
        "encoding is the limit: a hardware encoder (--encoder), a higher --quality number or a "
        "smaller source is faster"
    )

    def __init__(
        self,
        path: Path,
        info: SourceInfo,
        *,
        audio: AudioTap | None = None,
        encoder: str = "auto",
        quality: int = DEFAULT_QUALITY,
        force: bool = False,
    ) -> None:
        check_file(path, force)
        self._encoder = choose_encoder(path.suffix, encoder, quality)
        self.output = Output(path, self._encoder.name)
        self.notes: list[str] = []
        self._info = info
        self.audio = audio
        """Compressed audio to be written beside the pictures; to be set before `run`."""
        self.takes_card_pictures = self._encoder.takes_card_pictures

    def run(self, frames: Frames) -> Frames:
        """Writes each frame and passes it on."""
        with whole_file(self.output, playable_frames) as path:
            with open_container(path) as container:
                writer: Writer | None = None
                try:
                    for frame in frames:
                        picture = frame.held_picture
                        assert picture is not None
                        if writer is None:
                            writer = Writer(container, self._encoder, self._info, self.audio)
                            self.notes += self._start(writer, picture)
                        writer.write(frame)
                        self.output.frames += 1
                        yield frame
                except BaseException:
                    # The partial file is to hold the frames that the encoder has not yet given
                    # out; if writing them fails, too, the first error is the one to see.
                    if self.output.frames and writer is not None:
                        with suppress(Exception):
                            writer.finish()
                    raise
                if writer is not None:
                    writer.finish()

    def _start(self, writer: Writer, picture: Image | Planes) -> list[str]:
        height, width = picture.shape[:2]
        if not (isinstance(picture, CardPlanes) and self.takes_card_pictures):
            return writer.start(height, width)
        try:
            return writer.start(height, width, picture.gpu)
        except av.error.FFmpegError as error:
            raise SinkError(
                f"{self._encoder.name} does not take pictures from GPU {picture.gpu}: {error}; "
                "--decoder cpu gives it those of the host"
            ) from error


@contextmanager
def open_container(path: Path) -> Iterator[Any]:
    """A container to mux into, closed whatever happens, so that what is in it stays playable."""
    container = av.open(str(path), "w", options=_muxer_options(path.suffix.lower()))
    try:
        yield container
    except BaseException:
        # The trailer may fail for the same reason (a full disk); the first error is the one to see.
        with suppress(Exception):
            container.close()
        raise
    container.close()


def _muxer_options(suffix: str) -> dict[str, str]:
    if suffix in (".mp4", ".m4v", ".mov"):
        # Fragments while it is written, so that a file that breaks off (power, a full disk, kill
        # -9) plays up to there; an ordinary file once it is closed. Without delay_moov the edit
        # lists, and with them exact timestamps, would be lost.
        return {
            "movflags": "+hybrid_fragmented+delay_moov",
            "frag_duration": "1000000",
            # Where a stream begins is stored in this unit; the default, a millisecond, is coarser
            # than the frames of most rates.
            "movie_timescale": "90000",
        }
    if suffix in (".mkv", ".webm"):
        return {
            "cluster_time_limit": "1000",  # ms that are kept in memory: as for the fragments
            # Sound of an MP4 begins a little before 0, where its encoder warms up; the pictures
            # are not to be moved for it.
            "avoid_negative_ts": "disabled",
        }
    return {}


class Writer:
    """One open container's streams: pictures in, encoded and muxed."""

    def __init__(
        self, container: Any, encoder: Encoder, info: SourceInfo, audio: AudioTap | None
    ) -> None:
        self._container = container
        self._encoder = encoder
        self._info = info
        self._audio = audio
        self._reformatter = VideoReformatter()
        self._audio_streams: list[Any] = []
        self._end_s = 0.0
        self._last = -1
        self._key_due_s = -math.inf

    def start(self, height: int, width: int, gpu: int | None = None) -> list[str]:
        """Makes the streams, for pictures of this size; returns notes for the user. With `gpu`
        pictures that lie on the GPU of that number are encoded without leaving it.
        """
        info, notes = self._info, []
        vp9 = self._encoder.name == "libvpx-vp9"
        # Only H.264 carries a pixel aspect itself; PyAV cannot write WebM's own.
        self._widen = info.pixel_aspect if vp9 else Fraction(1)
        h, w = height, self._stored_width(width)
        if self._widen != 1:
            notes.append(f"WebM is written with square pixels: the video is {w}x{h}")
        even = (h + h % 2, w + w % 2)
        if even != (h, w) and not vp9:
            h, w = even
            notes.append(f"H.264 takes even sides only: the video is {w}x{h}, its edge repeated")
        self._size = (h, w)
        self._on_card = gpu is not None
        more = {} if gpu is None else {"hwaccel": card_encoder(gpu)}
        stream = self._container.add_stream(
            self._encoder.name, rate=info.rate or 25, options=self._encoder.options, **more
        )
        stream.width, stream.height = w, h
        # On a card it is that of the samples; pictures of the host are then sent up by PyAV.
        stream.pix_fmt = CARD_SAMPLES if self._on_card else self._encoder.pixel_format
        stream.time_base = info.time_base
        context = stream.codec_context
        context.time_base = info.time_base
        context.thread_count = plan_threads().encode
        # B-frames would put decode times before the presentation times, and a container's lengths
        # follow those: a video of variable rate would end early in MP4, without its last frames.
        context.max_b_frames = 0
        if self._encoder.keyframe_s is not None:
            # `write` asks for them by time, which is exact at any rate; this is for encoders that
            # do not listen.
            context.gop_size = max(1, round(float(info.rate or 25) * self._encoder.keyframe_s))
        context.flags |= Flags.frame_duration  # else the last frame's duration is made up
        context.sample_aspect_ratio = info.pixel_aspect / self._widen
        self._matrix = info.matrix or matrix_of(2, w, h)
        context.color_range = ColorRange.MPEG
        # H.273 has the same numbers, but for BT.601, of which it has two.
        self._tag = 6 if self._matrix == Matrix.BT601 else int(self._matrix)
        context.colorspace = self._tag
        context.color_primaries = info.color_primaries
        context.color_trc = info.color_trc
        self._stream = stream
        notes += self._add_audio()
        self._container.start_encoding()
        return notes

    def _add_audio(self) -> list[str]:
        notes = []
        for template in self._audio.streams if self._audio is not None else ():
            codec, container = template.codec_context.codec.canonical_name, self._container
            stream = filtered = None
            if carries(container, template):
                stream = container.add_stream_from_template(template)
                if language := template.metadata.get("language"):
                    stream.metadata["language"] = language
                if codec == "aac" and not template.codec_context.extradata:
                    filtered = _without_headers(container, template)
            else:
                notes.append(f"{codec} audio does not go into {container.format.name}: left out")
            self._audio_streams.append((stream, filtered))
        return notes

    def _square(self, picture: Image) -> Image:
        """The picture as wide as it is to be stored."""
        if self._widen == 1:
            return picture
        h, w = picture.shape[:2]
        return np.asarray(cv2.resize(picture, (self._stored_width(w), h)), np.uint8)

    def _stored_width(self, width: int) -> int:
        return max(1, round(width * self._widen))

    def _to_video(self, frame: Frame) -> av.VideoFrame:
        """The picture as the encoder takes it. Planes of the right size go as they are; a copy
        does, because encoding a frame changes its times and another sink may have it, too.
        """
        held = frame.held_picture
        if (
            self._on_card
            and isinstance(held, CardPlanes)
            and (held.shape, held.matrix) == (self._size, self._matrix)
        ):
            # No copy: nobody else has a picture that stayed on the card. It still says what kind of
            # frame it was in the source, which an encoder would take for an order.
            held.video.pict_type = PictureType.NONE
            return held.video
        if (
            isinstance(held, Planes)
            and (held.shape, held.matrix) == (self._size, self._matrix)
            and self._widen == 1
            and self._encoder.pixel_format == FORMAT
        ):
            video = held.copy().video
            video.colorspace, video.color_range = self._tag, ColorRange.MPEG
            return video
        assert frame.picture is not None
        picture = fit(self._square(frame.picture), *self._size)
        video = av.VideoFrame.from_numpy_buffer(picture, "rgb24")
        video.colorspace = self._tag  # PyAV before version 18 takes BT.2020 from here alone
        return self._reformatter.reformat(
            video,
            format=self._encoder.pixel_format,
            src_colorspace=self._matrix,
            dst_colorspace=self._matrix,
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.MPEG,
            interpolation=Interpolation.BILINEAR,
            threads=1,
        )

    def write(self, frame: Frame) -> None:
        video = self._to_video(frame)
        video.pts, video.time_base = frame.pts, frame.time_base
        if frame.duration:
            video.duration = frame.duration
        every_s = self._encoder.keyframe_s
        if every_s is not None and frame.time_s >= self._key_due_s:
            video.pict_type = PictureType.I
            self._key_due_s = frame.time_s + every_s
        self._last = frame.index
        self._end_s = float((frame.pts + frame.duration) * frame.time_base)
        for packet in self._stream.encode(video):
            self._container.mux_one(packet)
        self._write_audio(frame.time_s)

    def finish(self) -> None:
        """What the encoder still holds, and the audio that belongs to the pictures written."""
        for packet in self._stream.encode(None):
            self._container.mux_one(packet)
        # A run may be stopped when the source has been read, and not yet written, to its end.
        whole = self._audio is not None and self._audio.frames == self._last + 1
        self._write_audio(None if whole else self._end_s)

    def _write_audio(self, until_s: float | None) -> None:
        if self._audio is None:
            return
        for number, packet in self._audio.take(until_s):
            stream, filtered = self._audio_streams[number]
            if stream is not None:
                # Muxing changes a packet, and another sink may have the same one.
                copy = copy_packet(packet)
                for part in [copy] if filtered is None else filtered.filter(copy):
                    part.stream = stream
                    self._container.mux_one(part)


def carries(container: Any, template: Any) -> bool:
    """Whether audio of a source's stream can go into a container, which is only tried out."""
    name, context = container.format.name, template.codec_context
    if name == "mpegts":
        known = context.codec.canonical_name in _MPEGTS_AUDIO
    else:
        known = context.name in container.supported_codecs  # which has the decoders' names
    if not known:
        return False
    # FFmpeg's lists promise more than its muxers take: Opus and FLAC in .mov.
    trial = av.open(io.BytesIO(), "w", format=name)
    try:
        trial.add_stream_from_template(template)
        trial.start_encoding()
    except (av.error.FFmpegError, ValueError):
        return False
    finally:
        with suppress(Exception):
            trial.close()
    return True


def _without_headers(container: Any, template: Any) -> Any:
    """A filter for AAC of MPEG streams, which has a header in each packet; other containers want
    one for all, and FFmpeg's own conversion fails beside `delay_moov`.
    """
    if container.format.name == "mpegts":
        return None
    return BitStreamFilterContext("aac_adtstoasc", template)


def copy_packet(packet: Any) -> Any:
    """A packet with the same bytes, times and side data."""
    copy = av.Packet(bytes(packet))
    copy.pts, copy.dts, copy.duration = packet.pts, packet.dts, packet.duration
    copy.time_base = packet.time_base
    copy.is_keyframe = packet.is_keyframe
    for side in packet.iter_sidedata():
        copy.set_sidedata(side)
    return copy
