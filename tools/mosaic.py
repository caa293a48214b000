"""`--mosaic`: several sources in one window or page, beside their own pipelines."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Any

from engines.card import Card
from pipeline.mosaic import Mosaic
from pipeline.runner import Pipeline
from pipeline.sinks.window import WindowSink
from pipeline.stages import Controls
from pipeline.together import Books
from tools.config import RunConfig
from tools.progress import Printer
from tools.viewing import window_for
from tools.web import open_page


class Screen:
    """The mosaic's own pipeline, to window and page, in a thread of its own."""

    def __init__(self, mosaic: Mosaic, viewers: Sequence[Any], say: Printer) -> None:
        self.mosaic = mosaic
        self.error: Exception | None = None
        self._window = next((v for v in viewers if isinstance(v, WindowSink)), None)
        self._viewers, self._say = viewers, say
        self._pipeline = Pipeline(mosaic, [], viewers)
        self._thread = threading.Thread(target=self._run, name="mosaic")

    @property
    def threads_cpu_s(self) -> float:
        """Processor time of its threads, once it has ended."""
        return self._pipeline.threads_cpu_s

    @property
    def quit(self) -> bool:
        """Whether the user has asked for the end in the window."""
        return self._window is not None and self._window.quit

    def start(self, on_quit: Callable[[], None]) -> None:
        """Shows what comes, from now on; `on_quit` is called when the user wants the end."""
        if self._window is not None:
            self._window.on_quit = on_quit
        for viewer in self._viewers:
            self._say.note(f"output  {viewer.url}")
        self._thread.start()

    def stop(self) -> None:
        """Takes it away at once; any thread."""
        self._pipeline.stop()

    def end(self, *, stay: bool) -> None:
        """Shows what has come and ends; with `stay` a window is left until the user has seen it."""
        if self._window is not None:
            self._window.stay = stay
        self.mosaic.end()
        self._thread.join()
        for viewer in self._viewers:
            for note in viewer.notes:
                self._say.note(note)

    def _run(self) -> None:
        try:
            self._pipeline.run()
        except Exception as error:
            self.error = error


@contextmanager
def open_screen(
    ask: RunConfig, names: Sequence[str], card: Card, controls: Controls, books: Books, say: Printer
) -> Iterator[Screen | None]:
    """The window and the page that were asked for; the page's figures are those of `books`.

    Raises SinkError or ToolError where there can be none.
    """
    if not ask.mosaic:
        yield None
        return
    with ExitStack() as opened:
        viewers: list[Any] = []
        web = open_page(ask, card, controls, say.note)
        if web is not None:
            web.pipeline = books
            viewers.append(opened.enter_context(closing(web)))
        title = f"{len(names)} sources"
        window = opened.enter_context(window_for(ask.show, title, controls, say.note))
        if window is not None:
            viewers.append(window)
        yield Screen(Mosaic(names), viewers, say)
