"""How each kind of stream is sent: its container, its options, and who sends it."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass, field

import av
import av.error
import av.format

from pipeline.errors import SinkError
from pipeline.sources.live.address import redact

_UDP_PACKET = 1316  # 7 MPEG-TS packets of 188 bytes, what fits into an Ethernet frame


@dataclass(frozen=True)
class Protocol:
    """One way to send."""

    name: str
    container: str
    """FFmpeg's name of the format."""
    options: dict[str, str] = field(default_factory=dict)
    program: str = ""
    """The ffmpeg program, where PyAV's own library has not this protocol."""

    def relay(self, url: str) -> list[str]:
        """The command that sends MPEG-TS from its standard input to `url`; empty if PyAV does."""
        if not self.program:
            return []
        # Nothing is looked at for longer than it takes to find the one stream.
        read = ["-fflags", "nobuffer", "-probesize", "32768", "-analyzeduration", "0"]
        command = [self.program, "-hide_banner", "-nostdin", "-nostats", "-loglevel", "info"]
        write = ["-c", "copy", "-f", "mpegts", "-flush_packets", "1", url]
        return [*command, *read, "-f", "mpegts", "-i", "pipe:0", *write]


_RTMP = Protocol("rtmp", "flv", {"flvflags": "no_duration_filesize"})
_MPEGTS = {
    # Tables a few times a second: who tunes in waits for them.
    "pat_period": "0.25",
    "sdt_period": "1",
    "flush_packets": "1",
}
_PROTOCOLS = {
    # Over TCP: one connection through every firewall, and nothing arrives in pieces.
    "rtsp": Protocol("rtsp", "rtsp", {"rtsp_transport": "tcp"}),
    "rtmp": _RTMP,
    "rtmps": _RTMP,
    "udp": Protocol("udp", "mpegts", _MPEGTS),
    "srt": Protocol("srt", "mpegts", _MPEGTS),
}

# RTMP services know their customer by the last part of the path, the stream key.
_STREAM_KEY = re.compile(r"(rtmps?://[^/\s]+/[^\s?'\"]+/)[^/?\s'\"]+", re.IGNORECASE)


def without_secrets(text: str) -> str:
    """`text` with what lets others send in its addresses as ***."""
    return _STREAM_KEY.sub(r"\1***", redact(text))


def is_stream(target: str) -> bool:
    """Whether an output is an address and not a file."""
    return re.match(r"[a-z][a-z0-9+.-]*://", target, re.IGNORECASE) is not None


def find_protocol(url: str) -> Protocol:
    """How to send to `url`. Raises SinkError with what is allowed, or what must be installed."""
    scheme = url.split("://")[0].lower()
    protocol = _PROTOCOLS.get(scheme)
    if protocol is None:
        raise SinkError(
            f"{without_secrets(url)}: nothing is sent by {scheme}; allowed: "
            f"{', '.join(f'{name}://' for name in _PROTOCOLS)}, an HLS playlist (.m3u8) or a file"
        )
    rest = url.split("://", 1)[1]
    host = re.match(r"(?:[^/?#]*@)?(\[[^\]]*\]|[^:/?#]*)(?::(\d+))?(?=[/?#]|$)", rest)
    if host is None or (not host[1] and scheme != "srt"):
        raise SinkError(
            f"{without_secrets(url)}: no receiver is named; write {scheme}://HOST:PORT/..."
        )
    if scheme in ("udp", "srt") and not host[2]:
        raise SinkError(f"{without_secrets(url)}: no port is named; write {scheme}://HOST:PORT")
    if scheme != "srt" or _pyav_has_srt():
        return protocol
    program = shutil.which("ffmpeg")
    if program is None or not _has_srt(program):
        found = "there is no ffmpeg program here" if program is None else f"{program} lacks SRT"
        raise SinkError(
            f"{without_secrets(url)}: SRT needs the ffmpeg program with libsrt, and {found}; "
            "install it (apt install ffmpeg, brew install ffmpeg), or send by rtsp:// or rtmp://"
        )
    return Protocol(protocol.name, protocol.container, protocol.options, program)


def _pyav_has_srt() -> bool:
    """PyAV's own wheels have no SRT; one that is built against a system's FFmpeg may."""
    try:
        # Refused or unreachable, but known: nothing listens at port 0.
        av.open("srt://127.0.0.1:0?mode=caller&connect_timeout=1", "r").close()
    except av.error.ProtocolNotFoundError:
        return False
    except (OSError, av.error.FFmpegError):
        return True
    return True


def _has_srt(program: str) -> bool:
    try:
        done = subprocess.run(
            [program, "-hide_banner", "-protocols"],
            capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return False
    return "srt" in done.stdout.split("Output:")[-1].split()
