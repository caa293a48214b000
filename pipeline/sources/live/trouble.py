"""What FFmpeg's errors mean for whoever named the source: one line each that says what to do."""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

import av.error

from pipeline.sources.live.address import Address


@dataclass(frozen=True)
class Trouble:
    """Why a source cannot be opened, or broke."""

    text: str
    final: bool = False
    """Whether trying again cannot help."""


def explain(error: BaseException, address: Address) -> Trouble:
    """What went wrong. FFmpeg's own texts are left out: they hold the URL, credentials and all."""
    if address.kind == "camera":
        return _camera(error)
    if isinstance(error, av.error.HTTPUnauthorizedError):
        scheme = address.shown.split("://")[0]
        return Trouble(
            "user name or password is missing or wrong (401); "
            f"write {scheme}://USER:PASSWORD@HOST...",
            final=True,
        )
    if isinstance(error, av.error.HTTPForbiddenError):
        return Trouble("access is forbidden (403); ask its owner for another user", final=True)
    if isinstance(error, av.error.HTTPNotFoundError):
        return Trouble("there is nothing of this name (404); check the path")
    if isinstance(error, av.error.HTTPError):
        return Trouble(f"the server refuses: {_reason(error)}")
    if isinstance(error, av.error.InvalidDataError):
        return Trouble("what comes is not a video that FFmpeg can read")
    if isinstance(error, av.error.ProtocolNotFoundError):
        scheme = address.shown.split("://")[0]
        return Trouble(f"this build of PyAV does not speak {scheme}", final=True)
    number = getattr(error, "errno", None)
    if number == errno.ECONNREFUSED:
        return Trouble("connection refused: nothing listens there; check host and port")
    if number in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        return Trouble("the host cannot be reached; check the address and the network")
    if number == errno.EADDRINUSE:
        return Trouble("the port is taken by another program")
    if number == errno.EIO and (unknown := _unknown_host(address)) is not None:
        return Trouble(f"no host is called {unknown}; check the name")
    return Trouble(f"the connection broke: {_reason(error)}")


def _reason(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or type(error).__name__)


def _unknown_host(address: Address) -> str | None:
    """The host's name, if it has no address."""
    try:
        host = urlsplit(address.url).hostname
        if host is not None:
            socket.getaddrinfo(host, None)
    except socket.gaierror:
        return host
    except ValueError:
        return None
    return None


def _camera(error: BaseException) -> Trouble:
    number = getattr(error, "errno", None)
    if number in (errno.ENOENT, errno.ENXIO, errno.ENODEV):
        return Trouble("there is no such camera; `v4l2-ctl --list-devices` lists those there are")
    if number == errno.EBUSY:
        return Trouble("another program is using the camera")
    if number in (errno.EACCES, errno.EPERM):
        return Trouble("permission denied; add yourself to the group video", final=True)
    if number in (errno.ENOTTY, errno.EINVAL):
        return Trouble("it is no camera, or does not take the chosen mode", final=True)
    return Trouble(f"the camera failed: {_reason(error)}")
