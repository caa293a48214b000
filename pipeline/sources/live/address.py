"""What a user names as a live source: which kind it is, and how it may be shown."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from pipeline.errors import SourceError

Kind = Literal["rtsp", "rtmp", "http", "udp", "srt", "camera"]

_KINDS: dict[str, Kind] = {
    "rtsp": "rtsp",
    "rtsps": "rtsp",
    "rtmp": "rtmp",
    "rtmps": "rtmp",
    "http": "http",
    "https": "http",
    "udp": "udp",
    "srt": "srt",
}
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
# The last @ before the path ends the credentials: passwords hold others. One with a / is no valid
# URL, and is not to be printed for that.
_USER = re.compile(r"(?<=://)(?:[^/?#\s]*[^/?#\s@]@|(?!\[)[^/?#\s@:]*:(?!\d*(?:[/?#\s]|$))\S*@)")
_SECRET = re.compile(
    r"(?<=[?&])([^=&\s]*(?:pass|pwd|secret|token|key|sig|auth|user)[^=&\s]*)=[^&#\s'\"]*",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Address:
    """A live source by its kind. Only `shown` may be printed."""

    kind: Kind
    url: str = field(repr=False)
    """What FFmpeg is given, credentials included; of a camera the path of its device."""
    shown: str


def parse_address(text: str) -> Address | None:
    """The live source that a user means; None where it is none (a file or a folder).

    Raises SourceError for a URL that is not read.
    """
    if re.fullmatch(r"\d{1,3}", text):
        return Address("camera", f"/dev/video{text}", f"camera {text}")
    if re.fullmatch(r"/dev/(video|v4l/).+", text):
        return Address("camera", text, text)
    found = _SCHEME.match(text)
    if found is None:
        return None
    scheme = found[1].lower()
    if scheme == "file":
        raise SourceError(f"{text}: give the file's path without file://")
    if scheme not in _KINDS:
        raise SourceError(
            f"{scheme} streams are not read; allowed: {', '.join(_KINDS)}, a camera's number, or "
            "a file"
        )
    url = scheme + text[len(scheme) :]
    if not re.match(r"[^/?#]", url[found.end() :]):
        raise SourceError(f"{redact(text)} names no host; expected {scheme}://HOST...")
    return Address(_KINDS[scheme], url, redact(url))


def redact(text: str) -> str:
    """The text with every credential in its URLs replaced by ***: user:password@ and the values of
    parameters such as passphrase= or token=.
    """
    return _SECRET.sub(r"\1=***", _USER.sub("***@", text))
