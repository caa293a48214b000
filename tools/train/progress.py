"""What a training shows: a bar with the time that is left on a terminal, else lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

_LINE_EVERY_S = 30.0


class Progress:
    """Of the first process; the others' are quiet."""

    def __init__(self, say: Callable[[str], None], *, quiet: bool) -> None:
        self._say, self._quiet = say, quiet
        self._bar: Any = None
        self._began = self._line_at = time.perf_counter()
        self._done = 0

    def begin(self, epoch: int, epochs: int, steps: int, val: int) -> None:
        """Before the first epoch: how many are done, and how long each will be."""
        self._epoch, self._epochs, self._steps, self._val = epoch, epochs, steps, val
        self._began = self._line_at = time.perf_counter()
        self._done = 0
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            columns: list[Any] = [BarColumn(bar_width=None), TextColumn("{task.description}")]
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task("", total=epochs * steps, completed=epoch * steps)

    def step(self, total: Any, step: int, count: int) -> None:
        """After each step: the epoch's sum of losses so far, a scalar tensor, and of how many."""
        self._done += 1
        self._total, self._count, self._step = total, count, step
        # Reading the loss waits for a GPU, so it is not read at every step.
        if self._due():
            self._show(f"step {step}/{self._steps}, loss {float(total) / count:.4f}")

    def validated(self) -> None:
        """After each validation picture of this process."""
        if self._due():
            self._show("validating")

    def epoch_done(self, row: Mapping[str, float]) -> None:
        """Prints the epoch's figures."""
        self._epoch = int(row["epoch"])
        text = f"epoch {self._epoch}/{self._epochs}  loss {row['train_loss']:.4f}"
        if "val_miou" in row:
            text += f"  val loss {row['val_loss']:.4f}  mIoU {row['val_miou']:.4f}"
        self._print(f"{text}  {row['seconds']:.0f} s{self._left()}")

    def end(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _due(self) -> bool:
        now = time.perf_counter()
        if self._quiet or now - self._line_at < (0.2 if self._bar else _LINE_EVERY_S):
            return False
        self._line_at = now
        return True

    def _show(self, what: str) -> None:
        line = f"epoch {self._epoch + 1}/{self._epochs}: {what}{self._left()}"
        if self._bar is None:
            self._say(line)
        else:
            done = self._epochs * self._steps - self._remaining()
            self._bar.update(self._task, completed=done, description=line)

    def _print(self, line: str) -> None:
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.console.print(line, highlight=False)
        else:
            self._say(line)

    def _remaining(self) -> int:
        return (self._epochs - self._began_at()) * self._steps - self._done

    def _began_at(self) -> int:
        return self._epoch - self._done // self._steps

    def _left(self) -> str:
        """`, 2 h 5 min left`, from the mean time of a step, validation included."""
        if not self._done:
            return ""
        each = (time.perf_counter() - self._began) / self._done
        minutes = round(each * self._remaining() / 60)
        return f", {minutes // 60} h {minutes % 60} min left"
