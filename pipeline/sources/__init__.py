"""Where frames come from: `open_source` finds the right kind for what a user names."""

from __future__ import annotations

import glob
import re
from pathlib import Path
from typing import NoReturn

import cv2

from pipeline.errors import SourceError
from pipeline.sources.file import FileSource
from pipeline.sources.images import IMAGE_SUFFIXES, ImageSource, natural_order
from pipeline.sources.info import AudioTap, SourceInfo
from pipeline.sources.synthetic import SyntheticSource

__all__ = [
    "AudioTap",
    "FileSource",
    "ImageSource",
    "SourceInfo",
    "SyntheticSource",
    "open_source",
]

AnySource = FileSource | ImageSource | SyntheticSource


# Videos that begin as an image does.
_MOVING = (".apng", ".gif", ".mjpeg", ".mjpg")


def open_source(
    spec: str | Path,
    *,
    start_s: float = 0.0,
    duration_s: float | None = None,
    max_frames: int | None = None,
    fps: float = 25.0,
) -> FileSource | ImageSource:
    """A video file, a still image, a folder of images or a glob pattern of images, ready to read.

    `start_s` and `duration_s` cut a video; `fps` times still images. Raises SourceError with one
    line that says what was found and what is allowed.
    """
    text = str(spec)
    try:
        images = _find_images(text)
    except PermissionError:
        raise SourceError(f"{text} cannot be read: permission denied") from None
    if images is not None:
        if start_s or duration_s is not None:
            raise SourceError(
                f"start and duration cut videos, and {text} is images; max frames cuts those"
            )
        return ImageSource(text, images, fps=fps, max_frames=max_frames)
    return FileSource(Path(text), start_s=start_s, duration_s=duration_s, max_frames=max_frames)


def _find_images(text: str) -> list[Path] | None:
    """The images that a user means, in order; None where it is a video file."""
    path = Path(text)
    if text.startswith("/dev/video"):
        _explain_missing(text)
    if path.is_dir():
        found = list(path.iterdir())
        none = f"folder {text} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})"
    elif path.exists():
        return [path] if path.is_file() and _is_image(path) else None
    elif any(c in text for c in "*?["):
        found = [Path(p) for p in glob.glob(text, recursive=True)]
        none = f"no images match {text}"
    else:
        _explain_missing(text)
    files = [p for p in found if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()]
    if not files:
        raise SourceError(none)
    return natural_order(files)


def _is_image(path: Path) -> bool:
    """By its name, or, under a name that says nothing, by its first bytes."""
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return True
    return path.suffix.lower() not in _MOVING and bool(cv2.haveImageReader(str(path)))


def _explain_missing(text: str) -> NoReturn:
    if re.match(r"^[a-z][a-z0-9+.-]*://", text, re.IGNORECASE):
        scheme = text.split("://")[0]
        raise SourceError(f"{scheme} streams are not read yet; give a video file, image or folder")
    if text.isdecimal() or text.startswith("/dev/video"):
        raise SourceError("cameras are not read yet; give a video file, an image or a folder")
    raise SourceError(f"no file or folder at {text}")
