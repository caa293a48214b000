"""Memory on both sides of the bus, with an owner."""

# mypy: disable-error-code="import-not-found, import-untyped, unused-ignore"

from __future__ import annotations

from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from engines.cuda.picture import Placed


class Staging:
    """A pinned host array and device memory of the same size; `free` gives both back.

    Pinned, because only then does a copy run beside kernels. Made, used and freed while the
    device's context is current. `host` is uint8 of the given shape; `count` in the copies is how
    many entries of its first axis go.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        import pycuda.driver as cuda

        self.host: Any = cuda.pagelocked_empty(shape, np.uint8)
        try:
            self.device: Any = cuda.mem_alloc(self.host.nbytes)
        except BaseException:
            self.host.base.free()
            raise

    @property
    def address(self) -> int:
        """The device memory's address."""
        return int(self.device)

    def upload(self, count: int, stream: Any) -> None:
        """Starts copying to the device."""
        import pycuda.driver as cuda

        cuda.memcpy_htod_async(self.device, self.host[:count], stream)

    def download(self, count: int, stream: Any) -> None:
        """Starts copying to the host."""
        import pycuda.driver as cuda

        cuda.memcpy_dtoh_async(self.host[:count], self.device, stream)

    def free(self) -> None:
        """Frees both; after an error that killed the context there is nothing left to free."""
        import pycuda.driver as cuda

        for owner in (self.device, self.host.base):
            with suppress(cuda.Error):
                owner.free()
        self.device = self.host = None


def copy_on_card(source: Placed, target: Placed, stream: Any) -> None:
    """Starts copying a picture from one place on the card to another; both of one format and size.

    Rows may lie further apart in one than in the other.
    """
    import pycuda.driver as cuda

    for one, two in zip(_planes(source), _planes(target), strict=True):
        copy = cuda.Memcpy2D()
        copy.set_src_device(one.address)
        copy.set_dst_device(two.address)
        copy.src_pitch, copy.dst_pitch = one.pitch, two.pitch
        copy.width_in_bytes, copy.height = one.width, one.height
        copy(stream)


class _Plane(NamedTuple):
    """Rows on the card; bytes."""

    address: int
    pitch: int
    width: int
    height: int


def _planes(picture: Placed) -> list[_Plane]:
    layout, chroma = picture.layout, picture.chroma_address
    half, pitch = layout.height // 2, layout.chroma_pitch
    if layout.format == "rgb24":
        return [_Plane(picture.address, layout.pitch, 3 * layout.width, layout.height)]
    luma = _Plane(picture.address, layout.pitch, layout.width, layout.height)
    if layout.format == "nv12":
        return [luma, _Plane(chroma, pitch, layout.width, half)]
    width = layout.width // 2
    return [luma, *(_Plane(at, pitch, width, half) for at in (chroma, chroma + layout.u_to_v))]
