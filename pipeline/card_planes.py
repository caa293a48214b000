"""A picture on an NVIDIA card, as FFmpeg's decoder leaves it there and its encoder takes it."""

from __future__ import annotations

from typing import Any, Literal

import av
from av.video.reformatter import ColorRange

from pipeline.planes import FORMAT, Matrix, Planes

CARD_FORMAT = "cuda"
"""FFmpeg's name for the format of a frame whose samples lie on a card."""
CARD_SAMPLES: Literal["nv12"] = "nv12"
"""Of such a frame's samples: 8-bit 4:2:0 with U and V alternating in one plane."""


def has_card_frames() -> bool:
    """Whether PyAV's frames tell the format of samples on a card, and its encoders take them."""
    return int(av.__version__.split(".")[0]) >= 18


class CardPlanes(Planes):
    """Planes that lie on a card as NV12. `y`, `u`, `v`, `rgb` and `copy` read as those of any other
    planes, from a copy on the host that is made when somebody asks for one of them first.

    The memory is FFmpeg's, one block a frame, and this frame's alone: FFmpeg copies what it decodes
    out of the decoder's own surfaces (libavcodec/nvdec.c). So it may be painted in place, and it
    goes back to FFmpeg's pool when the last holder, such as an encoder, lets go of `video`.
    """

    __slots__ = ("_host", "address", "chroma", "pitch")

    def __init__(self, video: av.VideoFrame, matrix: Matrix) -> None:
        luma, chroma = video.planes
        if luma.line_size != chroma.line_size:
            raise ValueError(f"rows of {luma.line_size} and of {chroma.line_size} bytes")
        self.video, self.matrix = video, matrix
        self.address: int = luma.buffer_ptr
        """Of the first sample of luma, in the card's memory."""
        self.chroma: int = chroma.buffer_ptr
        """Of the first sample of U."""
        self.pitch: int = luma.line_size
        """Bytes from row to row, of both planes."""
        self._host: Planes | None = None

    def __getattr__(self, name: str) -> Any:
        """`y`, `u` and `v`, which are never set here."""
        if name not in ("y", "u", "v"):
            raise AttributeError(name)
        return getattr(self.host, name)

    @property
    def host(self) -> Planes:
        """The picture in the host's memory; always the same copy, which may be written to."""
        if self._host is None:
            video = self.video.reformat(
                format=FORMAT,
                # The same at both ends: samples are put in another order and not changed.
                src_colorspace=self.matrix,
                dst_colorspace=self.matrix,
                src_color_range=ColorRange.MPEG,
                dst_color_range=ColorRange.MPEG,
                threads=1,
            )
            self._host = Planes(video, self.matrix, writeable=True)
        return self._host

    @property
    def gpu(self) -> int:
        """CUDA's number of the card."""
        return int(self.video.planes[0].__dlpack_device__()[1])

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the picture."""
        return self.video.height, self.video.width

    @property
    def rgb(self) -> Any:
        """uint8 (H, W, 3) RGB; always the same array."""
        return self.host.rgb
