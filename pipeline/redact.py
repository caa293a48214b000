"""Addresses as they may be printed: without what lets others in."""

from __future__ import annotations

import re

_USER = re.compile(r"(?<=://)[^/@\s]+@")

# What comes after these names in an address is a secret.
_SECRET = re.compile(
    r"([?&][^=&#\s]*(?:pass|pwd|secret|token|key|auth|sig|streamid|user|login)[^=&#\s]*=)[^&#\s'\"]+",
    re.IGNORECASE,
)

# RTMP services know their customer by the last part of the path, the stream key.
_STREAM_KEY = re.compile(r"(rtmp[a-z]*://[^/\s]+/[^\s?'\"]+/)[^/\s?'\"]+", re.IGNORECASE)


def redact(text: str) -> str:
    """`text` with user names, passwords, keys and tokens of the addresses in it as `***`."""
    text = _USER.sub("***@", text)
    text = _SECRET.sub(r"\1***", text)
    return _STREAM_KEY.sub(r"\1***", text)
