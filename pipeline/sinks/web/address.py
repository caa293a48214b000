"""Where the page is: HOST:PORT, the token that guards it, and the socket that listens there."""

from __future__ import annotations

import ipaddress
import re
import secrets
import socket
from contextlib import closing
from dataclasses import dataclass

from pipeline.errors import SinkError

_LEAST_TOKEN = 16
# What may wait, sent but not yet read, for one connection, in bytes (the kernel doubles it): with
# more, a slow viewer would see pictures that are long past.
_SEND_BUFFER = 128 * 1024


@dataclass(frozen=True)
class Address:
    """A host, as a name or a number without brackets, and a port."""

    host: str
    port: int

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def parse_address(text: str) -> Address:
    """HOST:PORT, :PORT on this machine alone, or [IPV6]:PORT; raises ValueError."""
    found = re.fullmatch(r"(?:\[([0-9a-fA-F:.%\w]+)\]|([\w.-]*)):([0-9]{1,5})", text)
    if not found or int(found[3]) > 65535:
        raise ValueError(
            "should be HOST:PORT, such as :8000 for this machine alone or 0.0.0.0:8000 for every "
            "address that it has"
        )
    return Address(found[1] or found[2] or "127.0.0.1", int(found[3]))


def choose_token(address: Address, given: str | None) -> str | None:
    """The token that viewers must show: the one given, else a new one where others can reach the
    page; None where nobody needs one.
    """
    if given:
        if len(given) < _LEAST_TOKEN or not re.fullmatch(r"[!-~]+", given):
            raise SinkError(
                f"the web token is too weak: it takes {_LEAST_TOKEN} or more printable ASCII "
                "characters without spaces; without one given, one is made up"
            )
        return given
    return None if address.is_local else secrets.token_urlsafe(24)


def listen(address: Address) -> socket.socket:
    """A socket bound there, not yet listening; raises SinkError."""
    where = _display(address.host, address.port)
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError:
        raise SinkError(f"--web {where}: this machine knows no host of that name") from None
    family, _, _, _, name = sorted(found)[0]  # IPv4 first
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A port of a run that has just ended can be had again at once; not one that is in use.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        bound.bind(name)
        # Linux lets two sockets bind with SO_REUSEADDR; only listening tells that it is taken.
        bound.listen(128)
    except OSError as error:
        bound.close()
        reason = (error.strerror or str(error)).lower()
        raise SinkError(
            f"--web {where}: {reason}; another port may be free (:0 finds one)"
        ) from None
    return bound


def page_url(address: Address, port: int, token: str | None) -> str:
    """What to open, with the token in it, from another machine where one can reach it."""
    host = address.host
    if host in ("0.0.0.0", "::"):
        host = _own_address() or host
    query = f"?token={token}" if token else ""
    return f"http://{_display(host, port)}/{query}"


def _display(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _own_address() -> str | None:
    """The address from which this machine would reach others on its network."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # RFC 5737: nobody's; and UDP sends nothing to connect
        except OSError:
            return None
        return str(probe.getsockname()[0])
