"""Video encoders: which one, with which options, tried before they are trusted."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av
import av.error

from pipeline.card_planes import has_card_frames
from pipeline.errors import SinkError
from pipeline.threads import plan_threads

# Suffix -> encoders, the first that opens here wins. H.264 hardware encoders are NVIDIA's, Apple's,
# Intel's and AMD's; they cost no processor time, which the network needs. No AVI: it stores no
# timestamps, so that videos of variable rate, or that do not start at 0, come out wrong.
_H264 = ("h264_nvenc", "h264_videotoolbox", "h264_qsv", "h264_amf", "libx264")
CONTAINERS = {
    ".mp4": _H264,
    ".m4v": _H264,
    ".mov": _H264,
    ".mkv": _H264,
    ".ts": _H264,
    ".webm": ("libvpx-vp9",),
}

DEFAULT_QUALITY = 23  # x264's own default

# What each needs to give a picture out before the next one comes in, and a keyframe when asked for
# one (libavcodec's options of these encoders).
_LOW_LATENCY = {
    # A stream's bytes cost its viewers: a preset slower than for files, for half the size.
    "libx264": {"preset": "veryfast", "tune": "zerolatency"},
    "h264_nvenc": {"tune": "ull", "zerolatency": "1", "delay": "0", "forced-idr": "1"},
    "h264_videotoolbox": {"realtime": "1"},
    "h264_qsv": {"async_depth": "1", "forced_idr": "1"},
    "h264_amf": {"usage": "ultralowlatency", "forced_idr": "1"},
}


@dataclass(frozen=True)
class Encoder:
    """An encoder that opens here, and how to ask it for a quality."""

    name: str
    pixel_format: str
    options: dict[str, str] = field(default_factory=dict)
    keyframe_s: float | None = None
    """Seconds between keyframes at most; None leaves it to the encoder."""

    @property
    def takes_card_pictures(self) -> bool:
        """Whether it encodes pictures that lie on an NVIDIA card where they are."""
        return self.name.endswith("_nvenc") and has_card_frames()


def choose_encoder(
    suffix: str,
    asked: str = "auto",
    quality: int = DEFAULT_QUALITY,
    *,
    low_latency: bool = False,
    keyframe_s: float | None = None,
) -> Encoder:
    """The first encoder for this container that opens on this machine, or the one asked for.

    `quality` is on H.264's scale of constant quality: 0 is lossless, 51 the worst. With
    `low_latency` each picture leaves the encoder before the next one comes. Raises SinkError naming
    what is allowed.
    """
    candidates = CONTAINERS.get(suffix.lower())
    if candidates is None:
        raise SinkError(f"{suffix or 'no suffix'} is no video; allowed: {', '.join(CONTAINERS)}")
    if asked != "auto":
        if asked not in candidates:
            raise SinkError(
                f"encoder {asked!r} does not go into {suffix}; allowed: auto, "
                f"{', '.join(candidates)}"
            )
        candidates = (asked,)
    for name in candidates:
        options = _options(name, quality)
        if low_latency:
            options |= _LOW_LATENCY[name]
        encoder = Encoder(name, "yuv420p", options, keyframe_s)
        if _opens(encoder):
            return encoder
    raise SinkError(f"encoder {asked} does not work on this machine; --encoder auto finds one")


def card_encoder(gpu: int) -> Any:
    """What an encoder on the GPU of CUDA's number `gpu` is given for pictures that lie there: the
    context in which the decoder left them. Needs PyAV 18.
    """
    from av.codec.hwaccel import HWAccel

    return HWAccel("cuda", device=gpu, options={"primary_ctx": "1"})


def _options(name: str, quality: int) -> dict[str, str]:
    if name == "libx264":
        # superfast: at this rate of frames the encoder must leave the cores to the network; one
        # preset slower costs 1.4 times the time for half the size (docs/decisions/0005).
        return {"preset": "superfast", "crf": str(quality)}
    if name == "libvpx-vp9":
        crf = round(quality * 63 / 51)  # VP9's scale ends at 63
        return {
            "deadline": "realtime",
            "cpu-used": "8",
            "row-mt": "1",
            "crf": str(crf),
            "b": "0",
            "lag-in-frames": "0",  # nothing looks ahead in real time; it would only hold pictures
        }
    if name == "h264_nvenc":
        return {"preset": "p4", "rc": "vbr", "cq": str(quality), "b": "0"}
    if name == "h264_videotoolbox":
        return {"q": str(round(100 - quality * 100 / 51))}
    if name == "h264_qsv":
        return {"global_quality": str(max(1, quality))}
    return {"rc": "cqp", "qp_i": str(quality), "qp_p": str(quality)}


def _opens(encoder: Encoder) -> bool:
    """Opens the encoder at a size that all of them take; drivers may be missing."""
    try:
        context: Any = av.CodecContext.create(encoder.name, "w")
        context.width, context.height = 640, 360
        context.pix_fmt = encoder.pixel_format
        context.time_base = Fraction(1, 30)
        context.options = dict(encoder.options)
        context.thread_count = plan_threads().encode
        context.open()
    except (av.error.FFmpegError, ValueError):
        return False
    return True
