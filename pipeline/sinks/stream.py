"""A stream out: the coloured pictures pushed to a receiver by RTSP, RTMP, SRT or UDP.

The receiver may go away and come back; meanwhile frames are left out, and nobody waits for it. The
sending itself is done in a process of its own (pipeline/push.py says why).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.channel import Policy
from pipeline.errors import SinkError
from pipeline.fit import fit
from pipeline.frame import Frame
from pipeline.planes import Planes
from pipeline.roles import Frames
from pipeline.sinks.destination import Output
from pipeline.sinks.encoder import DEFAULT_QUALITY, choose_encoder
from pipeline.sinks.protocols import Protocol, find_protocol, without_secrets
from pipeline.sources.info import SourceInfo

# Who tunes in, or comes back, sees a picture at the next keyframe.
KEYFRAME_S = 2.0

# Seconds until the next try after a failure: the first, and the longest.
_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 5.0

# A frame that finds the one before still on its way waits this long and is then left out: a network
# that is slower than the pictures must not put them off further and further.
_PATIENCE_S = 0.25


class StreamSink:
    """Encodes `frame.picture` with low latency and sends it to `url`.

    `say` is told when the receiver is lost and when it is back. Each connection's times begin at 0.
    A size that changes is fitted into the first one's.
    """

    policy: Policy = "drop_oldest"
    reads_labels = False
    advice = "sending is the limit: a smaller source, a higher --quality number or more bandwidth"

    def __init__(
        self,
        url: str,
        info: SourceInfo,
        *,
        encoder: str = "auto",
        quality: int = DEFAULT_QUALITY,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._protocol: Protocol = find_protocol(url)
        self._url, self._info, self._say = url, info, say
        self._encoder = choose_encoder(
            ".ts", encoder, quality, low_latency=True, keyframe_s=KEYFRAME_S
        )
        self.name = self._protocol.name
        self.output = Output(Path(), self._encoder.name, url=without_secrets(url))
        self.notes: list[str] = []
        self.failure: SinkError | None = None
        """What the run has to say about it at its end: that nothing at all could be sent."""

    def run(self, frames: Frames) -> Frames:
        """Yields each frame once it is sent; the others are left out."""
        link = _Link(self._order, self.output.where, self._say)
        offered = 0
        try:
            for frame in frames:
                offered += 1
                if (sent := link.landed(_PATIENCE_S)) is not None:
                    self.output.frames += 1
                    yield sent
                link.launch(frame)
            if (sent := link.finish()) is not None:
                self.output.frames += 1
                yield sent
        finally:
            link.hang_up()
        if offered and not self.output.frames:
            why = link.reason or "the run ended before the receiver was connected"
            self.failure = SinkError(f"nothing was sent to {self.output.where}: {why}")
        self.output.complete = bool(self.output.frames)

    def _order(self, size: tuple[int, int]) -> Any:
        from pipeline.push import Order

        protocol = self._protocol
        return Order(
            url=self._url, container=protocol.container, options=protocol.options,
            relay=protocol.relay(self._url), encoder=self._encoder, info=self._info, size=size,
        )  # fmt: skip


def _bytes_of(frame: Frame, planes: Planes | None, size: tuple[int, int]) -> memoryview:
    """Its planes one after the other, or its RGB at `size`."""
    if planes is not None:
        return np.concatenate([planes.y.ravel(), planes.u.ravel(), planes.v.ravel()]).data
    assert frame.picture is not None
    return fit(frame.picture, *size).data.cast("B")


class _Link:
    """One process after the other that sends, and when to try the next."""

    def __init__(
        self, order: Callable[[tuple[int, int]], Any], where: str, say: Callable[[str], None]
    ) -> None:
        self._order, self._where, self._say = order, where, say
        self.reason = ""
        """Why the last connection failed."""
        self._pause_s, self._retry_at = _PAUSE_S, 0.0
        self._away_since: float | None = None
        self._flying: Frame | None = None
        self._size: tuple[int, int] | None = None
        self._start()

    def _start(self) -> None:
        """Its libraries load while the first frame is on its way."""
        self._connection, theirs = Pipe()
        self._waits = False  # for an answer
        self._ordered = False
        with theirs:
            self._process: subprocess.Popen[bytes] | None = subprocess.Popen(
                [sys.executable, "-m", "pipeline.push", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # a group of its own, so that a relay ends with it
            )

    def landed(self, patience_s: float) -> Frame | None:
        """The frame that has been sent since the last call, waiting a little for its answer."""
        if self._process is None or not self._waits:
            return None
        try:
            if not self._connection.poll(patience_s):
                return None
            answer = self._connection.recv()
        except (EOFError, OSError):
            self._lose(self._ended())
            return None
        if isinstance(answer, str):
            self._lose(answer)
            return None
        self._waits = False
        frame, self._flying = self._flying, None
        if not answer:
            return None
        if frame is not None and self._away_since is not None:
            self._say(f"{self._where}: sending again after {self._away_s():.1f} s")
            self._away_since = None
        if frame is not None:
            self._pause_s = _PAUSE_S
        return frame

    def launch(self, frame: Frame) -> None:
        """Sends a frame on its way, unless the one before is, or the receiver is away."""
        if self._process is None:
            if time.perf_counter() < self._retry_at:
                return
            self._start()
        if self._waits:
            return
        held = frame.held_picture
        assert held is not None
        if self._size is None:
            self._size = held.shape[0], held.shape[1]
        try:
            if not self._ordered:
                # The answer comes when the receiver is connected; until then no frame is sent.
                self._connection.send(self._order(self._size))
                self._ordered = True
            else:
                planes = held if isinstance(held, Planes) and held.shape == self._size else None
                matrix = None if planes is None else planes.matrix
                self._connection.send((frame.pts, frame.duration, matrix))
                self._connection.send_bytes(_bytes_of(frame, planes, self._size))
                self._flying = frame
            self._waits = True
        except OSError:
            self._lose(self._ended())

    def finish(self) -> Frame | None:
        """Waits for what is on its way, within the process's own limits, and ends in order."""
        from pipeline.push import OPEN_LIMIT_S, SEND_LIMIT_S

        last = self.landed(OPEN_LIMIT_S if self._flying is None else SEND_LIMIT_S)
        if self._process is not None and self._ordered and not self._waits:
            with suppress(OSError, EOFError):
                self._connection.send(None)
                if self._connection.poll(SEND_LIMIT_S + 1):
                    self._connection.recv()
        return last

    def hang_up(self) -> None:
        """Ends the process, and what it has started, whatever they are doing."""
        self._connection.close()
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _ended(self) -> str:
        """Why a process that said nothing is no more."""
        assert self._process is not None
        with suppress(OSError, EOFError):
            while self._connection.poll(0):
                if isinstance(said := self._connection.recv(), str):
                    return said
        with suppress(subprocess.TimeoutExpired):
            if self._process.wait(1) == -signal.SIGALRM:
                return "it takes no data" if self._flying else "it does not answer"
        return "the sending process has ended"

    def _lose(self, why: str) -> None:
        self.reason = without_secrets(why)
        self._flying = None
        self.hang_up()
        self._retry_at = time.perf_counter() + self._pause_s
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        if self._away_since is None:
            self._away_since = time.perf_counter()
            self._say(f"warning: {self._where}: {self.reason}; it is tried again until it is there")

    def _away_s(self) -> float:
        assert self._away_since is not None
        return time.perf_counter() - self._away_since
