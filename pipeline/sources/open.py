"""Finds the right kind of source for what a user names."""

from __future__ import annotations

import glob
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import cv2

from pipeline.errors import SourceError
from pipeline.sources.file import FileSource
from pipeline.sources.images import IMAGE_SUFFIXES, ImageSource, natural_order
from pipeline.sources.live.address import parse_address

if TYPE_CHECKING:
    from pipeline.sources.live.options import LiveOptions
    from pipeline.sources.live.source import LiveSource

# Videos that begin as an image does.
_MOVING = (".apng", ".gif", ".mjpeg", ".mjpg")


def open_source(
    spec: str | Path,
    *,
    start_s: float = 0.0,
    duration_s: float | None = None,
    max_frames: int | None = None,
    fps: float = 25.0,
    live: LiveOptions | None = None,
    decode_on: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> FileSource | ImageSource | LiveSource:
    """A video file, a still image, a folder of images, a glob pattern of images, a camera or the
    URL of a stream, ready to read.

    `start_s` and `duration_s` cut a video; `fps` times still images; `live` is how a live source is
    read, and `say` is told when it is lost and when it is back. `decode_on` is CUDA's number of the
    GPU that is to decode a file; what it cannot decode the processor does, and `say` is told why.
    Raises SourceError with one line that says what was found and what is allowed.
    """
    text = str(spec)
    if not Path(text).exists() or text.startswith("/dev/"):
        address = parse_address(text)
        if address is not None:
            if start_s:
                raise SourceError(f"start cuts video files; {address.shown} begins when it is read")
            if decode_on is not None:
                raise SourceError(f"GPUs decode video files here; {address.shown} is live")
            from pipeline.sources.live.enter import open_live

            return open_live(address, live, max_frames=max_frames, duration_s=duration_s, say=say)
    try:
        images = _find_images(text)
    except PermissionError:
        raise SourceError(f"{text} cannot be read: permission denied") from None
    if images is not None:
        if start_s or duration_s is not None:
            raise SourceError(
                f"start and duration cut videos, and {text} is images; max frames cuts those"
            )
        if decode_on is not None:
            raise SourceError(f"GPUs decode video files here, and {text} is images")
        return ImageSource(text, images, fps=fps, max_frames=max_frames)
    return FileSource(
        Path(text),
        start_s=start_s,
        duration_s=duration_s,
        max_frames=max_frames,
        decode_on=decode_on,
        say=say,
    )


def open_recorded(spec: str | Path) -> FileSource | ImageSource | LiveSource:
    """As `open_source`, for what must come to an end. Raises SourceError for a live source."""
    source = open_source(spec)
    if source.live:
        source.close()
        raise SourceError(f"{source.name} is live and has no end; give a recording")
    return source


def _find_images(text: str) -> list[Path] | None:
    """The images that a user means, in order; None where it is a video file."""
    path = Path(text)
    if path.is_dir():
        found = list(path.iterdir())
        none = f"folder {text} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})"
    elif path.exists():
        return [path] if path.is_file() and _is_image(path) else None
    elif any(c in text for c in "*?["):
        found = [Path(p) for p in glob.glob(text, recursive=True)]
        none = f"no images match {text}"
    else:
        raise SourceError(f"no file or folder at {text}")
    files = [p for p in found if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()]
    if not files:
        raise SourceError(none)
    return natural_order(files)


def _is_image(path: Path) -> bool:
    """By its name, or, under a name that says nothing, by its first bytes."""
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return True
    return path.suffix.lower() not in _MOVING and bool(cv2.haveImageReader(str(path)))
