"""The viewer that is a web page: takes the newest frame and encodes it for whoever watches."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.util import find_spec
from socket import socket

import av
import numpy as np

from engines.card import Card
from pipeline.channel import Policy
from pipeline.frame import Frame
from pipeline.roles import Frames
from pipeline.sinks.web.address import Address, page_url
from pipeline.sinks.web.h264 import SharedEncoder
from pipeline.sinks.web.live import Live
from pipeline.sinks.web.pictures import fit_for_web, jpeg
from pipeline.sinks.web.server import Server
from pipeline.stages.look import Controls
from pipeline.together import Books

_MAX_FPS = 30
# What encoding may take of its thread's time, by the wall: where the cores are busy it is slower,
# and then the page gets fewer pictures, rather than the pipeline fewer frames.
_SHARE = 1 / 2
_SHARES_EVERY_S = 0.5


class WebSink:
    """Serves the page from `run`'s first moment to its end.

    Nothing is encoded while nobody watches, and a picture once, however many do. `close` gives the
    port back where it never ran.
    """

    policy: Policy = "drop_oldest"
    name = "web"
    advice = "encoding for the page is the limit: it skips frames, and holds back nobody else"
    output = None

    def __init__(
        self,
        listening: socket,
        address: Address,
        card: Card,
        controls: Controls,
        *,
        token: str | None,
        say: Callable[[str], None],
    ) -> None:
        port = int(listening.getsockname()[1])
        self.url = page_url(address, port, token)
        self.notes: list[str] = []
        self.pipeline: Books | None = None
        """Whose figures the page shows; to be set before `run`, and let go of at its end."""
        self._listening = listening
        self._live = Live(card, controls)
        self._no_rtc = _why_no_rtc()
        self._server = Server(
            listening, address, port, token, self._live, no_rtc=self._no_rtc, say=say
        )
        if self._no_rtc:
            say(f"web: pictures go out as MJPEG alone: {self._no_rtc}")

    def run(self, frames: Frames) -> Frames:
        """Shows each frame that it gets, and passes it on."""
        encoder = SharedEncoder()
        due = shares_due = 0.0
        pipeline, self.pipeline = self.pipeline, None  # a circle would keep the run's pictures
        with self._server.running(pipeline):
            del pipeline
            for frame in frames:
                self._live.newest = frame
                now = time.monotonic()
                if now >= due:
                    # A frame that is a little early is shown, so that 30 a second stay 30.
                    due = max(due, now - 0.5 / _MAX_FPS) + 1 / _MAX_FPS
                    self._show(frame, encoder)
                    due = max(due, now + (time.monotonic() - now) / _SHARE)
                if self._live.events.viewers and now >= shares_due:
                    shares_due = now + _SHARES_EVERY_S
                    self._live.shares = _shares(frame)
                yield frame
        self._live.newest = None  # whoever keeps the sink for its notes shall not keep pictures

    def _show(self, frame: Frame, encoder: SharedEncoder) -> None:
        live, loop = self._live, self._server.loop
        by_rtc, by_jpeg = live.feed.viewers, live.jpegs.viewers
        if not by_rtc:
            encoder.close()
        if not (by_rtc or by_jpeg) or loop.is_closed():
            return
        assert frame.picture is not None
        picture = fit_for_web(frame.picture)
        if by_rtc:
            packets = encoder.encode(picture, live.feed.key_wanted)
            if any(packet.is_keyframe for packet in packets):
                live.feed.key_given()
            live.feed.offer(loop, packets)
        if by_jpeg:
            live.jpegs.offer(loop, jpeg(picture))

    def close(self) -> None:
        """Gives the port back."""
        self._listening.close()


def _why_no_rtc() -> str:
    """Empty where WebRTC works."""
    if find_spec("aiortc") is None:
        return "aiortc is not installed; pip install 'streamseg[web]'"
    if "libx264" not in av.codecs_available:
        return "this FFmpeg has no libx264"
    return ""


def _shares(frame: Frame) -> dict[int, float]:
    """Of every fourth pixel of every fourth line, which is plenty for a bar of some pixels."""
    assert frame.labels is not None
    few = frame.labels[::4, ::4]
    counts = np.bincount(few.ravel())
    return {int(i): round(float(counts[i]) / few.size, 4) for i in np.flatnonzero(counts)}
