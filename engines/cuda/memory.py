"""Memory on both sides of the bus, with an owner."""

# mypy: disable-error-code="import-not-found, import-untyped, unused-ignore"

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np


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
