"""One evaluation, from the data to the figures."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2

from engines.card import Card
from engines.choose import load_engine
from engines.model import find_model
from engines.refine import NONE, parse_refine
from pipeline.flicker import Flicker
from pipeline.sinks.destination import check_file, check_folder, disk_errors
from pipeline.sinks.images import write_whole
from tools.data.labelled import limit_ids
from tools.data.layouts import open_dataset
from tools.data.survey import require_sound, survey
from tools.errors import ToolError
from tools.evaluate.figures import (
    draw_confusion,
    draw_worst,
    match_palette,
    write_confusion_csv,
)
from tools.evaluate.match import Match, match_classes
from tools.evaluate.measure import measure
from tools.evaluate.metrics import Void
from tools.evaluate.report import make_report, print_table
from tools.evaluate.truth import Truth, from_pictures, from_video, without_labels
from tools.interrupt import interruptible
from tools.plots import require_plots
from tools.progress import Printer

# On the sheet of the worst pictures.
_WORST = 8


@dataclass(frozen=True)
class Ask:
    """The options of `streamseg evaluate`."""

    data: str
    layout: str | None
    split: str | None
    labels: Path | None
    every: int
    flicker: bool
    smooth: bool
    model: str
    card: Path | None
    weights: str | None
    size: tuple[int, int] | None
    engine: str
    precision: str
    device: str | None
    refine: str
    void: Void
    json: Path | None
    figures: Path | None
    force: bool
    quiet: bool


class _StoppedError(Exception):
    """Somebody pressed Ctrl-C; an evaluation of a part would look like one of the whole."""


def evaluate(ask: Ask) -> int:
    """Evaluates, prints and writes; returns the exit code."""
    cv2.setNumThreads(1)  # the network has the cores
    say = Printer(quiet=ask.quiet)
    stopping = threading.Event()
    with interruptible(say.note) as interrupt:
        if ask.json is not None:
            check_file(ask.json, ask.force)
        if ask.figures is not None:
            require_plots("--figures")
            check_folder(ask.figures, ask.force)
        refine = parse_refine(ask.refine)
        model = find_model(
            ask.model,
            ask.card,
            say.note,
            weights=ask.weights,
            size=ask.size,
            export=ask.engine != "torch",
        )
        truth = _truth(ask, model.card, say.note)
        match = match_classes(truth.classes, model.card.classes)
        with load_engine(
            model,
            engine=ask.engine,
            precision=ask.precision,
            device=ask.device,
            refine=refine,
            say=say.note,
        ) as engine:
            runs = engine.info
            many = f"{truth.count} pictures" if truth.count else "nobody knows how many pictures"
            say.note(f"data    {truth.title}: {many}")
            say.note(f"model   {model.card.name}: {len(model.card.classes)} classes")
            say.note(f"engine  {runs.name} {runs.version}, {runs.precision} on {runs.device}")
            if runs.refine != NONE:
                say.note(f"refine  {runs.refine}")
            _announce(match, say.note)
            with interrupt.stopping(stopping.set), say.counting(truth.count, "pictures") as count:

                def tick() -> None:
                    count()
                    if stopping.is_set():
                        raise _StoppedError

                try:
                    wanted = _WORST if ask.figures is not None else 0
                    flicker = Flicker() if ask.flicker else None
                    found = measure(
                        engine,
                        truth,
                        match,
                        ask.void,
                        worst=wanted,
                        flicker=flicker,
                        smooth=ask.smooth,
                        tick=tick,
                    )
                except _StoppedError:
                    say.note("stopped; nothing is written")
                    return 130
            report = make_report(truth, engine, match, found, ask.void, flicker, ask.smooth)
    if not ask.quiet:
        print_table(report)
    if ask.json is not None:
        with disk_errors(ask.json):
            write_whole(ask.json, (json.dumps(report, indent=2) + "\n").encode())
    if ask.figures is not None:
        with disk_errors(ask.figures):
            ask.figures.mkdir(exist_ok=True)
        write_confusion_csv(ask.figures / "confusion.csv", match, found.counts)
        draw_confusion(ask.figures / "confusion.png", match, found.counts)
        if found.worst:
            palette = match_palette(match, model.card.colors)
            draw_worst(ask.figures / "worst.png", palette, found.worst)
    return 0


def _truth(ask: Ask, card: Card, note: Callable[[str], None]) -> Truth:
    for name, given in (("--flicker", ask.flicker), ("--smooth", ask.smooth)):
        if given and ask.layout is not None:
            raise ToolError(f"{name} is of a video's frames; a data set's pictures do not follow")
    if ask.labels is not None:
        # The frames between those with labels are what smoothing is about.
        whole = ask.flicker or ask.smooth
        return from_video(ask.data, ask.labels, ask.every, len(card.classes), whole=whole)
    if ask.flicker:
        return without_labels(ask.data)
    if ask.layout is None:
        raise ToolError(
            f"how {ask.data} is laid out is not said; name a --layout, or the --labels of a video"
        )
    dataset = open_dataset(Path(ask.data), ask.layout, ask.split)
    if not dataset.classes:
        dataset = limit_ids(dataset, len(card.classes))
    found, pictures = survey(dataset, keep=True)
    require_sound(dataset, found, note)
    return from_pictures(pictures)


def _announce(match: Match, note: Callable[[str], None]) -> None:
    note(f"match   {match.how}")
    if match.left_out:
        note(f"        left out, the model has not: {', '.join(match.left_out)}")
    if match.extra:
        note(f"        errors wherever they are, the data has not: {', '.join(match.extra)}")
