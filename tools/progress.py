"""What a run prints: notes and progress on stderr, the summary on stdout."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from pipeline.runner import Pipeline
from pipeline.sinks import Output
from pipeline.together import Books

_LINE_EVERY_S = 5.0
_WINDOW_S = 3.0


class Printer:
    """Prints for people; with `quiet`, nothing but errors. Any thread may have it print."""

    def __init__(self, quiet: bool = False, whose: str = "") -> None:
        self._quiet = quiet
        self._before = f"{whose}: " if whose else ""

    def named(self, name: str) -> Printer:
        """The same for one of several sources: its name stands before every line."""
        return Printer(self._quiet, name)

    def note(self, line: str) -> None:
        if not self._quiet:
            self._print(f"{self._before}{line}")

    def error(self, line: str) -> None:
        """What failed while the rest goes on."""
        self._print(f"error: {self._before}{line}")

    @staticmethod
    def _print(line: str) -> None:
        # In one piece: of two threads that print, neither is to be in the other's line.
        print(f"{line}\n", end="", file=sys.stderr, flush=True)

    @contextmanager
    def progress(
        self, total: int | None, books: Books, more: Callable[[], str] = lambda: ""
    ) -> Iterator[Callable[[], None]]:
        """Gives a function to call for every frame: a bar on a terminal, else a line now and
        then; `more` is what is added to it.
        """
        if self._quiet:
            yield lambda: None
        elif sys.stderr.isatty():
            with _bar(total, books, more) as tick:
                yield tick
        else:
            yield _Lines(total, books, more, self.note)

    @contextmanager
    def building(self) -> Iterator[Callable[[str, float | None], bool]]:
        """Gives what a TensorRT build is told its progress with: a bar on a terminal, a line a
        phase elsewhere.
        """
        if not self._quiet and sys.stderr.isatty():
            with _build_bar() as watch:
                yield watch
        else:
            yield _BuildLines(self.note)

    @contextmanager
    def counting(self, total: int, what: str) -> Iterator[Callable[[], None]]:
        """Gives a function to call for each of `total` things: a bar on a terminal, else a line now
        and then.
        """
        if self._quiet:
            yield lambda: None
            return
        rate, done, shown = _Rate(), 0, time.perf_counter()
        rate(shown, 0)

        def line(now: float) -> str:
            each = rate(now, done)
            left = f", {(total - done) / each:.0f} s left" if each else ""
            return f"{done}/{total} {what}{left}"

        with _counting_bar(total) if sys.stderr.isatty() else nullcontext() as bar:

            def tick() -> None:
                nonlocal done, shown
                done += 1
                now = time.perf_counter()
                if now - shown >= (0.1 if bar else _LINE_EVERY_S):
                    shown = now
                    if bar:
                        bar(done, line(now))
                    else:
                        self.note(line(now))

            yield tick

    def summary(self, pipeline: Pipeline, outputs: list[Output]) -> None:
        """The ledger, the rate, the bottleneck and what was written."""
        self.result(_summary(pipeline, outputs))

    def result(self, lines: Iterable[str]) -> None:
        """Lines on stdout, for people as for programs."""
        if self._quiet:
            return
        try:
            for line in lines:
                print(f"{self._before}{line}")
            sys.stdout.flush()
        except OSError:
            # Whoever read this has gone, or the disk under a log is full. The outputs are whole;
            # Python is not to find the same at its end.
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def _summary(pipeline: Pipeline, outputs: list[Output]) -> Iterator[str]:
    if pipeline.interrupted:
        yield f"ended  early, after {pipeline.delivered} frames"
    for output in outputs:
        state = "sent" if output.url else "wrote" if output.complete else "kept"
        if output.frames:
            frames = "1 frame" if output.frames == 1 else f"{output.frames} frames"
            yield f"{state}  {output.where} ({frames}, {output.codec})"
    yield f"frames {pipeline.ledger}"
    if pipeline.delivered > 1 and pipeline.wall_s:
        rate = pipeline.delivered / pipeline.wall_s
        latency = pipeline.latency.as_dict()
        yield (
            f"speed  {rate:.1f} fps over {pipeline.wall_s:.1f} s; "
            f"latency {latency['p50']:.0f} ms (median), {latency['p99']:.0f} ms (99%)"
        )
        if (slowest := pipeline.bottleneck) is not None:
            limit = slowest.fps_limit
            yield f"limit  {slowest.stage}: without it the rest could reach {limit:.0f} fps"
            yield f"       {slowest.advice}"


class _Rate:
    """Frames a second over the last few seconds."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque()

    def __call__(self, now: float, count: int) -> float:
        self._marks.append((now, count))
        while now - self._marks[0][0] > _WINDOW_S and len(self._marks) > 2:
            self._marks.popleft()
        (then, before) = self._marks[0]
        return (count - before) / (now - then) if now > then else 0.0


class _Lines:
    """A line every few seconds, for logs and pipes."""

    def __init__(
        self,
        total: int | None,
        books: Books,
        more: Callable[[], str],
        say: Callable[[str], None],
    ) -> None:
        self._total, self._books, self._more, self._say = total, books, more, say
        self._rate = _Rate()
        self._last = time.perf_counter()
        self._rate(self._last, 0)

    def __call__(self) -> None:
        now = time.perf_counter()
        if now - self._last >= _LINE_EVERY_S:
            self._last = now
            rate = self._rate(now, self._books.delivered)
            self._say(describe(self._books, self._total, rate) + self._more())


def describe(books: Books, total: int | None, rate: float) -> str:
    """Progress as one line."""
    done = books.delivered
    text = f"{done}/{total} frames" if total else f"{done} frames"
    text += f", {rate:.1f} fps"
    if total and rate:
        text += f", {max(0.0, total - done) / rate:.0f} s left"
    return f"{text}, {books.dropped} dropped" if books.dropped else text


@contextmanager
def _counting_bar(total: int) -> Iterator[Callable[[int, str], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns: list[Any] = [BarColumn(bar_width=None), TextColumn("{task.description}")]
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=total)
        yield lambda done, line: bar.update(task, completed=done, description=line)


@contextmanager
def _bar(total: int | None, books: Books, more: Callable[[], str]) -> Iterator[Callable[[], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns: list[Any] = [BarColumn(bar_width=None), TextColumn("{task.description}")]
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=total)
        rate, next_at = _Rate(), 0.0

        def tick() -> None:
            nonlocal next_at
            now = time.perf_counter()
            if now >= next_at:  # ten times a second is enough for eyes
                next_at = now + 0.1
                line = describe(books, total, rate(now, books.delivered)) + more()
                bar.update(task, completed=books.delivered, description=line)

        yield tick


class _BuildLines:
    """A line now and then, for logs and pipes; it never stops the build."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._last = time.perf_counter()

    def __call__(self, phase: str, share: float | None) -> bool:
        now = time.perf_counter()
        if now - self._last >= _LINE_EVERY_S:
            self._last = now
            self._say(f"{phase}: {share:.0%}" if share is not None else phase)
        return True


@contextmanager
def _build_bar() -> Iterator[Callable[[str, float | None], bool]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns: list[Any] = [
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TimeElapsedColumn(),
    ]
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task: Any = None

        def watch(phase: str, share: float | None) -> bool:
            nonlocal task
            if task is None:  # nothing to show for a plan that is there already
                task = bar.add_task(phase, total=None)
            total = None if share is None else 1.0
            bar.update(task, description=phase[:60], completed=share or 0.0, total=total)
            return True

        yield watch
