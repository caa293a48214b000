"""What several sources are called, and which files each of them makes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pipeline.errors import SourceError
from pipeline.sources.live.address import parse_address

if TYPE_CHECKING:
    from tools.config import RunConfig

_FIELD = re.compile(r"\{(name|index)\}")


def source_names(sources: Sequence[str]) -> list[str]:
    """A name for each source, fit for a file's: its stem, `camera0`, or a URL's host and path.

    Of equal ones the second gets -2, and so on. Not even letters' case tells two apart, because it
    does not on every disk.
    """
    names: list[str] = []
    taken: set[str] = set()
    for source in sources:
        name = plain = _plain_name(source)
        number = 1
        while name.casefold() in taken:
            number += 1
            name = f"{plain}-{number}"
        taken.add(name.casefold())
        names.append(name)
    return names


def ask_each(ask: RunConfig) -> list[RunConfig]:
    """The request for each source alone: {name} and {index} (from 0) of its outputs filled in.

    The report is one for all of them, and stays with `ask`.
    """
    asks = []
    for index, name in enumerate(source_names(ask.source)):
        fields = {"name": name, "index": str(index)}

        def fill(target: str | None, fields: dict[str, str] = fields) -> str | None:
            return None if target is None else _FIELD.sub(lambda m: fields[m[1]], target)

        changes = {
            "source": [ask.source[index]],
            "output": [fill(target) for target in ask.output],
            **{key: fill(getattr(ask, key)) for key in ("mask", "stats", "trace")},
        }
        asks.append(ask.model_copy(update=changes))
    return asks


def is_for_each(target: str) -> bool:
    """Whether an output has a place for its source's name."""
    return _FIELD.search(target) is not None


def _plain_name(source: str) -> str:
    try:
        address = None if Path(source).exists() else parse_address(source)
    except SourceError:  # it will be said when it is opened
        address = None
    if address is None:
        path = Path(source)
        # Of a pattern the folder tells more; a % would number files.
        stem = path.parent.name if re.search(r"[*?\[]", path.name) else path.stem
        return re.sub(r"[%*?\[\]\x00-\x1f:\\/]", "_", stem) or "source"
    if address.kind == "camera":
        number = re.fullmatch(r"/dev/video(\d+)", address.url)
        return f"camera{number[1]}" if number else _safe(Path(address.url).name)
    where = urlsplit(address.shown.replace("***@", ""))
    return _safe(f"{where.netloc}{where.path}") or "source"


def _safe(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", text).strip("_.")
