"""A run of several sources on one engine: a thread and a pipeline each, a report for all."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.choose import choose_engine
from engines.cores import available_cores
from engines.engine import Engine
from engines.model import PLAN_SUFFIX, Model
from engines.shared import SharedEngine, View
from pipeline.runner import Pipeline
from pipeline.sinks.destination import check_file
from pipeline.sources import SyntheticSource
from pipeline.sources.live.address import redact
from pipeline.stages import Controls
from pipeline.threads import expect_pipelines
from pipeline.together import Together
from tools.config import RunConfig
from tools.devices import spread
from tools.errors import error_line
from tools.execute import load
from tools.interrupt import Interrupt
from tools.job import (
    Job,
    announce_engine,
    announce_outputs,
    announce_source,
    connect,
    drive,
    finish,
    open_job,
)
from tools.mosaic import Screen, open_screen
from tools.names import source_names
from tools.progress import Printer
from tools.report import make_report, write_report

# The largest batch that is asked of an engine that gains from batches.
_MOST_TOGETHER = 8


def run_several(
    ask: RunConfig,
    asks: Sequence[RunConfig],
    model: Model,
    controls: Controls,
    say: Printer,
    interrupt: Interrupt,
) -> int:
    """Runs each of `asks`, which are `ask`'s sources; returns the exit code.

    What goes wrong with one source is told at once and is its own affair. Raises what concerns all:
    a network that cannot be loaded, a window that cannot be opened.
    """
    expect_pipelines(len(asks))
    if ask.report is not None:
        check_file(Path(ask.report), ask.force)
    names, books = source_names(ask.source), Together()
    with open_screen(ask, names, model.card, controls, books, say) as screen:
        devices = spread(ask.device, len(asks))
        several = _Several(asks, names, model, controls, books, screen, say)
        with ExitStack() as opened:
            try:
                engines = [
                    opened.enter_context(
                        load(ask.model_copy(update={"device": d}), model, say, _batch(ask, model))
                    )
                    for d in devices
                ]
            except BaseException:
                several.abandon()
                raise
            groups = []
            for i, engine in enumerate(engines):
                parts = several.parts[i :: len(engines)]
                shared = opened.enter_context(SharedEngine(engine, len(parts)))
                groups.append(_Group(engine, shared, parts))
                announce_engine(say, engine)
            begun = _Clocks(groups)
            with interrupt.stopping(several.stop):
                several.run(groups)
            begun.settle(groups, screen)
            reports = several.finish(groups, begun.wall_s)
    if ask.report is not None:
        write_report(Path(ask.report), {"schema": 1, "runs": reports})
    if screen is not None and screen.error is not None:
        raise screen.error
    if any(part.error for part in several.parts):
        return 1
    quit_by_key = screen is not None and screen.quit
    return 130 if several.stopped and not quit_by_key else 0


class _Part:
    """One source, from its opening to its end, in a thread of its own."""

    thread: threading.Thread

    def __init__(self, ask: RunConfig, name: str, say: Printer) -> None:
        self.ask, self.name, self.say = ask, name, say
        self.view: Future[View] = Future()
        """Its share of the engine, once that is loaded."""
        self.job: Job | None = None
        """From when the source is open."""
        self.error: Exception | None = None

    def fail(self, error: Exception) -> None:
        self.error = error
        self.say.error(error_line(error))
        if "--debug" in sys.argv:
            traceback.print_exception(error)


@dataclass(frozen=True)
class _Group:
    """What runs on one engine."""

    engine: Engine
    shared: SharedEngine
    parts: Sequence[_Part]

    @property
    def pairs(self) -> list[tuple[_Part, View]]:
        """Each source and its share of the engine."""
        return list(zip(self.parts, self.shared.views, strict=True))


class _Several:
    """The sources' threads. Each opens its source by itself, as one may take long to be there."""

    def __init__(
        self,
        asks: Sequence[RunConfig],
        names: Sequence[str],
        model: Model,
        controls: Controls,
        books: Together,
        screen: Screen | None,
        say: Printer,
    ) -> None:
        self._model, self._controls, self._books = model, controls, books
        self._screen, self._say = screen, say
        self._stop = threading.Event()
        self.parts = [_Part(a, name, say.named(name)) for a, name in zip(asks, names, strict=True)]
        for number, part in enumerate(self.parts):
            # A daemon: who waits for a source that never comes must not hold up the program's end.
            part.thread = threading.Thread(
                target=self._work, args=(number,), name=f"run {part.name}", daemon=True
            )
            part.thread.start()

    @property
    def stopped(self) -> bool:
        return self._stop.is_set()

    def stop(self) -> None:
        """Ends all of them early; any thread but a signal handler's."""
        self._stop.set()
        for part in self.parts:
            if part.job is not None and part.job.pipeline is not None:
                part.job.pipeline.stop()
        if self._screen is not None:
            self._screen.stop()

    def abandon(self) -> None:
        """There will be no engine."""
        for part in self.parts:
            part.view.cancel()

    def run(self, groups: Sequence[_Group]) -> None:
        """Gives each its share of its engine; returns when all have ended."""
        if self._screen is not None:
            self._screen.start(self.stop)
        for part, view in (pair for group in groups for pair in group.pairs):
            part.view.set_result(view)
            if part.error is not None:
                view.close()  # or a batch would wait for it
        with self._say.progress(self._total(), self._books, self._count) as tick:
            while running := self._running():
                running[0].thread.join(0.1)
                tick()
        if self._screen is not None:
            jobs = [part.job for part in self.parts if part.job is not None]
            stills = bool(jobs) and all(job.is_still for job in jobs)
            self._screen.end(stay=stills and not self.stopped)

    def finish(self, groups: Sequence[_Group], wall_s: float) -> list[dict[str, Any]]:
        """Prints the summaries; returns the reports."""
        reports = []
        for i, part in enumerate(self.parts):
            job, engine = part.job, groups[i % len(groups)].engine
            if job is None or job.pipeline is None:
                reports.append(_report_unread(part, engine))
                continue
            reports.append(finish(job, engine))
            if job.error is not None and part.error is None:  # of the trace
                part.fail(job.error)
        self._say.result([self._summary(wall_s)])
        return reports

    def _work(self, number: int) -> None:
        part, screen = self.parts[number], self._screen
        try:
            with open_job(part.ask, self._model, part.say) as job:
                if self.stopped:  # it came too late, and nobody waits for it any more
                    return
                if screen is not None:
                    job.sinks.append(screen.mosaic.tiles[number])
                part.job = job
                announce_source(job)
                announce_outputs(job)
                with part.view.result() as view:
                    pipeline = connect(job, view, self._controls)
                    self._books.add(pipeline)
                    if self._stop.is_set():  # `stop` may have come before there was a pipeline
                        pipeline.stop()
                    drive(job)
                if job.error is not None:
                    part.fail(job.error)
        except CancelledError:
            pass
        except Exception as error:
            part.fail(error)
            if part.view.done() and not part.view.cancelled():
                part.view.result().close()
        finally:
            if screen is not None:
                screen.mosaic.leave(number)

    def _running(self) -> list[_Part]:
        """Those to be waited for: of what is stopped, not those whose source has not come yet."""
        alive = [part for part in self.parts if part.thread.is_alive()]
        return [part for part in alive if part.job is not None or not self.stopped]

    def _total(self) -> int | None:
        """How many frames will come; None where somebody does not know."""
        total = 0
        for part in self.parts:
            if part.error is None:
                count = None if part.job is None else part.job.source.info.frames
                if count is None:
                    return None
                total += count
        return total

    def _count(self) -> str:
        return f", {len(self._running())} of {len(self.parts)} sources"

    def _summary(self, wall_s: float) -> str:
        done, failed = self._books.delivered, sum(part.error is not None for part in self.parts)
        rate = done / wall_s if wall_s else 0.0
        text = f"total  {done} frames of {len(self.parts)} sources, {rate:.1f} fps"
        return f"{text} over {wall_s:.1f} s" + (f"; {failed} failed" if failed else "")


class _Clocks:
    """The process's clocks at the start, to be shared out among the sources at the end."""

    def __init__(self, groups: Sequence[_Group]) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        self._busy_s = [group.engine.busy_s for group in groups]
        self.wall_s = 0.0

    def settle(self, groups: Sequence[_Group], screen: Screen | None) -> None:
        """What the engines' threads used is everybody's, by the pictures that they got of each."""
        self.wall_s = time.perf_counter() - self._wall
        cpu_s = time.process_time() - self._cpu
        ran = [
            (part.job.pipeline, view, i)
            for i, group in enumerate(groups)
            for part, view in group.pairs
            if part.job is not None and part.job.pipeline is not None
        ]
        own_s = sum(pipeline.threads_cpu_s for pipeline, *_ in ran)
        own_s += screen.threads_cpu_s if screen is not None else 0.0
        engine_cpu_s = max(0.0, cpu_s - own_s)
        pictures = sum(group.shared.pictures for group in groups)
        # Of lanes on its card an engine knows nothing: theirs together, and where they overlap, all
        # of the time, since each of them counts what the others computed meanwhile.
        lanes_s = [sum(p.engine_busy_s for p, _, at in ran if at == i) for i in range(len(groups))]
        busy_s = [
            max(group.engine.busy_s - before, min(lane_s, self.wall_s))
            for group, before, lane_s in zip(groups, self._busy_s, lanes_s, strict=True)
        ]
        for pipeline, view, i in ran:
            mine_s = pipeline.threads_cpu_s
            mine_s += engine_cpu_s * view.pictures / max(1, pictures)
            # As busy as all of them keep all cores, it keeps its own.
            lived = pipeline.wall_s / self.wall_s
            share = min(1.0, mine_s / (cpu_s * lived)) if cpu_s and lived else 1.0
            pipeline.settle(
                cpu_s=mine_s,
                cores=max(0.01, available_cores() * share),
                engine_busy_s=busy_s[i] * lived,
            )


def _report_unread(part: _Part, engine: Engine) -> dict[str, Any]:
    """The report of a source of which nothing was read: that of a run that has not begun."""
    pipeline = Pipeline(SyntheticSource(count=0), [])
    pipeline.interrupted = part.error is None
    return make_report(
        source=part.job.source.name if part.job else redact(part.ask.source[0]),
        engine=engine,
        pipeline=pipeline,
        outputs=[],
        every=part.ask.every,
        flicker=None,
        first_frame_s=None,
        error=part.error,
    )


def _batch(ask: RunConfig, model: Model) -> int:
    """Pictures that may go to the engine together. On processors one at a time is the fastest; a
    plan is built for few sizes, so that another source seldom means another plan.
    """
    if choose_engine(ask.engine).engine != "tensorrt" or model.file.suffix == PLAN_SUFFIX:
        return 1
    from engines.graph import takes_batches

    if not takes_batches(model.file):
        return 1
    return int(min(_MOST_TOGETHER, 1 << (len(ask.source) - 1).bit_length()))
