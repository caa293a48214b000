"""A client's connection that cannot be held for ever: what uvicorn's own lacks."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from pipeline.sinks.web.refusals import Refusals

MAX_CONNECTIONS = 128
MAX_HEADERS = 16 * 1024
_HEADERS_S = 10.0
_STALL_S = 20.0
_END_S = 0.5


class Connection(H11Protocol):
    """Ends, without waiting for its client: one too many, one whose request does not come to the
    end of its headers, and one that does not take what it asked for.
    """

    refuse: Refusals

    _waiting: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            self._abort("too many connections")
            return
        self._expect()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._expect()  # part of a request; with the first bytes uvicorn stops its own clock
        else:
            _stop(self._waiting)
            self._waiting = None

    def connection_lost(self, exc: Exception | None) -> None:
        _stop(self._waiting)
        _stop(self._stalled)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(_STALL_S, self._abort, "a client that takes nothing")

    def resume_writing(self) -> None:
        super().resume_writing()
        _stop(self._stalled)

    def send_400_response(self, msg: str) -> None:
        self.refuse("malformed request", self._client)
        super().send_400_response(msg)

    def shutdown(self) -> None:
        """The run has ended: what is not sent in a moment is not sent."""
        super().shutdown()
        self.loop.call_later(_END_S, self.transport.abort)

    def _expect(self) -> None:
        if self._waiting is None:
            self._waiting = self.loop.call_later(_HEADERS_S, self._abort, "a request without end")

    def _abort(self, reason: str) -> None:
        self.refuse(reason, self._client)
        self.transport.abort()

    @property
    def _client(self) -> str:
        return str(self.client[0]) if self.client else "somebody"


def connection_class(refuse: Refusals) -> type[Any]:
    """The class for uvicorn, which makes one of each connection."""
    return type("Connection", (Connection,), {"refuse": staticmethod(refuse)})


def _stop(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
