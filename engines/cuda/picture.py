"""Where pictures lie in a block of memory, and where one lies in the network's input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Format = Literal["rgb24", "yuv420p", "nv12"]


@dataclass(frozen=True)
class Layout:
    """Where the samples of a picture lie in one block of memory, pinned or the device's.

    Of `yuv420p` U and V lie behind Y as planes of half its width and height; of `nv12` behind Y
    lies one plane of half its height in which U and V alternate. Both have even sides.
    """

    format: Format
    height: int
    """Pixels."""
    width: int
    """Pixels."""
    pitch: int = 0
    """Bytes from row to row of the first plane; 0 becomes the least there can be."""

    def __post_init__(self) -> None:
        least = 3 * self.width if self.format == "rgb24" else self.width
        if not self.pitch:
            object.__setattr__(self, "pitch", least)
        if self.height < 1 or self.width < 1 or self.pitch < least:
            raise ValueError(
                f"no {self.format} picture of {self.height}x{self.width} has rows of "
                f"{self.pitch} bytes; they take {least}, and both sides at least one pixel"
            )
        if self.format != "rgb24" and (self.height % 2 or self.width % 2):
            raise ValueError(f"{self.format} of {self.height}x{self.width}: sides must be even")
        if self.format == "yuv420p" and self.pitch % 2:
            raise ValueError(f"the pitch of yuv420p is even, not {self.pitch}")

    @property
    def chroma_pitch(self) -> int:
        """Bytes from row to row of the chroma; 0 where there is none."""
        return {"rgb24": 0, "yuv420p": self.pitch // 2, "nv12": self.pitch}[self.format]

    @property
    def chroma_step(self) -> int:
        """Bytes from sample to sample of U, and of V; 0 where there is none."""
        return {"rgb24": 0, "yuv420p": 1, "nv12": 2}[self.format]

    @property
    def chroma(self) -> int:
        """Bytes from the picture's address to its first sample of U, if there is one."""
        return self.pitch * self.height

    @property
    def u_to_v(self) -> int:
        """Bytes from the first sample of U to that of V; 0 where there is none."""
        return {"rgb24": 0, "yuv420p": self.chroma_pitch * self.height // 2, "nv12": 1}[self.format]

    @property
    def size(self) -> int:
        """Bytes of the whole picture, the padding behind its last rows included."""
        planes = 2 if self.format == "yuv420p" else 1
        return self.chroma + planes * self.chroma_pitch * (self.height // 2)

    def planes(self, buffer: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], ...]:
        """Views of a picture at the start of uint8 (at least `size`,), contiguous.

        rgb24: (H, W, 3). yuv420p: (H, W), (H / 2, W / 2), (H / 2, W / 2). nv12: (H, W) and
        (H / 2, W / 2, 2) of U and V.
        """
        height, width = self.height, self.width
        first = buffer[: self.chroma].reshape(height, self.pitch)
        if self.format == "rgb24":
            return (first[:, : 3 * width].reshape(height, width, 3),)
        luma, half = first[:, :width], (height // 2, width // 2)
        rest = buffer[self.chroma : self.size].reshape(-1, self.chroma_pitch)
        if self.format == "nv12":
            return luma, rest[:, :width].reshape(*half, 2)
        return luma, rest[: half[0], : half[1]], rest[half[0] :, : half[1]]


@dataclass(frozen=True)
class Placed:
    """A picture in the device's memory."""

    layout: Layout
    address: int
    """Of its first sample."""
    chroma: int = 0
    """Address of the first sample of U where the chroma does not lie right behind the luma, as in
    surfaces that decoders give; 0 where it does."""

    @property
    def chroma_address(self) -> int:
        """Of the first sample of U; 0 of a picture that has none."""
        if self.layout.format == "rgb24":
            return 0
        return self.chroma or self.address + self.layout.chroma


@dataclass(frozen=True)
class NetworkInput:
    """The network's input, and where the picture lies in it; pixels."""

    height: int
    width: int
    top: int
    """Rows above the picture."""
    left: int
    """Columns left of the picture."""
    inner_height: int
    """Rows of the picture as the network sees it."""
    inner_width: int
    fill: tuple[int, int, int]
    """RGB of what surrounds the picture."""
    area: bool = False
    """Pictures are averaged over each pixel's area, not interpolated bilinearly."""

    def __post_init__(self) -> None:
        fits = 0 <= self.top <= self.height - self.inner_height
        fits = fits and 0 <= self.left <= self.width - self.inner_width
        if not fits or min(self.inner_height, self.inner_width) < 1:
            raise ValueError(
                f"a window of {self.inner_height}x{self.inner_width} at ({self.top}, {self.left}) "
                f"is not inside of {self.height}x{self.width}"
            )
