"""What changes in a run when somebody watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

from pipeline.sinks.stream import StreamSink
from pipeline.sinks.window import WindowSink
from pipeline.sources import AnySource
from pipeline.stages import Controls


@contextmanager
def window_for(
    wanted: bool, source: AnySource, controls: Controls, say: Callable[[str], None]
) -> Iterator[WindowSink | None]:
    """A window, if one is wanted, that is taken away whatever happens; a still stays in it until
    the user has seen it. Raises SinkError where there can be none.
    """
    if not wanted:
        yield None
        return
    window = WindowSink(source.name, controls, say=say)
    window.stay = source.info.frames == 1
    with closing(window):
        yield window


def is_paced(source: AnySource, sinks: Sequence[Any]) -> bool:
    """Whether frames are held back to their own times: a file that is sent as a stream, or that is
    only looked at. Beside files that are written a window shows what it can, at full speed.
    """
    if source.live or source.info.frames == 1:
        return False
    streams = any(isinstance(sink, StreamSink) for sink in sinks)
    window = any(isinstance(sink, WindowSink) for sink in sinks)
    return streams or (window and all(sink.policy != "block" for sink in sinks))
