"""The server's addresses: the page, its streams, its controls, and what machines read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from importlib.resources import files
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from pipeline.frame import Frame
from pipeline.sinks.web.figures import Figures
from pipeline.sinks.web.guard import MAX_BODY, client_of
from pipeline.sinks.web.hub import Newest
from pipeline.sinks.web.live import Live
from pipeline.sinks.web.metrics import CONTENT_TYPE, RunCollector, exposition
from pipeline.sinks.web.pictures import png
from pipeline.sinks.web.refusals import Refusals

MAX_VIEWERS = 16
"""By each of WebRTC and MJPEG; of figures twice as many."""
_BODY_S = 10.0
_STILL_S = 10.0
_SNAPSHOT_EVERY_S = 0.25
_BOUNDARY = b"--frame\r\n"

# All that is served from the disk, by name: there is no path that a request could lead astray.
_PAGE = {
    "/": ("index.html", "text/html"),
    "/app.js": ("app.js", "text/javascript"),
    "/charts.js": ("charts.js", "text/javascript"),
    "/picture.js": ("picture.js", "text/javascript"),
    "/style.css": ("style.css", "text/css"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}

Answer = Callable[[str], Awaitable[str]]


class LookChange(BaseModel):
    """What a page may change; what it leaves out stays."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    overlay: float = Field(default=0, ge=0, le=1)
    classes: list[int] = Field(default=[], max_length=256)
    legend: bool = False
    contours: bool = False


class Offer(BaseModel):
    """A browser's wish to receive video by WebRTC."""

    model_config = ConfigDict(extra="forbid", strict=True)

    sdp: str = Field(min_length=1, max_length=MAX_BODY)


class App:
    """Answers requests, on the server's loop. `answer` makes an SDP answer of an offer; where there
    is no WebRTC it is None, and `no_rtc` says why.
    """

    def __init__(
        self,
        live: Live,
        figures: Figures,
        refusals: Refusals,
        answer: Answer | None,
        no_rtc: str = "",
    ) -> None:
        self._live = live
        self._figures = figures
        self._refuse = refusals
        self._answer = answer
        self._no_rtc = no_rtc
        self._collector = RunCollector(figures, live.viewers, refusals)
        self._snapshot: tuple[int, bytes] = (-1, b"")
        self._snapshot_at = -_SNAPSHOT_EVERY_S
        self._snapshot_lock = asyncio.Lock()
        folder = files("pipeline.sinks.web").joinpath("page")
        self._files = {
            path: (folder.joinpath(name).read_bytes(), kind) for path, (name, kind) in _PAGE.items()
        }

    def asgi(self) -> Starlette:
        routes = [
            *(Route(path, self.page) for path in _PAGE),
            Route("/api/events", self.events),
            Route("/api/look", self.look, methods=["POST"]),
            Route("/api/offer", self.offer, methods=["POST"]),
            Route("/stream.mjpg", self.mjpeg),
            Route("/snapshot.png", self.snapshot),
            Route("/metrics", self.metrics),
            Route("/healthz", self.healthz),
        ]
        handlers: Any = {HTTPException: self._refused}
        app = Starlette(routes=routes, exception_handlers=handlers)
        app.router.redirect_slashes = False
        return app

    async def page(self, request: Request) -> Response:
        data, kind = self._files[request.url.path]
        return Response(data, media_type=kind)

    async def events(self, request: Request) -> Any:
        """Server-sent events: `run` once, then the figures, look and shares twice a second."""
        self._admit(self._live.events, 2 * MAX_VIEWERS)
        return _Stream("text/event-stream", self._events())

    async def _events(self) -> AsyncGenerator[bytes, None]:
        first = {
            "classes": self._live.classes(),
            "webrtc": self._answer is not None,
            "no_webrtc": self._no_rtc,
            "history": list(self._figures.history),
        }
        yield event("run", first)
        async with aclosing(self._live.events.watch()) as items:
            async for item in items:
                yield item

    async def mjpeg(self, request: Request) -> Any:
        """JPEGs one after the other; whoever reads slowly gets fewer."""
        self._admit(self._live.jpegs, MAX_VIEWERS)
        return _Stream("multipart/x-mixed-replace; boundary=frame", self._parts())

    async def _parts(self) -> AsyncGenerator[bytes, None]:
        yield _BOUNDARY
        async with aclosing(self._live.jpegs.watch()) as items:
            async for item in items:
                head = f"Content-Type: image/jpeg\r\nContent-Length: {len(item)}\r\n\r\n"
                # The next boundary at once: a browser shows a part when it has seen its end.
                yield head.encode() + item + b"\r\n" + _BOUNDARY

    async def snapshot(self, request: Request) -> Response:
        """The newest picture as PNG, at full size; made once for all who ask at a time."""
        async with self._snapshot_lock:
            newest = self._live.newest
            if newest is None:
                raise HTTPException(503, "there is no picture yet")
            loop = asyncio.get_running_loop()
            if loop.time() - self._snapshot_at >= _SNAPSHOT_EVERY_S:  # the cores are the pipeline's
                self._snapshot = (newest.index, await loop.run_in_executor(None, _png, newest))
                self._snapshot_at = loop.time()
            index, data = self._snapshot
        name = f'attachment; filename="streamseg-{index:06d}.png"'
        return Response(data, media_type="image/png", headers={"content-disposition": name})

    async def look(self, request: Request) -> Response:
        """Changes the look of the next frame painted, for everybody."""
        change = await _read(request, LookChange)
        fields = change.model_dump(include=change.model_fields_set)
        if "classes" in fields:
            count = len(self._live.card.classes)
            if unknown := [i for i in fields["classes"] if not 0 <= i < count]:
                raise HTTPException(422, f"classes: {unknown[0]} is not in 0..{count - 1}")
            fields["classes"] = tuple(sorted(set(fields["classes"])))
        self._live.controls.change(**fields)
        return JSONResponse(self._live.look())

    async def offer(self, request: Request) -> Response:
        """Answers a WebRTC offer; the connection is made from this answer on."""
        offer = await _read(request, Offer)
        if self._answer is None:
            raise HTTPException(501, self._no_rtc)
        from pipeline.sinks.web.rtc import OfferError

        try:
            return JSONResponse({"sdp": await self._answer(offer.sdp)})
        except OfferError as error:
            raise HTTPException(422, str(error)) from None

    async def metrics(self, request: Request) -> Response:
        return Response(exposition(self._collector), media_type=CONTENT_TYPE)

    async def healthz(self, request: Request) -> Response:
        """200 while frames arrive, 503 before the first and when they have stopped coming."""
        still_s = self._figures.still_s
        if still_s == float("inf"):
            return PlainTextResponse("starting: no frame yet\n", 503)
        if still_s > _STILL_S:
            return PlainTextResponse(f"stalled: no frame for {still_s:.0f} s\n", 503)
        return PlainTextResponse("ok\n")

    def _admit(self, watched: Newest, limit: int) -> None:
        if watched.viewers >= limit:
            raise HTTPException(503, f"{limit} viewers watch already")

    async def _refused(self, request: Request, error: HTTPException) -> Response:
        self._refuse(_REASONS.get(error.status_code, "malformed request"), client_of(request.scope))
        # What is left of a body that nobody reads must not pass for the next request.
        headers = {"connection": "close"} if request.method == "POST" else None
        return PlainTextResponse(f"{error.detail}\n", error.status_code, headers)


_REASONS = {
    404: "no such page",
    405: "wrong method",
    408: "a request without end",
    413: "too large a request",
    501: "no WebRTC here",
    503: "not now",
}


def _png(frame: Frame) -> bytes:
    assert frame.picture is not None
    return png(frame.picture)


def event(name: str, data: Any) -> bytes:
    """A server-sent event."""
    return f"event: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


async def _read(request: Request, model: type[Any]) -> Any:
    """The body as a checked `model`; it is small, soon there, and JSON."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise HTTPException(415, "the body must be application/json")
    body = b""

    async def collect() -> None:
        nonlocal body
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY:
                raise HTTPException(413, f"at most {MAX_BODY} bytes")

    try:
        await asyncio.wait_for(collect(), _BODY_S)
        return model.model_validate_json(body)
    except asyncio.TimeoutError:
        raise HTTPException(408, f"the body did not come within {_BODY_S:.0f} s") from None
    except ClientDisconnect:
        raise HTTPException(400, "the body is not whole") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise HTTPException(422, f"{where}: {first['msg']}") from None


class _Stream:
    """A response without end: closes what it reads from as soon as its client has gone."""

    def __init__(self, kind: str, chunks: AsyncGenerator[bytes, None]) -> None:
        self._kind = kind
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def feed() -> None:
            headers = [(b"content-type", self._kind.encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            if scope["method"] == "HEAD":
                await send({"type": "http.response.body", "body": b""})
                return
            async with aclosing(self._chunks) as chunks:
                async for chunk in chunks:
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

        async def gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        tasks = [asyncio.ensure_future(feed()), asyncio.ensure_future(gone())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
