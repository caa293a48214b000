"""A picture as decoders give it and encoders take it: YUV 4:2:0, 8 bits, in limited range."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, VideoReformatter
from numpy.typing import NDArray

Plane = NDArray[np.uint8]
FORMAT = "yuv420p"

# libswscale/swscale.h; PyAV before version 18 has no name for the second.
_SWS_BILINEAR = 0x2
_SWS_FULL_CHR_H_INT = 0x2000


class Matrix(IntEnum):
    """YUV matrices by the numbers that swscale has for them (SWS_CS_*); not PyAV's names, which
    lack BT.2020 before version 18.
    """

    BT709 = 1
    FCC = 4
    BT601 = 5
    SMPTE240M = 7
    BT2020 = 9


# Kr and Kb of each matrix (ITU-T H.273, table 4).
_WEIGHTS = {
    Matrix.BT709: (0.2126, 0.0722),
    Matrix.FCC: (0.30, 0.11),
    Matrix.BT601: (0.299, 0.114),
    Matrix.SMPTE240M: (0.212, 0.087),
    Matrix.BT2020: (0.2627, 0.0593),
}


class Planes:
    """Luma and, at half its width and height, two planes of chroma; both sides are even.

    What a decoder gave must not be written to: it predicts later pictures from it. `blank` gives a
    picture of one's own.
    """

    __slots__ = ("_rgb", "matrix", "u", "v", "video", "y")

    def __init__(self, video: av.VideoFrame, matrix: Matrix, writeable: bool = False) -> None:
        self.video = video
        """The same memory as FFmpeg knows it, format yuv420p."""
        self.matrix = matrix
        """What Y, U and V mean."""
        self.y, self.u, self.v = (_view(plane, writeable) for plane in video.planes)
        """uint8 (H, W), (H / 2, W / 2), (H / 2, W / 2); rows may be padded."""
        self._rgb: Plane | None = None

    @classmethod
    def blank(cls, height: int, width: int, matrix: Matrix) -> Planes:
        """A picture to be filled in."""
        video = av.VideoFrame(width, height, FORMAT)
        video.colorspace = int(matrix)  # PyAV before version 18 takes BT.2020 from here alone
        return cls(video, matrix, writeable=True)

    def copy(self) -> Planes:
        """The same picture in memory of its own, to be written to."""
        out = Planes.blank(*self.shape, self.matrix)
        for mine, theirs in zip((out.y, out.u, out.v), (self.y, self.u, self.v), strict=True):
            np.copyto(mine, theirs)
        return out

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the picture."""
        return self.y.shape[0], self.y.shape[1]

    @property
    def rgb(self) -> Plane:
        """uint8 (H, W, 3) RGB, converted when it is asked for first; always the same array."""
        if self._rgb is None:
            # A converter for each: threads may ask at once, and its tables cost 30 microseconds.
            self._rgb = to_rgb(VideoReformatter(), self.video, self.matrix, ColorRange.MPEG)
        return self._rgb


def to_rgb(
    reformatter: VideoReformatter, video: av.VideoFrame, matrix: Matrix, color_range: ColorRange
) -> Plane:
    """The pixels of a frame of any format, uint8 (H, W, 3) RGB; rows may be padded."""
    rgb = reformatter.reformat(
        video,
        format="rgb24",
        src_colorspace=matrix,
        dst_colorspace=matrix,
        src_color_range=color_range,
        dst_color_range=ColorRange.JPEG,
        # 8-bit 4:2:0 and 4:2:2, nearly every video, take swscale's fast path all the same:
        # within 3 levels of the exact matrix at a tenth of the time. The rest is exact to 1.
        interpolation=_SWS_BILINEAR | _SWS_FULL_CHR_H_INT,
        threads=1,
    )
    plane: Any = rgb.planes[0]
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
    return rows[: rgb.height, : rgb.width * 3].reshape(rgb.height, rgb.width, 3)


def from_rgb(matrix: Matrix) -> NDArray[np.float32]:
    """(3, 4) that makes Y, U, V of limited range of R, G, B, 1 (H.273, equations 38 to 41)."""
    kr, kb = _WEIGHTS[matrix]
    luma = np.array([kr, 1 - kr - kb, kb])
    blue = (np.array([0, 0, 1]) - luma) / (2 * (1 - kb))
    red = (np.array([1, 0, 0]) - luma) / (2 * (1 - kr))
    scaled = np.stack([219 * luma, 224 * blue, 224 * red]) / 255
    return np.column_stack([scaled, [16, 128, 128]]).astype(np.float32)


def into_rgb(matrix: Matrix) -> NDArray[np.float32]:
    """(3, 4) that makes R, G, B of Y, U, V of limited range, 1: the inverse of `from_rgb`."""
    forth = from_rgb(matrix).astype(np.float64)
    back = np.linalg.inv(forth[:, :3])
    return np.column_stack([back, -back @ forth[:, 3]]).astype(np.float32)


def _view(plane: Any, writeable: bool) -> Plane:
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
    view = rows[: plane.height, : plane.width]
    view.flags.writeable = writeable
    return view
