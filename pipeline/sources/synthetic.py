"""Pictures made up on the spot, each carrying its number: for tests and for measuring."""

from __future__ import annotations

import time
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from itertools import pairwise

import numpy as np

from pipeline.frame import Frame, Image
from pipeline.sources.info import AudioTap, SourceInfo

_BITS = 16


class SyntheticSource:
    """`count` numbered frames of (height, width), without the cost of a decoder.

    A few pictures are made beforehand and each frame gets a copy with its number drawn in. With
    `paced` it is live, as a camera is: frame i is due i / `fps` seconds after the first, comes no
    sooner, and was captured when it was due.
    """

    def __init__(
        self,
        height: int = 720,
        width: int = 1280,
        count: int = 300,
        fps: int | Fraction = 30,
        paced: bool = False,
    ) -> None:
        self.name = f"synthetic {width}x{height}"
        self.live = paced
        self.lost: dict[str, int] = {}
        self.behind_s = 0.0
        """How late a paced source was with its latest frame, because making it takes longer than
        the rate allows or because nobody let it run."""
        self._count = count
        self.info = SourceInfo(
            width=width,
            height=height,
            time_base=1 / Fraction(fps),
            rate=Fraction(fps),
            frames=count,
        )

    def tap_audio(self) -> AudioTap | None:
        """There is no audio."""
        return None

    def frames(self) -> Iterator[Frame]:
        """All frames, once."""
        pictures = [self._picture(i) for i in range(8)]
        begun, period_s = time.perf_counter(), float(self.info.time_base)
        for index in range(self._count):
            image = pictures[index % len(pictures)].copy()
            draw_number(image, index)
            captured_at = time.perf_counter()
            if self.live:
                due = begun + index * period_s
                time.sleep(max(0.0, due - captured_at))
                self.behind_s = max(0.0, time.perf_counter() - due)
                captured_at = due
            yield Frame(
                index=index,
                pts=index,
                time_base=self.info.time_base,
                image=image,
                captured_at=captured_at,
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
    row = _blocks(w, 0, number & 255) + _blocks(w, 8, number >> 8 & 255)
    image[: h // 8] = np.frombuffer(row, np.uint8).reshape(w, 3)


@cache
def _blocks(width: int, first: int, byte: int) -> bytes:
    """The part of a row that shows eight bits, the picture's from `first` on."""
    ends = [bit * width // _BITS for bit in range(first, first + 9)]
    sizes = [3 * (end - begin) for begin, end in pairwise(ends)]
    return b"".join(b"\0\xff"[byte >> i & 1 :][:1] * size for i, size in enumerate(sizes))


def read_number(image: Image) -> int:
    """The number that `draw_number` wrote, from the middles of the blocks."""
    h, w = image.shape[:2]
    row = image[h // 16]
    middles = [(2 * bit + 1) * w // (2 * _BITS) for bit in range(_BITS)]
    return sum(1 << bit for bit, x in enumerate(middles) if int(row[x].mean()) > 127)
