"""The HTTP server in a thread and an asyncio loop of its own, beside the pipeline's threads."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from socket import socket
from typing import TYPE_CHECKING, Any

import uvicorn

from pipeline.sinks.web.address import Address
from pipeline.sinks.web.app import MAX_VIEWERS, App, event
from pipeline.sinks.web.connection import MAX_HEADERS, connection_class
from pipeline.sinks.web.figures import TICK_S, Figures
from pipeline.sinks.web.guard import Guard
from pipeline.sinks.web.live import Live
from pipeline.sinks.web.refusals import Refusals
from pipeline.together import Books

if TYPE_CHECKING:
    from pipeline.sinks.web.rtc import Peers


class Server:
    """Serves the page on a bound socket while `running`."""

    loop: asyncio.AbstractEventLoop
    """The server's own, while it runs."""

    def __init__(
        self,
        listening: socket,
        address: Address,
        port: int,
        token: str | None,
        live: Live,
        *,
        no_rtc: str,
        say: Callable[[str], None],
    ) -> None:
        self._listening = listening
        self._where = (address, port, token)
        self._live = live
        self._no_rtc = no_rtc
        self._say = say

    @contextmanager
    def running(self, pipeline: Books | None) -> Iterator[None]:
        """Serves until the block ends; at its end the viewers are told so and parted from."""
        started = threading.Event()
        thread = threading.Thread(target=self._run, args=(Figures(pipeline), started), name="page")
        thread.start()
        del pipeline
        started.wait()
        try:
            yield
        finally:
            # A loop that is closed already, or was never made: it has failed, and said so.
            with suppress(RuntimeError, AttributeError):
                self.loop.call_soon_threadsafe(self._ending.set)
            thread.join()

    def _run(self, figures: Figures, started: threading.Event) -> None:
        try:
            asyncio.run(self._serve(figures, started))
        except Exception as error:
            # A viewer's trouble is not the run's: what is written goes on being written.
            self._say(f"web: the page has failed: {type(error).__name__}: {error}")
        finally:
            started.set()

    async def _serve(self, figures: Figures, started: threading.Event) -> None:
        self.loop = asyncio.get_running_loop()
        self.loop.set_exception_handler(self._trouble)
        # One thread for what would hold up the loop (PNG, names): the cores are the pipeline's.
        self.loop.set_default_executor(ThreadPoolExecutor(1, thread_name_prefix="page-work"))
        self._ending = asyncio.Event()
        live, refusals = self._live, Refusals(self._say)
        peers = self._peers()
        app = App(live, figures, refusals, peers.answer if peers else None, self._no_rtc)
        config = uvicorn.Config(
            Guard(app.asgi(), *self._where, refusals),
            http=connection_class(refusals),
            ws="none",
            lifespan="off",
            log_config=None,
            log_level=logging.ERROR,
            access_log=False,  # it would hold the token
            proxy_headers=False,
            server_header=False,
            h11_max_incomplete_event_size=MAX_HEADERS,
            timeout_graceful_shutdown=2,
        )
        server = uvicorn.Server(config)
        serving = asyncio.ensure_future(server.serve([self._listening]))
        ticking = asyncio.ensure_future(self._tick(figures))
        ending = asyncio.ensure_future(self._ending.wait())
        started.set()
        try:
            await asyncio.wait({serving, ticking, ending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            live.events.publish(event("ended", {}))
            live.events.close()
            live.jpegs.close()
            if peers is not None:
                await peers.close()
            server.should_exit = True
            ticking.cancel()
            results = await asyncio.gather(serving, ticking, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result

    def _peers(self) -> Peers | None:
        if self._no_rtc:
            return None
        from pipeline.sinks.web.rtc import Peers

        return Peers(self._live.feed, MAX_VIEWERS)

    async def _tick(self, figures: Figures) -> None:
        live = self._live
        while True:
            news: dict[str, Any] = figures.tick()
            if live.events.viewers:
                newest = live.newest
                news["look"] = live.look()
                news["shares"] = live.shares
                news["viewers"] = live.viewers()
                if newest is not None and newest.labels is not None:
                    height, width = newest.labels.shape
                    news["frame"] = {"index": newest.index, "width": width, "height": height}
                live.events.publish(event("tick", news))
            await asyncio.sleep(TICK_S)

    def _trouble(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What a task or a library left unhandled: told in a line, and nobody else's trouble."""
        error = context.get("exception")
        if not isinstance(error, OSError):  # a client that went in the middle of something
            self._say(f"web: {context.get('message')}: {error!r}")
