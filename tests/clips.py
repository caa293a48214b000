"""Small videos made on the spot, each frame carrying its number: what the tests feed to sources.

Everything is encoded by the FFmpeg in PyAV's wheel; `needs_encoder` skips a test whose encoder is
not in it. Numbers survive lossy codecs, so that a test can say which frame it got.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from pipeline.frame import Image
from pipeline.sources.synthetic import draw_number

HEIGHT, WIDTH = 96, 128
LOSSLESS = {"libx264": {"qp": "0", "preset": "ultrafast"}, "ffv1": {}, "rawvideo": {}}

# How to ask an encoder for pictures whose numbers and colours can be told, quickly.
OPTIONS: dict[str, dict[str, str]] = {
    "libx264": {"preset": "ultrafast", "crf": "12"},
    "libx265": {"preset": "ultrafast", "crf": "12", "x265-params": "log-level=none:pools=1"},
    "libsvtav1": {"preset": "12", "crf": "20", "svtav1-params": "lp=1"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8", "crf": "6", "b": "4M"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "crf": "12", "b": "0"},
    "mpeg4": {"qmin": "2", "qmax": "2"},
    "mpeg2video": {"qmin": "2", "qmax": "2"},
    "mjpeg": {"qmin": "2", "qmax": "2"},
    "flv": {"qmin": "2", "qmax": "2"},
}


@dataclass(frozen=True)
class Tone:
    """An audio stream: a tone that rises from `hz` on, so that no two parts of it are alike."""

    codec: str = "aac"
    hz: float = 440.0
    seconds: float = 1.0
    start_s: float = 0.0
    rate: int = 48000
    layout: str = "mono"
    language: str = ""


def has_encoder(name: str) -> bool:
    try:
        av.Codec(name, "w")
    except av.codec.codec.UnknownCodecError:
        return False
    return True


def needs_encoder(*names: str) -> None:
    """Skips the test where PyAV's wheel lacks one of these encoders."""
    for name in names:
        if not has_encoder(name):
            pytest.skip(f"PyAV has no {name} encoder here")


def numbered(number: int, height: int = HEIGHT, width: int = WIDTH) -> Image:
    """uint8 (H, W, 3) RGB: mid gray under the number."""
    image = np.full((height, width, 3), 110, np.uint8)
    draw_number(image, number)
    return image


def quadrants(height: int = HEIGHT, width: int = WIDTH) -> Image:
    """Red, green / blue, white, clockwise from the upper left: shows every turn and mirror."""
    image = np.empty((height, width, 3), np.uint8)
    top, left = height // 2, width // 2
    image[:top, :left], image[:top, left:] = (200, 30, 30), (30, 160, 30)
    image[top:, :left], image[top:, left:] = (30, 30, 200), (230, 230, 230)
    return image


def corners(image: Image) -> list[str]:
    """The quadrants' colours by name: upper left, upper right, lower left, lower right."""
    h, w = image.shape[:2]
    names = []
    for y, x in (
        (h // 4, w // 4),
        (h // 4, 3 * w // 4),
        (3 * h // 4, w // 4),
        (3 * h // 4, 3 * w // 4),
    ):
        patch = image[y - 3 : y + 4, x - 3 : x + 4].reshape(-1, 3).mean(axis=0)
        high = patch > 128
        key = "".join("1" if v else "0" for v in high)
        names.append({"100": "red", "010": "green", "001": "blue", "111": "white"}.get(key, key))
    return names


def write_clip(
    path: Path,
    *,
    count: int = 12,
    size: tuple[int, int] = (HEIGHT, WIDTH),
    first: int = 0,
    pictures: Iterable[Image | av.VideoFrame] | None = None,
    codec: str = "libx264",
    pix_fmt: str | None = None,
    container: str | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    rate: Fraction | int = 25,
    time_base: Fraction | None = None,
    pts: Sequence[int] | None = None,
    durations: Sequence[int] | None = None,
    aspect: Fraction | None = None,
    tags: dict[str, int] | None = None,
    audio: Sequence[Tone] = (),
    gop: int | None = None,
) -> Path:
    """
    A video of `count` numbered pictures of `size` (height, width), or of `pictures` (RGB arrays,
    or frames that are encoded as they are). `pts` and `durations` are in units of `time_base`,
    which is 1/rate where it is not given. `tags` are the codec context's colour fields.
    """
    if pictures is None:
        pictures = [numbered(first + i, *size) for i in range(count)]
    pictures = list(pictures)
    base = time_base or 1 / Fraction(rate)
    stamps = range(len(pictures)) if pts is None else pts
    with av.open(str(path), "w", format=container, options=container_options or {}) as output:
        stream: Any = output.add_stream(
            codec, rate=rate, options=OPTIONS.get(codec, {}) if options is None else options
        )
        height, width = _size(pictures[0])
        stream.height, stream.width = height, width
        stream.pix_fmt = pix_fmt or _pixel_format(codec, pictures[0])
        stream.time_base = base
        context = stream.codec_context
        context.time_base = base
        context.thread_count = 1
        if gop is not None:
            context.gop_size = gop
        if aspect is not None:
            context.sample_aspect_ratio = aspect
        for field, value in (tags or {}).items():
            setattr(context, field, value)
        tones = [(tone, _audio_stream(output, tone)) for tone in audio]
        for i, (picture, stamp) in enumerate(zip(pictures, stamps, strict=True)):
            frame = picture
            if not isinstance(frame, av.VideoFrame):
                frame = av.VideoFrame.from_ndarray(frame, "rgb24")
                if stream.pix_fmt != "rgb24":
                    frame = frame.reformat(format=stream.pix_fmt)
            frame.pts, frame.time_base = stamp, base
            if durations is not None:
                frame.duration = durations[i]
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        for tone, track in tones:
            _encode_tone(output, track, tone)
    return path


def _size(picture: Image | av.VideoFrame) -> tuple[int, int]:
    if isinstance(picture, av.VideoFrame):
        return picture.height, picture.width
    return picture.shape[:2]


def _pixel_format(codec: str, picture: Image | av.VideoFrame) -> str:
    if isinstance(picture, av.VideoFrame):
        return picture.format.name
    return {"gif": "rgb8", "png": "rgb24", "mjpeg": "yuvj420p", "prores_ks": "yuv422p10le"}.get(
        codec, "yuv420p"
    )


def _audio_stream(output: Any, tone: Tone) -> Any:
    stream = output.add_stream(tone.codec, rate=tone.rate)
    stream.codec_context.layout = tone.layout
    if tone.language:
        stream.metadata["language"] = tone.language
    return stream


def _encode_tone(output: Any, stream: Any, tone: Tone) -> None:
    count = round(tone.seconds * tone.rate)
    time_s = np.arange(count) / tone.rate
    wave = np.sin(2 * np.pi * (tone.hz + 300 * time_s) * time_s)
    samples = np.rint(wave * 12000).astype(np.int16)
    channels = {"mono": 1, "stereo": 2}[tone.layout]
    for at in range(0, count, 1024):
        part = np.repeat(samples[at : at + 1024], channels)[None]
        frame = av.AudioFrame.from_ndarray(part, format="s16", layout=tone.layout)
        frame.sample_rate = tone.rate
        frame.pts = round(tone.start_s * tone.rate) + at
        frame.time_base = Fraction(1, tone.rate)
        output.mux(stream.encode(frame))
    output.mux(stream.encode(None))


def write_tone(path: Path, tone: Tone, container: str | None = None) -> Path:
    """A file with audio only."""
    with av.open(str(path), "w", format=container) as output:
        _encode_tone(output, _audio_stream(output, tone), tone)
    return path


def set_display_matrix(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Turns an .mp4's video: x' = a x + c y, y' = b x + d y (ISO/IEC 14496-12, 6.2.2)."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # version 0: the matrix follows 40 bytes of other fields
    one = 1 << 16
    struct.pack_into(">9i", data, at, a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


@dataclass(frozen=True)
class Packet:
    """One packet of a file as it lies there."""

    position: int
    size: int
    pts: int | None
    keyframe: bool


def packets(path: Path, kind: str = "video", number: int = 0) -> list[Packet]:
    """The packets of a stream, in the file's order."""
    with av.open(str(path)) as file:
        stream = [s for s in file.streams if s.type == kind][number]
        return [Packet(p.pos, p.size, p.pts, p.is_keyframe) for p in file.demux(stream) if p.size]


def times(path: Path) -> list[Fraction]:
    """Presentation times of the decoded frames in seconds, as FFmpeg itself has them."""
    with av.open(str(path)) as file:
        return [f.pts * f.time_base for f in file.decode(video=0)]


def audio_samples(path: Path, number: int = 0) -> tuple[Fraction, Image]:
    """When a file's audio begins, in seconds, and all decoded samples, (channels, n)."""
    with av.open(str(path)) as file:
        frames = [f for f in file.decode(audio=number) if f.samples]
        begin = frames[0].pts * frames[0].time_base
        return begin, np.concatenate([f.to_ndarray() for f in frames], axis=1)


def yuv_frame(
    codes: Sequence[tuple[int, ...]], pix_fmt: str, size: tuple[int, int]
) -> av.VideoFrame:
    """
    Vertical stripes, each of one colour given as the code values of its planes (Y, Cb, Cr, or
    Y alone), without any conversion. Subsampling must divide the stripes' width.
    """
    height, width = size
    frame = av.VideoFrame(width, height, pix_fmt)
    depth = frame.format.components[0].bits
    kind: Any = np.dtype("<u2") if depth > 8 else np.dtype(np.uint8)
    channels = list(range(len(codes[0])))
    # nv12 has Cb and Cr side by side in one plane.
    groups = [[0], [1, 2]] if pix_fmt.startswith("nv") else [[c] for c in channels]
    for plane, group in zip(frame.planes, groups, strict=True):
        rows = np.zeros((plane.height, plane.line_size // kind.itemsize), kind)
        columns = plane.width
        for i, code in enumerate(codes):
            left, right = i * columns // len(codes), (i + 1) * columns // len(codes)
            for offset, channel in enumerate(group):
                rows[:, left * len(group) + offset : right * len(group) : len(group)] = code[
                    channel
                ]
        plane.update(rows.tobytes())
    return frame
