"""SRT by way of the ffmpeg program: PyAV's wheels do not speak it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import av.error

from pipeline.sources.live.address import Address


def missing_bridge() -> str | None:
    """Why SRT cannot be read here, or None where it can."""
    program = shutil.which("ffmpeg")
    if program is None:
        return "SRT is read through the ffmpeg program, which is not installed; install ffmpeg"
    listed = subprocess.run(
        [program, "-hide_banner", "-protocols"], capture_output=True, text=True, check=False
    )
    if "srt" not in listed.stdout.split():
        return "the ffmpeg program that is installed does not speak SRT; install one with libsrt"
    return None


@contextmanager
def srt_bridge(address: Address) -> Iterator[subprocess.Popen[bytes]]:
    """A process whose stdout is the stream's MPEG-TS, packet for packet.

    The URL, which may hold a passphrase, goes in by stdin as a list with one entry: whoever may
    list processes could read the arguments.
    """
    program = shutil.which("ffmpeg")
    if program is None:
        raise av.error.ProtocolNotFoundError(0, "ffmpeg is not installed")
    quoted = address.url.replace("'", "'\\''")
    words = ["-nostdin", "-hide_banner", "-loglevel", "quiet", "-fflags", "nobuffer"]
    words += ["-analyzeduration", "1000000", "-f", "concat", "-safe", "0"]
    words += ["-protocol_whitelist", "pipe,srt,udp", "-i", "pipe:0", "-map", "0:v:0", "-c", "copy"]
    words += ["-flush_packets", "1", "-muxdelay", "0", "-muxpreload", "0", "-f", "mpegts", "pipe:1"]
    with subprocess.Popen(
        [program, *words],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(f"ffconcat version 1.0\nfile '{quoted}'\n".encode())
        process.stdin.close()
        try:
            yield process
        finally:
            process.kill()
