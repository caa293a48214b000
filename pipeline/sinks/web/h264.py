"""One H.264 encoder for all viewers of the page: no delay, and a key picture when one is wanted."""

from __future__ import annotations

import time
from fractions import Fraction
from typing import Any

import av
import cv2
from av.codec.context import ThreadType
from av.video.frame import PictureType
from av.video.reformatter import ColorRange

from pipeline.frame import Image
from pipeline.threads import plan_threads

TIME_BASE = Fraction(1, 90000)  # RTP's clock for video (RFC 6184, 8.1)
# Two viewers that come at once, or one that loses a packet a second, must not make every picture a
# key picture, which is several times as large: the others would pay for it.
_KEY_EVERY_S = 0.5
_BT601 = 6  # ITU-T H.273: the matrix that OpenCV converts with
_FPS = 30
_OPTIONS = {
    # As for files (docs/decisions/0005): the cores are the network's.
    "preset": "superfast",
    "tune": "zerolatency",
    "profile": "baseline",
    "forced-idr": "1",
    "crf": "24",
    # What a phone's wireless takes; a picture that needs more is coarser for a moment.
    "maxrate": "4000000",
    "bufsize": "1500000",
}


class SharedEncoder:
    """Pictures in, packets out. For one thread; opens at the first picture and at a new size."""

    def __init__(self) -> None:
        self._context: Any = None
        self._key_at = 0.0
        self._begun = time.monotonic()
        self._pts = -1

    def encode(self, picture: Image, key_wanted: bool) -> list[Any]:
        """av.Packets of uint8 (H, W, 3) RGB with even sides; time is that of the call."""
        h, w = picture.shape[:2]
        now = time.monotonic()
        if self._context is None or (self._context.height, self._context.width) != (h, w):
            self._context = _open(h, w)
            key_wanted = True
        frame = av.VideoFrame.from_ndarray(cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420), "yuv420p")
        # Rising, though two pictures may come within a tick.
        self._pts = max(self._pts + 1, int((now - self._begun) / TIME_BASE))
        frame.pts, frame.time_base = self._pts, TIME_BASE
        if key_wanted and now - self._key_at >= _KEY_EVERY_S:
            frame.pict_type = PictureType.I
        packets = list(self._context.encode(frame))
        if any(packet.is_keyframe for packet in packets):
            self._key_at = now
        return packets

    def close(self) -> None:
        """Lets go of the encoder while nobody watches; `encode` opens another."""
        self._context = None


def _open(height: int, width: int) -> Any:
    context: Any = av.CodecContext.create("libx264", "w")
    context.width, context.height = width, height
    context.pix_fmt = "yuv420p"
    context.time_base = TIME_BASE
    context.framerate = Fraction(_FPS)
    context.gop_size = 10 * _FPS  # key pictures come when they are asked for
    context.max_b_frames = 0
    context.colorspace = context.color_primaries = context.color_trc = _BT601
    context.color_range = ColorRange.MPEG
    context.thread_count = plan_threads().encode
    context.thread_type = ThreadType.SLICE  # threads by pictures would delay each by one
    context.options = dict(_OPTIONS)
    return context
