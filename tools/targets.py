"""Which files a run would write, compared with each other and with what it reads."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from engines.model import Model
from pipeline.errors import PipelineError
from pipeline.sinks import is_stream
from pipeline.sources.images import IMAGE_SUFFIXES
from tools.config import RunConfig


def check_targets(ask: RunConfig, asks: Sequence[RunConfig], model: Model) -> None:
    """Refuses two outputs in one place, and what would be written over a source or the model.

    `asks` are those of `ask`'s sources, one by one; the report is `ask`'s.
    """
    read = {source: _files(source) for source in ask.source}
    sources = set().union(*read.values())
    inputs = {Path(name).resolve() for name in (model.file, ask.card, ask.weights) if name}
    taken: set[Path] = set()
    for target, names in _targets(ask, asks, read):
        files = {Path(target)} if is_stream(target) else _written(target, names)
        if not files.isdisjoint(taken):
            raise PipelineError(f"{target} is named twice as an output; each needs its own")
        if not files.isdisjoint(sources):
            which = "the source itself" if len(asks) == 1 else "one of the sources"
            raise PipelineError(f"{target} is {which}; name another output")
        if not files.isdisjoint(inputs):
            raise PipelineError(f"{target} is the model or its card; name another output")
        taken |= files


def _targets(
    ask: RunConfig, asks: Sequence[RunConfig], read: dict[str, set[Path]]
) -> Iterable[tuple[str, list[str]]]:
    """Every output, with the names of the images that it is made of."""
    for each in asks:
        (source,) = each.source
        names = sorted(f.stem for f in read[source] if f.suffix.lower() in IMAGE_SUFFIXES)
        for target in [*each.output, each.mask, each.stats, each.trace]:
            if target is not None:
                yield target, names
    if ask.report is not None:
        yield ask.report, []


def _files(source: str) -> set[Path]:
    """The files of a source; what it cannot tell is told when it is opened."""
    path = Path(source)
    with suppress(OSError):
        if path.is_dir():
            return {file.resolve() for file in path.iterdir()}
        if path.exists():
            return {path.resolve()}
        return {Path(name).resolve() for name in glob.glob(source, recursive=True)}
    return set()


def _written(target: str, names: list[str]) -> set[Path]:
    """The files that an output makes of images with these names; of a video, the first."""
    path = Path(target).resolve()
    if number := re.search(r"%0?\d*d", path.name):
        numbered = [number[0] % i for i in range(max(1, len(names)))]
        return {path.with_name(path.name.replace(number[0], n)) for n in numbered}
    if path.is_dir() or target.endswith(("/", "\\")) or not path.suffix:
        return {path / f"{name}.png" for name in names or ["000000"]}
    return {path}
