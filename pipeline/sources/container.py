"""Opening video files, and what their containers say about themselves, as far as it is true."""

from __future__ import annotations

import re
import stat
from collections import deque
from pathlib import Path
from typing import Any

import av
import av.error
from av.stream import Disposition

from pipeline.errors import SourceError

# FFmpeg takes any text for a video of a terminal's screen. Nobody means that.
_NOT_VIDEO = {"tty"}


def open_file(path: Path) -> Any:
    """An open av container. Raises SourceError with one line that names the file."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            # Nobody can seek in it, and opening a pipe waits until somebody writes.
            raise SourceError(f"{path} is a pipe or a device, not a file; save it to one first")
        if status.st_size == 0:
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


def video_stream(container: Any, name: str) -> Any:
    """The best video stream that is not a cover picture. Raises SourceError if there is none."""
    covers = Disposition.attached_pic | Disposition.timed_thumbnails
    streams = [s for s in container.streams.video if not s.disposition & covers]
    best = container.streams.best("video")
    if best is not None and best in streams:
        return best
    if streams:
        return streams[0]
    kinds = sorted({s.type for s in container.streams if s.type})
    raise SourceError(f"{name} has no video stream (it has: {', '.join(kinds) or 'nothing'})")


def listed_frames(stream: Any) -> int | None:
    """How many frames the table of an MP4 or MOV lists; None for other containers. Not
    `stream.frames`, which counts those, too, that an edit list leaves out.
    """
    if "mp4" not in stream.container.format.name:
        return None
    return sum(not entry.is_discard for entry in stream.index_entries)


def stated_end_s(container: Any, stream: Any) -> tuple[float, bool] | None:
    """When the last frame ends, in seconds, and whether that is the video's own end (else it is the
    longest stream's); None where the container does not say.
    """
    start = float((stream.start_time or 0) * stream.time_base)
    if container.format.name == "avi" and stream.frames:
        # Its duration is guessed anew from the size of a file that breaks off.
        return float(stream.frames * stream.time_base), True
    if stream.duration:
        return start + float(stream.duration * stream.time_base), True
    matroska = "matroska" in container.format.name  # counts from 0, the others from their start
    # Matroska: "00:00:09.642000000"
    if tag := re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", "")):
        hours, minutes, seconds = (float(part) for part in tag.groups())
        return hours * 3600 + minutes * 60 + seconds, True
    if container.duration:
        begin = 0 if matroska else (container.start_time or 0)
        return (begin + container.duration) / av.time_base, False
    return None


class Clock:
    """The presentation time of each decoded frame, in units of the stream, rising.

    Raw streams have no timestamps, and AVI has only decode times: those, in order, are the times
    at which its frames are shown (the pts that FFmpeg makes of them are late, or in disorder).
    Damaged files step back; encoders and containers need rising times.
    """

    def __init__(self, container: Any, step: int) -> None:
        self._step = step
        self._only_dts = container.format.name == "avi"
        self._dts: deque[int] = deque()
        self._last: int | None = None

    def prepare(self, packet: Any) -> None:
        """To be called with each packet before it is decoded."""
        if self._only_dts and packet.size and packet.dts is not None:
            packet.pts = None
            self._dts.append(packet.dts)

    def skip(self) -> None:
        """A packet could not be decoded."""
        if self._dts:
            self._dts.popleft()

    def time(self, picture: av.VideoFrame) -> int:
        """When `picture`, the next decoded, is shown."""
        pts = self._dts.popleft() if self._dts else picture.pts
        if pts is None:
            pts = picture.dts
        if pts is None:
            pts = 0 if self._last is None else self._last + self._step
        elif self._last is not None and pts <= self._last:
            pts = self._last + 1
        self._last = pts
        return pts
