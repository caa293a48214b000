"""Pictures in memory that the reader and its parent have both mapped."""

from __future__ import annotations

import mmap

import numpy as np
from numpy.typing import NDArray

from pipeline.frame import Image
from pipeline.planes import Matrix, Planes

SLOTS = 3
"""One is being written, one read, one on its way."""


def slots_size(height: int, width: int) -> int:
    """Bytes of all slots together."""
    return SLOTS * 3 * height * width


class Slots:
    """Room for a few pictures of (height, width), as RGB or as planes of YUV 4:2:0.

    `memory` is a descriptor of a file of `slots_size` bytes. Both sides see the same; who may write
    into a slot is a matter of the messages between them.
    """

    def __init__(self, memory: int, height: int, width: int) -> None:
        self.shape = (height, width)
        self._map = mmap.mmap(memory, slots_size(height, width))
        size = 3 * height * width
        self._slots: list[NDArray[np.uint8]] = [
            np.frombuffer(self._map, np.uint8, size, i * size) for i in range(SLOTS)
        ]

    def write(self, slot: int, picture: Image | Planes) -> int | None:
        """Copies a picture in; returns what `read` must be told: its matrix, None for RGB."""
        if isinstance(picture, Planes):
            for view, plane in zip(
                self._planes(slot), (picture.y, picture.u, picture.v), strict=True
            ):
                np.copyto(view, plane)
            return int(picture.matrix)
        np.copyto(self._slots[slot].reshape(*self.shape, 3), picture)
        return None

    def read(self, slot: int, matrix: int | None) -> Image | Planes:
        """A copy of the picture in a slot."""
        if matrix is None:
            image: Image = self._slots[slot].reshape(*self.shape, 3).copy()
            return image
        planes = Planes.blank(*self.shape, Matrix(matrix))
        for view, plane in zip(self._planes(slot), (planes.y, planes.u, planes.v), strict=True):
            np.copyto(plane, view)
        return planes

    def close(self) -> None:
        self._slots.clear()
        self._map.close()

    def _planes(self, slot: int) -> list[NDArray[np.uint8]]:
        h, w = self.shape
        luma, chroma, flat = h * w, h * w // 4, self._slots[slot]
        u, v = flat[luma : luma + chroma], flat[luma + chroma : luma + 2 * chroma]
        return [flat[:luma].reshape(h, w), *(c.reshape(h // 2, w // 2) for c in (u, v))]
