"""From an address to a source: what is asked for is checked here before anything is opened."""

from __future__ import annotations

import os
from collections.abc import Callable

from pipeline.errors import SourceError
from pipeline.sources.live.address import Address
from pipeline.sources.live.bridge import missing_bridge
from pipeline.sources.live.options import LiveOptions
from pipeline.sources.live.source import LiveSource


def open_live(
    address: Address,
    options: LiveOptions | None = None,
    *,
    max_frames: int | None = None,
    duration_s: float | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> LiveSource:
    """Opens a network stream or a camera. Raises SourceError."""
    if os.name != "posix":
        raise SourceError(f"{address.shown}: live sources are read on Linux and macOS only")
    options = options or LiveOptions()
    mode: dict[str, str] = {}
    if address.kind == "srt" and (missing := missing_bridge()) is not None:
        raise SourceError(f"{address.shown}: {missing}")
    if address.kind == "camera":
        from pipeline.sources.live.camera import choose_mode

        mode = choose_mode(address, options.camera_size, options.camera_fps, say)
    return LiveSource(
        address, options, max_frames=max_frames, duration_s=duration_s, mode=mode, say=say
    )
