"""The training's curves: losses and mIoU by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tools.plots import figure, save_figure

Row = dict[str, float]

_SHOWN = (
    (("train_loss", "training"), ("val_loss", "validation")),
    (("val_miou", "mIoU"), ("val_pixel_accuracy", "pixel accuracy")),
)


def draw_curves(path: Path, rows: Sequence[Row]) -> None:
    """Writes a PNG of two charts: the losses, and the validation's scores, 0 to 1."""
    made, axes = figure(11, 4, columns=2)
    for chart, lines in zip(axes, _SHOWN, strict=True):
        for key, label in lines:
            known = [(row["epoch"], row[key]) for row in rows if key in row]
            if not known:  # not yet validated
                continue
            marker = "." if len(known) < 30 else ""  # a single point has no line
            chart.plot(*zip(*known, strict=True), label=label, marker=marker)
        chart.set_xlabel("epoch")
        chart.xaxis.get_major_locator().set_params(integer=True)
        chart.grid(alpha=0.3)
        if chart.lines:
            chart.legend()
    axes[0].set_ylabel("loss")
    axes[1].set_ylim(0, 1)
    save_figure(made, path)
