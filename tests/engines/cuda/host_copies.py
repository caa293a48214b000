"""Copies of rows on the host's CUDA, and frames of FFmpeg's as memory of its card."""

from __future__ import annotations

import ctypes

import numpy as np


def add_copies(cuda) -> None:
    """PyCUDA's `Memcpy2D` for copies on the card, as its documentation has it. `cuda.copies` has
    (source, target) of each.
    """
    cuda.copies = []

    class Memcpy2D:
        src_pitch = dst_pitch = width_in_bytes = height = 0

        def set_src_device(self, address: int) -> None:
            self._source = address

        def set_dst_device(self, address: int) -> None:
            self._target = address

        def __call__(self, stream) -> None:
            cuda.calls.append("cuMemcpy2DAsync")
            if "cuMemcpy2DAsync" in cuda.failing:
                message = cuda.failing.pop("cuMemcpy2DAsync")
                raise cuda.module.LogicError(f"cuMemcpy2DAsync failed: {message}")
            if not cuda.stack:
                raise cuda.module.LogicError("cuMemcpy2DAsync failed: invalid device context")
            if min(self.src_pitch, self.dst_pitch) < self.width_in_bytes:
                raise cuda.module.LogicError("cuMemcpy2DAsync failed: invalid argument")
            cuda.copies.append((self._source, self._target))
            source, target = (
                self._rows(address, pitch)
                for address, pitch in (
                    (self._source, self.src_pitch),
                    (self._target, self.dst_pitch),
                )
            )
            stream.run(lambda: np.copyto(target, source))

        def _rows(self, address: int, pitch: int) -> np.ndarray:
            width, height = self.width_in_bytes, self.height
            flat = cuda.at(address, (height - 1) * pitch + width)
            return np.lib.stride_tricks.as_strided(flat, (height, width), (pitch, 1))

    cuda.module.Memcpy2D = Memcpy2D


def lend(cuda, picture) -> None:
    """Makes the memory of a `CardPlanes`, which here is the host's, memory of the card."""
    height = picture.shape[0]
    for address, rows in ((picture.address, height), (picture.chroma, height // 2)):
        size = picture.pitch * rows
        memory = (ctypes.c_uint8 * size).from_address(address)
        cuda.memory[address] = np.frombuffer(memory, np.uint8)


def take_back(cuda, picture) -> None:
    """What `lend` made the card's is the host's again."""
    for address in (picture.address, picture.chroma):
        cuda.memory.pop(address, None)
