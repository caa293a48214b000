"""Still images: one, a folder of them, or those that match a pattern."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from pipeline.errors import SourceError
from pipeline.frame import Frame, Image
from pipeline.sources.info import AudioTap, SourceInfo

IMAGE_SUFFIXES = frozenset(
    f".{name}" for name in (
        "avif", "bmp", "jp2", "jpe", "jpeg", "jpg", "pbm", "pgm", "png", "pnm", "ppm", "tif",
        "tiff", "webp",
    )
)  # fmt: skip


def natural_order(paths: Iterable[Path]) -> list[Path]:
    """Sorted as people count: frame2 before frame10."""

    def key(path: Path) -> tuple[list[tuple[bool, int, str]], str]:
        parts = re.split(r"(\d+)", str(path).casefold())
        numbered = [(p.isdecimal(), int(p) if p.isdecimal() else 0, p) for p in parts]
        return [(not n, v, "" if n else p) for n, v, p in numbered], str(path)

    return sorted(paths, key=key)


def read_image(path: Path) -> Image:
    """uint8 (H, W, 3) RGB, turned upright by its EXIF; alpha is dropped, 16 bits become 8.

    Raises SourceError.
    """
    try:
        data = np.fromfile(path, np.uint8)  # not imread: it cannot open every name on Windows
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from None
    if not data.size:
        raise SourceError(f"{path} is empty (0 bytes)")
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    except cv2.error:
        image = None
    if image is None:
        raise SourceError(f"{path} is not an image that can be decoded")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB, image), np.uint8)


class ImageSource:
    """Images in the given order, one frame each, `fps` to the second.

    In a folder an undecodable image is counted as lost and passed over; one by itself is an error.
    """

    live = False

    def __init__(
        self, name: str, paths: list[Path], *, fps: float = 25.0, max_frames: int | None = None
    ) -> None:
        self.name = name
        self.lost: dict[str, int] = {}
        self._paths = paths[:max_frames]
        self._time_base = 1 / Fraction(fps).limit_denominator(1001)
        first = self._first_readable()
        self.info = SourceInfo(
            width=first.shape[1],
            height=first.shape[0],
            time_base=self._time_base,
            rate=1 / self._time_base,
            frames=len(self._paths),
            codec=paths[0].suffix.lower().lstrip("."),
        )

    def tap_audio(self) -> AudioTap | None:
        """Stills have no audio."""
        return None

    def frames(self) -> Iterator[Frame]:
        """All frames, once."""
        index = 0
        for position, path in enumerate(self._paths):
            try:
                image = read_image(path)
            except SourceError:
                self.lost["undecodable"] = self.lost.get("undecodable", 0) + 1
                continue
            yield Frame(
                index=index,
                pts=position,
                time_base=self._time_base,
                image=image,
                captured_at=time.perf_counter(),
                duration=1,
                name=path.stem,
            )
            index += 1

    def close(self) -> None:
        """Nothing is open between two images."""

    def _first_readable(self) -> Image:
        error: SourceError | None = None
        for path in self._paths:
            try:
                return read_image(path)
            except SourceError as caught:
                error = error or caught
        raise error or SourceError(f"{self.name} holds no images")
