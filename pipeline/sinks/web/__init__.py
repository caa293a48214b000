"""A web page that shows the live picture and changes its look: `open_web` makes the sink.

What needs the extra `web` is imported there, so that nobody else loads it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING

from engines.card import Card
from pipeline.errors import SinkError
from pipeline.sinks.web.address import choose_token, listen, parse_address
from pipeline.stages.look import Controls

if TYPE_CHECKING:
    from pipeline.sinks.web.sink import WebSink

_NEEDED = {"starlette": "starlette", "uvicorn": "uvicorn", "prometheus_client": "prometheus-client"}


def open_web(
    address: str,
    card: Card,
    controls: Controls,
    *,
    token: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> WebSink:
    """A sink that serves the page at `address`, HOST:PORT; port 0 takes a free one.

    Where others than this machine can reach it, viewers need `token`, or one that is made up; its
    `url` has it. `say` is told, now and then, what was refused. The port is taken at once: raises
    SinkError where it cannot be had, or where a library is missing.
    """
    missing = [name for module, name in _NEEDED.items() if find_spec(module) is None]
    if missing:
        raise SinkError(f"--web needs {', '.join(missing)}; pip install 'streamseg[web]'")
    from pipeline.sinks.web.sink import WebSink

    try:
        parsed = parse_address(address)
    except ValueError as error:
        raise SinkError(f"--web: {error}") from None
    chosen = choose_token(parsed, token)
    return WebSink(listen(parsed), parsed, card, controls, token=chosen, say=say)
