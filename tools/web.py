"""`--web [HOST:PORT]`: an option that may stand alone, and the page that it opens."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from typer.core import TyperCommand

from tools.errors import ToolError

if TYPE_CHECKING:  # --help is not to wait for OpenCV and FFmpeg
    from engines.card import Card
    from pipeline.sinks.web.sink import WebSink
    from pipeline.stages import Controls
    from tools.config import RunConfig

DEFAULT_ADDRESS = "127.0.0.1:8000"
TOKEN_VARIABLE = "STREAMSEG_WEB_TOKEN"
# No file, folder, camera or URL ends in a colon and digits without a slash before them.
_ADDRESS = re.compile(r"(\[[^\]/]*\]|[^:/\\\s]*):[0-9]+")


class RunCommand(TyperCommand):
    """`streamseg run`, where `--web` takes the next word only if that is HOST:PORT or :PORT."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Fills in the address before the words are parsed; Typer has no optional values."""
        return super().parse_args(ctx, fill_in_address(args))


def fill_in_address(words: list[str]) -> list[str]:
    """The words of a command line, with `--web` alone as `--web=` and the default address."""
    out: list[str] = []
    for i, word in enumerate(words):
        if word == "--":
            return out + words[i:]
        following = words[i + 1] if i + 1 < len(words) else ""
        if word == "--web" and not _ADDRESS.fullmatch(following):
            word = f"--web={DEFAULT_ADDRESS}"
        out.append(word)
    return out


def open_page(
    ask: RunConfig, card: Card, controls: Controls, say: Callable[[str], None]
) -> WebSink | None:
    """The page that a run is asked for; its token is the option's, else the environment's."""
    if ask.web is None:
        return None
    from pipeline.sinks.web import open_web
    from pipeline.sinks.web.address import parse_address

    token = ask.web_token or os.environ.get(TOKEN_VARIABLE) or None
    if ask.quiet and not token and not parse_address(ask.web).is_local:
        raise ToolError(f"--quiet would hide the page's token; give one in {TOKEN_VARIABLE}")
    return open_web(ask.web, card, controls, token=token, say=say)
