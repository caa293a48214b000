"""What changes in a run when somebody watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

from pipeline.mosaic import Tile
from pipeline.sinks.stream import StreamSink
from pipeline.sinks.window import WindowSink
from pipeline.sources import AnySource
from pipeline.stages import Controls


@contextmanager
def window_for(
    wanted: bool, title: str, controls: Controls, say: Callable[[str], None]
) -> Iterator[WindowSink | None]:
    """A window, if one is wanted, that is taken away whatever happens. Raises SinkError where there
    can be none.
    """
    if not wanted:
        yield None
        return
    window = WindowSink(title, controls, say=say)
    with closing(window):
        yield window


def is_paced(source: AnySource, sinks: Sequence[Any]) -> bool:
    """Whether frames are held back to their own times: a file that is sent as a stream, or that is
    only looked at. Beside files that are written a window shows what it can, at full speed.
    """
    if source.live or source.info.frames == 1:
        return False
    streams = any(isinstance(sink, StreamSink) for sink in sinks)
    window = any(isinstance(sink, (WindowSink, Tile)) for sink in sinks)
    return streams or (window and all(sink.policy != "block" for sink in sinks))
