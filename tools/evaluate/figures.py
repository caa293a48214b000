"""What a person looks at: the confusion matrix, and the worst pictures beside the truth."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.palette import colors
from pipeline.frame import Image
from pipeline.sinks.destination import disk_errors
from pipeline.sinks.images import write_whole
from tools.data.labelled import VOID
from tools.evaluate.match import OTHER, Match
from tools.evaluate.measure import Shown
from tools.plots import figure, save_figure

# Of one picture on the sheet, pixels.
_WIDTH = 480
_BAR = 22
_OVERLAY = 0.65
_WHITE, _GRAY = 255, 128


def write_confusion_csv(path: Path, match: Match, counts: NDArray[np.int64]) -> None:
    """Pixels: a row for each true class and void, a column for what they were called."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["truth", *match.classes, "(other)"])
    for name, row in zip((*match.classes, "(void)"), counts.tolist(), strict=True):
        writer.writerow([name, *row])
    with disk_errors(path):
        write_whole(path, text.getvalue().encode())


def draw_confusion(path: Path, match: Match, counts: NDArray[np.int64]) -> None:
    """A PNG: of each true class's pixels, the percentage that was called what."""
    columns = [*match.classes]
    table = counts[:-1].astype(np.float64)
    if counts[:, -1].any():
        columns.append("(other)")
    else:
        table = table[:, :-1]
    rows = table.sum(axis=1, keepdims=True)
    share = 100 * np.divide(table, rows, out=np.zeros_like(table), where=rows > 0)
    size = 2.0 + 0.45 * len(columns)
    made, (chart,) = figure(size + 1, size)
    chart.imshow(share, cmap="Blues", vmin=0, vmax=100)
    chart.set_xticks(range(len(columns)), columns, rotation=90)
    chart.set_yticks(range(len(match.classes)), match.classes)
    chart.set_xlabel("called")
    chart.set_ylabel("truth")
    chart.set_title("% of the true class's pixels")
    for (y, x), value in np.ndenumerate(share):
        if value >= 0.5:
            shade = "white" if value > 50 else "black"
            chart.text(x, y, f"{value:.0f}", ha="center", va="center", color=shade, fontsize=8)
    save_figure(made, path)


def draw_worst(path: Path, palette: NDArray[np.uint8], worst: Sequence[Shown]) -> None:
    """A PNG: each picture, its truth and its labels side by side, the worst first.

    `palette` is uint8 (256, 3) RGB by the compared classes' ids. Void is white, a class of the
    model's that the truth has not is gray.
    """
    table = palette.copy()
    table[VOID], table[OTHER] = _WHITE, _GRAY
    strips = [_strip(shown, table) for shown in worst]
    done, data = cv2.imencode(".png", cv2.cvtColor(np.vstack(strips), cv2.COLOR_RGB2BGR))
    assert done
    with disk_errors(path):
        write_whole(path, data.tobytes())


def match_palette(match: Match, card_colors: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The model's colours in the order of the compared classes, uint8 (256, 3) RGB."""
    table = colors("voc", 256)
    table[: len(match.labels)] = card_colors[list(match.labels)]
    return table


def _strip(shown: Shown, table: NDArray[np.uint8]) -> Image:
    def painted(ids: Image) -> Image:
        blended = cv2.addWeighted(shown.image, 1 - _OVERLAY, table[ids], _OVERLAY, 0)
        return np.asarray(blended, np.uint8)

    height, width = shown.truth.shape
    size = (_WIDTH, max(1, round(height * _WIDTH / width)))
    row = [shown.image, painted(shown.truth), painted(shown.labels)]
    tiles = [cv2.resize(tile, size, interpolation=cv2.INTER_AREA) for tile in row]
    bar = np.zeros((_BAR, 3 * _WIDTH, 3), np.uint8)
    texts = (f"{shown.name}  mIoU {-shown.badness:.3f}", "truth", "labels")
    for i, text in enumerate(texts):
        place = (i * _WIDTH + 6, _BAR - 7)
        white = (_WHITE, _WHITE, _WHITE)
        cv2.putText(bar, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, white, 1, cv2.LINE_AA)
    return np.vstack([bar, np.hstack(tiles)])
