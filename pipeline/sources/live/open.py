"""Opening a live source with FFmpeg: the options that keep it quick to start and without delay."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import av

from pipeline.sources.live.address import Address
from pipeline.sources.live.bridge import srt_bridge

# What is read at most before the first picture, microseconds of stream: enough for codec and size.
_ANALYZE_US = "1000000"

_OPTIONS: dict[str, dict[str, str]] = {
    # Only pictures are asked for: a camera's sound would be read to be thrown away.
    "rtsp": {"allowed_media_types": "video"},
    "rtmp": {"rtmp_live": "live"},
    # Picked up where it broke off, if the server can (a recording); lives streams are left alone.
    "http": {"reconnect": "1", "reconnect_delay_max": "10", "live_start_index": "-1"},
    # Frames that come faster than they are read must not end the stream.
    "udp": {"overrun_nonfatal": "1", "buffer_size": "1000000"},
    "srt": {},
    "camera": {},
}
_TRANSPORTS = {
    "auto": {"rtsp_flags": "prefer_tcp"},  # UDP where the server refuses TCP
    "tcp": {"rtsp_transport": "tcp"},
    "udp": {"rtsp_transport": "udp"},
}


def ffmpeg_options(address: Address, transport: str, mode: dict[str, str]) -> dict[str, str]:
    """FFmpeg's options for a source; `mode` is a camera's (camera.py)."""
    options = {"analyzeduration": _ANALYZE_US, "fpsprobesize": "0", **_OPTIONS[address.kind]}
    if address.kind == "rtsp":
        options.update(_TRANSPORTS[transport])
    return {**options, **mode}


@contextmanager
def opened(address: Address, options: dict[str, str]) -> Iterator[Any]:
    """The open av container; raises av.error.FFmpegError."""
    if address.kind == "srt":
        with srt_bridge(address) as bridge:
            assert isinstance(bridge, subprocess.Popen)
            with av.open(bridge.stdout, format="mpegts", options=options) as container:
                yield container
        return
    form = "v4l2" if address.kind == "camera" else None
    with av.open(address.url, format=form, options=options) as container:
        yield container
