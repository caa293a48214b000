"""What a user may say about how a live source is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Transport = Literal["auto", "tcp", "udp"]


@dataclass(frozen=True)
class LiveOptions:
    """How to open, to watch and to reconnect."""

    reconnect: str = "auto"
    """`never`; a number of attempts in a row; `forever`, also at the start; or `auto`: forever, but
    a source that is down at the start is an error."""
    open_timeout_s: float = 10.0
    """How long opening may take, to the first picture."""
    stall_timeout_s: float | None = None
    """How long nothing may come before the link counts as broken; None takes what the kind asks."""
    rtsp_transport: Transport = "auto"
    """`auto` is TCP, and UDP where the server refuses that."""
    camera_size: tuple[int, int] | None = None
    """(H, W) of a camera's picture; None takes the largest that reaches the rate."""
    camera_fps: float | None = None
    """Frames a second of a camera."""

    def attempts(self, at_start: bool) -> int | None:
        """How often to try, in a row, after the first failure; None is for ever."""
        if self.reconnect == "forever" or (self.reconnect == "auto" and not at_start):
            return None
        if self.reconnect in ("never", "auto"):
            return 0
        return int(self.reconnect)
