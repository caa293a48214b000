"""Kernels at work on arrays: up, one launch, down again."""

from __future__ import annotations

import numpy as np

from engines.cuda.device import Device
from engines.cuda.kernels import Kernels, paint_table
from engines.cuda.picture import Layout, NetworkInput, Placed
from pipeline.planes import from_rgb, into_rgb
from pipeline.stages.geometry import fill_color, window


def network_input(height, width, entry):
    where = window(height, width, entry)
    return NetworkInput(
        entry.height,
        entry.width,
        where.top,
        where.left,
        where.height,
        where.width,
        fill_color(entry),
        entry.sampling == "area",
    )


def table_of(colors, painted, share, matrix=None):
    """Of RGB colours, uint8 (256, 3), for RGB pictures or for planes."""
    colors = colors.astype(np.float64)
    if matrix is not None:
        m = from_rgb(matrix).astype(np.float64)
        colors = colors @ m[:, :3].T + m[:, 3]
    flags = np.zeros(256, bool)
    flags[list(painted)] = True
    return paint_table(colors, flags, share)


class HostCard:
    """Memory that is poisoned before a launch, and checked afterwards: every byte of the output is
    written, whatever was there, and none between its rows. HostCuda sees what is written beside it.

    `cuda.module` is pycuda.driver, or what stands in for it.
    """

    def __init__(self, cuda, device: Device) -> None:
        self.cuda = cuda
        self.kernels = Kernels(device)
        self.stream = cuda.module.Stream()
        self._held: list = []

    def free(self) -> None:
        self._wait()
        while self._held:
            self._held.pop()[0].free()

    def _wait(self) -> None:
        self.stream.synchronize()
        error = getattr(self.stream, "error", None)  # the stand-in's: a kernel was called wrongly
        assert error is None, error

    def place(self, layout: Layout, planes=None, chroma_apart=False) -> Placed:
        """A picture of these planes in device memory; without, memory for one."""
        host = np.full(layout.size, 0xEE, np.uint8)
        for view, plane in zip(layout.planes(host), planes or (), strict=False):
            view[:] = plane
        if not chroma_apart:
            return Placed(layout, self.upload(host))
        luma, rest = host[: layout.chroma], host[layout.chroma :]
        return Placed(layout, self.upload(luma), self.upload(rest))

    def upload(self, array) -> int:
        array = np.ascontiguousarray(array)
        memory = self.cuda.module.mem_alloc(array.nbytes)
        self._held.append((memory, array))
        self.cuda.module.memcpy_htod_async(memory, array, self.stream)
        return int(memory)

    def download(self, address: int, size: int) -> np.ndarray:
        array = np.empty(size, np.uint8)
        self.cuda.module.memcpy_dtoh_async(array, address, self.stream)
        self._wait()
        return array

    def resize(self, picture: Placed, network: NetworkInput, matrix=None) -> np.ndarray:
        """uint8 (network height, network width, 3)."""
        numbers = None if matrix is None else into_rgb(matrix).reshape(-1).tolist()
        results = []
        for poison in (0xAA, 0x55):
            out = self.upload(np.full((network.height, network.width, 3), poison, np.uint8))
            self.kernels.resize(self.stream, picture, out, network, numbers)
            results.append(self.download(out, network.height * network.width * 3))
        np.testing.assert_array_equal(*results)
        return results[0].reshape(network.height, network.width, 3)

    def paint(self, picture: Placed, labels, table, layout: Layout, network, line=0):
        """The painted planes, and uint8 (height, width) labels."""
        table = self.upload(table)
        labels = self.upload(labels)
        size, results = layout.height * layout.width, []
        for poison in (0xAA, 0x55):
            out = Placed(layout, self.upload(np.full(layout.size, poison, np.uint8)))
            ids = self.upload(np.full(size, poison, np.uint8))
            self.kernels.paint(self.stream, picture, labels, table, out, ids, network, line)
            got = self.download(out.address, layout.size)
            for view in layout.planes(beside := got.copy()):
                view[:] = poison
            assert (beside == poison).all(), "padding was written to"
            results.append(
                [*(view.copy() for view in layout.planes(got)), self.download(ids, size)]
            )
        for one, other in zip(*results, strict=True):
            np.testing.assert_array_equal(one, other)
        *planes, ids = results[0]
        return planes, ids.reshape(layout.height, layout.width)
