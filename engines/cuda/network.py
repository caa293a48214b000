"""What a lane on the card needs of an engine: its network bound to memory that lies there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from engines.cuda.device import Device
from engines.engine import Engine


class DeviceContext(Protocol):
    """A network for one slot of a lane. Used while the device's context is current."""

    def enqueue(self, count: int, stream: Any) -> None:
        """Starts the network on the first `count` pictures, on a pycuda.driver.Stream."""
        ...

    def capture(self, stream: Any, work: Callable[[], None]) -> Callable[[], None]:
        """Captures what `work` starts on the stream into a graph; returns what replays it there.

        The network must have run once before. Raises CaptureError, and leaves the stream usable.
        """
        ...

    def free(self) -> None:
        """Frees the context and its graphs; nothing of them runs any more."""
        ...


@runtime_checkable
class DeviceEngine(Engine, Protocol):
    """An engine that lanes can run on."""

    device: Device

    def bind(self, pictures: int, labels: int, most: int) -> DeviceContext:
        """The network on device memory: `pictures` is the address of uint8 (most, h, w, 3) RGB,
        `labels` that of uint8 (most, h, w) class ids, (h, w) the card's size.
        """
        ...
