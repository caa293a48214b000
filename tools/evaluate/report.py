"""An evaluation's figures: as JSON, and as a table on the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from engines.engine import Engine
from pipeline.flicker import Flicker
from tools.evaluate.boundary import TOLERANCE
from tools.evaluate.match import Match
from tools.evaluate.measure import Measured
from tools.evaluate.metrics import Void, mean
from tools.evaluate.truth import Truth

VOID_MEANS = {
    "ignore": "the truth's void pixels count nowhere",
    "error": "what is called a class on the truth's void pixels is an error",
}


def make_report(
    truth: Truth,
    engine: Engine,
    match: Match,
    measured: Measured,
    void: Void,
    flicker: Flicker | None = None,
    smooth: bool = False,
) -> dict[str, Any]:
    """The figures as JSON's types; what has no value is null. docs/evaluate.md explains each."""
    card, found = engine.card, measured.scores
    rows = measured.counts
    classes = {
        name: {
            "iou": _number(found.iou[i]),
            "dice": _number(found.dice[i]),
            "accuracy": _number(found.accuracy[i]),
            "boundary_f": _number(measured.boundary_f[i]),
            "pixels": int(rows[i].sum()),
        }
        for i, name in enumerate(match.classes)
    }
    return {
        "schema": 1,
        "data": truth.title,
        "model": card.name,
        "input": {"height": card.input.height, "width": card.input.width},
        "engine": asdict(engine.info),
        "pictures": measured.pictures,
        "pixels": {
            "compared": int(rows[:-1].sum()),
            "void": int(rows[-1].sum()),
            "left_out": measured.left_out,
        },
        "void": {"rule": void, "means": VOID_MEANS[void]},
        "match": {
            "how": match.how,
            "left_out": list(match.left_out),
            "extra": list(match.extra),
        },
        "boundary": {"tolerance_of_diagonal": TOLERANCE},
        "miou": _number(found.miou),
        "mean_accuracy": _number(found.mean_accuracy),
        "pixel_accuracy": _number(found.pixel_accuracy),
        "mean_dice": _number(mean(found.dice)),
        "boundary_f": _number(mean(measured.boundary_f)),
        "fps": round(measured.fps, 3),
        "smooth": smooth,
        "flicker": _flicker(flicker) if flicker is not None else None,
        "classes": classes,
    }


def _flicker(flicker: Flicker) -> dict[str, Any]:
    return {"score": _number(flicker.score), "pairs": flicker.pairs, "cuts": flicker.cuts}


def print_table(report: dict[str, Any]) -> None:
    """Prints the figures in percent, a class a line."""
    from rich.console import Console
    from rich.table import Table

    keys = ("iou", "dice", "accuracy", "boundary_f")
    table = Table(box=None, pad_edge=False)
    table.add_column("class")
    for title in ("IoU", "Dice", "accuracy", "boundary F", "of pixels"):
        table.add_column(title, justify="right")
    total = report["pixels"]["compared"]
    for name, row in report["classes"].items():
        share = f"{row['pixels'] / total:.2%}" if total else "-"
        table.add_row(name, *(_percent(row[key]) for key in keys), share)
    means = (report[key] for key in ("miou", "mean_dice", "mean_accuracy", "boundary_f"))
    table.add_row("mean", *map(_percent, means), "", style="bold")
    console = Console(highlight=False)
    if report["pictures"]:
        console.print(table)
    for line in summary(report):
        console.print(line, markup=False, soft_wrap=True)


def summary(report: dict[str, Any]) -> Iterator[str]:
    """What the table does not say."""
    pixels, void = report["pixels"], report["void"]
    if everything := sum(pixels.values()):
        share = pixels["void"] / everything
        yield f"pixel accuracy {_percent(report['pixel_accuracy'])}"
        yield f"void   {share:.2%} of the pixels; {void['means']} (--void {void['rule']})"
    if flicker := report["flicker"]:
        cuts = f"; {flicker['cuts']} cuts left out" if flicker["cuts"] else ""
        score = _percent(flicker["score"])
        yield f"flicker {score}% of the pixels change their class without motion, a frame{cuts}"
    yield f"speed  {report['fps']:.1f} pictures/s: the network alone, at full load"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
