"""The training's log: log.csv, and TensorBoard's events where they are wanted."""

# mypy: disable-error-code="import-not-found, unused-ignore"

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.sinks.destination import disk_errors
from pipeline.sinks.images import write_whole
from tools.errors import TrainError

Row = dict[str, float]


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """All rows so far; columns that a row lacks (no validation in that epoch) are empty.

    Written whole each time, so that a resumed training never repeats or contradicts a line.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with disk_errors(path):
        write_whole(path, text.getvalue().encode())


def open_tensorboard(folder: Path) -> Callable[[Row], None]:
    """A function that writes an epoch's row as TensorBoard's scalars; raises TrainError."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError:
        raise TrainError(
            "tensorboard is true, and TensorBoard is missing; pip install 'streamseg[train]'"
        ) from None
    writer = SummaryWriter(str(folder))

    def write(row: Row) -> None:
        for name, value in row.items():
            if name not in ("epoch", "step"):
                writer.add_scalar(name.replace("_", "/", 1), value, int(row["epoch"]))
        writer.flush()

    return write
