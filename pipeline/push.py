"""The process that encodes pictures and sends them to a receiver: `python -m pipeline.push FD`.

FFmpeg's writing to a network cannot be given a time limit or be interrupted from Python: a receiver
that takes the connection and then does not read would hold a thread for ever. A process can always
be ended, and here it ends itself: an alarm goes off when opening or sending takes too long.

Over the file descriptor FD come an `Order`, then for each picture its (pts, duration, matrix) and
its pixels (planes of YUV 4:2:0 by that matrix, or RGB where it is None), then None. For the order
and each picture goes back `SENT`, or `WAITING` while nothing says yet that the receiver is there;
for None `SENT` once all is out; or a text with what went wrong.
"""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import IO, Any

import av
import av.error
import numpy as np

from pipeline.frame import Frame
from pipeline.planes import Matrix, Planes
from pipeline.sinks.encoder import Encoder
from pipeline.sinks.video import Writer
from pipeline.sources.info import SourceInfo

SENT, WAITING = True, False

OPEN_LIMIT_S = 10
"""FFmpeg itself gives up connecting by TCP after 5 s, and a server may have more to say."""
SEND_LIMIT_S = 5


@dataclass(frozen=True)
class Order:
    """What to encode, and where to send it."""

    url: str
    container: str
    """FFmpeg's name of the format."""
    options: dict[str, str]
    """The format's own."""
    relay: list[str] = field(default_factory=list)
    """A command that gets the stream on its standard input and sends it on, where PyAV cannot."""
    encoder: Encoder = field(default_factory=lambda: Encoder("libx264", "yuv420p"))
    info: SourceInfo | None = None
    size: tuple[int, int] = (0, 0)
    """(H, W) of the first picture; later ones are made to fit."""


def main() -> None:
    """Serves one connection and ends."""
    connection = Connection(int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the caller's to understand
    try:
        push(connection)
    except EOFError:
        pass  # the caller has gone
    except Exception as error:
        with suppress(OSError):
            connection.send(explain(error))


def push(connection: Connection) -> None:
    """Sends what comes over the connection until None does."""
    order: Order = connection.recv()
    assert order.info is not None
    height, width = order.size
    first: int | None = None
    with _limit(OPEN_LIMIT_S):
        link = _Relay(order) if order.relay else _Direct(order)
    with link:
        writer = Writer(link.container, order.encoder, order.info, None)
        with _limit(OPEN_LIMIT_S):
            writer.start(height, width)
        connection.send(link.state())
        while (times := connection.recv()) is not None:
            pts, duration, matrix = times
            # Not `recv_bytes_into`: it gathers the pixels elsewhere first.
            picture = _picture(connection.recv_bytes(), height, width, matrix)
            first = pts if first is None else first
            frame = Frame(0, pts - first, order.info.time_base, picture, duration=duration)
            frame.picture = picture
            with _limit(SEND_LIMIT_S):
                writer.write(frame)
            connection.send(link.state())
        with _limit(SEND_LIMIT_S):
            if first is not None:
                writer.finish()
            link.finish()
    connection.send(SENT)


def _picture(data: bytes, height: int, width: int, matrix: Matrix | None) -> Any:
    flat = np.frombuffer(data, np.uint8)
    if matrix is None:
        return flat.reshape(height, width, 3)
    planes = Planes.blank(height, width, matrix)
    at = 0
    for plane in (planes.y, planes.u, planes.v):
        np.copyto(plane, flat[at : at + plane.size].reshape(plane.shape))
        at += plane.size
    return planes


class _Direct:
    """PyAV sends by itself."""

    def __init__(self, order: Order) -> None:
        self.container: Any = av.open(
            order.url, "w", format=order.container, container_options=order.options
        )

    def __enter__(self) -> _Direct:
        return self

    def __exit__(self, *error: object) -> None:
        pass  # after an error the process ends, and with it the connection

    def state(self) -> bool:
        return SENT  # writing the header has connected

    def finish(self) -> None:
        self.container.close()


class _Relay:
    """A program sends on what it is given; that it has connected can be read from its log."""

    def __init__(self, order: Order) -> None:
        self._process = subprocess.Popen(
            order.relay, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        assert self._process.stdin is not None
        assert self._process.stderr is not None
        self._connected = threading.Event()
        self._last = ""
        self._reader = threading.Thread(target=self._read, args=(self._process.stderr,))
        self._reader.start()
        self.container: Any = av.open(
            self._process.stdin, "w", format=order.container,
            container_options={**order.options, "flush_packets": "1"},
        )  # fmt: skip

    def _read(self, log: IO[bytes]) -> None:
        for line in log:
            text = line.decode(errors="replace").strip()
            if text.startswith("Output #0"):
                self._connected.set()
            self._last = text or self._last

    def __enter__(self) -> _Relay:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        with suppress(OSError):
            self._process.stdin.close()  # type: ignore[union-attr]
        if error is not None:
            self._process.kill()
        self._process.wait()
        self._reader.join()
        if isinstance(error, (OSError, av.error.FFmpegError)):
            # That the pipe is broken is not why.
            raise RuntimeError(self._last or str(error)) from error

    def state(self) -> bool:
        return SENT if self._connected.is_set() else WAITING

    def finish(self) -> None:
        self.container.close()
        self._process.stdin.close()  # type: ignore[union-attr]
        if self._process.wait():
            raise OSError(errno.EPIPE, self._last)


@contextmanager
def _limit(seconds: int) -> Iterator[None]:
    """Ends this process if the block takes longer: FFmpeg lets nothing else through."""
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def explain(error: Exception) -> str:
    """One line of what a system, FFmpeg or its program said."""
    if isinstance(error, (OSError, av.error.FFmpegError)) and error.strerror:
        return str(error.strerror)
    return " ".join(str(error).split()) or type(error).__name__


if __name__ == "__main__":
    main()
