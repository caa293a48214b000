"""Pictures made up on the spot, each carrying its number: for tests and for measuring."""

from __future__ import annotations

import time
from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from pipeline.frame import Frame, Image
from pipeline.sources.info import AudioTap, SourceInfo

_BITS = 16


class SyntheticSource:
    """`count` numbered frames of (height, width), without the cost of a decoder.

    A few pictures are made beforehand and each frame gets a copy with its number drawn in.
    """

    live = False

    def __init__(
        self, height: int = 720, width: int = 1280, count: int = 300, fps: int = 30
    ) -> None:
        self.name = f"synthetic {width}x{height}"
        self.lost: dict[str, int] = {}
        self._count = count
        self.info = SourceInfo(
            width=width, height=height, time_base=Fraction(1, fps), rate=Fraction(fps), frames=count
        )

    def tap_audio(self) -> AudioTap | None:
        """There is no audio."""
        return None

    def frames(self) -> Iterator[Frame]:
        """All frames, once."""
        pictures = [self._picture(i) for i in range(8)]
        for index in range(self._count):
            image = pictures[index % len(pictures)].copy()
            draw_number(image, index)
            yield Frame(
                index=index,
                pts=index,
                time_base=self.info.time_base,
                image=image,
                captured_at=time.perf_counter(),
                duration=1,
            )

    def close(self) -> None:
        """Nothing is open."""

    def _picture(self, phase: int) -> Image:
        """A gradient that moves with `phase`."""
        h, w = self.info.height, self.info.width
        x = (np.arange(w) * 256 // w + 32 * phase) % 256
        y = np.arange(h) * 256 // h
        image = np.empty((h, w, 3), np.uint8)
        image[..., 0], image[..., 1], image[..., 2] = x, y[:, None], 128
        return image


def draw_number(image: Image, number: int) -> None:
    """Writes 16 bits into the top eighth, in place, as black and white blocks that codecs keep."""
    h, w = image.shape[:2]
    for bit in range(_BITS):
        value = 255 if number >> bit & 1 else 0
        image[: h // 8, bit * w // _BITS : (bit + 1) * w // _BITS] = value


def read_number(image: Image) -> int:
    """The number that `draw_number` wrote, from the middles of the blocks."""
    h, w = image.shape[:2]
    row = image[h // 16]
    middles = [(2 * bit + 1) * w // (2 * _BITS) for bit in range(_BITS)]
    return sum(1 << bit for bit, x in enumerate(middles) if int(row[x].mean()) > 127)
