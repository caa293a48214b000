"""One benchmark, from the plan to the files."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NoReturn

import cv2

from engines.choose import load_engine
from engines.engine import Engine
from engines.model import Model
from pipeline.sinks.destination import check_file, disk_errors
from pipeline.sinks.images import write_whole
from pipeline.sources import open_recorded
from tools.bench.html import to_html
from tools.bench.machine import OthersMeter, examine_machine, load_average
from tools.bench.measure import Stop, StoppedMeasuring, warm_up
from tools.bench.plan import Case, Size, model_of
from tools.bench.result import Result, Row, Settings, Timeline
from tools.bench.rounds import FAULTS, PROBES, Ask, Entry, fail, finish, take_round
from tools.bench.tables import to_markdown, to_text
from tools.bench.timeline import traced_run
from tools.errors import ToolError
from tools.interrupt import interruptible
from tools.progress import Printer


def bench(ask: Ask, load: Callable[..., Engine] = load_engine) -> int:
    """Measures, prints and writes; returns the exit code. `load` is `engines.choose.load_engine`,
    or what a test has in its place.

    Raises ToolError, PipelineError or EngineError where nothing could be measured.
    """
    cv2.setNumThreads(1)  # the network has the cores
    say, stop = Printer(quiet=ask.quiet), Stop()
    with interruptible(say.note) as interrupt:
        _check_files(ask)
        picture = ask.picture
        if ask.source is not None:
            with closing(open_recorded(ask.source)) as source:
                picture = (source.info.height, source.info.width)
        result = _empty(ask, picture)
        others = OthersMeter()
        entries = [Entry(case, _empty_row(case)) for case in ask.cases]
        with ExitStack() as stack, interrupt.stopping(stop):
            error: Exception | None = None
            try:
                for entry in entries:
                    _load(entry, ask, stack, load, stop, say)
                _require_one(entries)
                _announce(entries, ask, say)
                for number in range(1, ask.rounds + 1):
                    take_round(number, entries, ask, picture, stop, say)
                    result.rounds_done = number
                result.timeline = _traced(entries, ask, picture, stop, say)
            except StoppedMeasuring:
                result.interrupted = True
            except Exception as caught:  # whatever it is, what was measured is kept
                if not any(_has_figures(entry) for entry in entries):
                    raise
                error = caught
            for entry in entries:
                finish(entry)
        result.rows = [entry.row for entry in entries]
        if not result.interrupted and not any(_has_figures(entry) for entry in entries):
            _nothing(entries)
        result.machine.load_after = load_average()
        result.machine.others_cpu_percent = others.percent()
        _publish(result, ask, say)
        if error is not None:
            raise error
    return 130 if result.interrupted else 0


def _check_files(ask: Ask) -> None:
    """Before minutes of work: every file can be made, and each is another."""
    paths = [p for p in (ask.json, ask.markdown, ask.html, ask.trace) if p is not None]
    named = (ask.source, ask.card, *(case.model for case in ask.cases))
    inputs = [name for name in named if name is not None]
    for path in paths:
        if sum(path.resolve() == other.resolve() for other in paths) > 1:
            raise ToolError(f"{path} is named twice as an output; each needs its own")
        if any(path.resolve() == Path(name).resolve() for name in inputs):
            raise ToolError(f"{path} is what is measured; name another output")
        check_file(path, ask.force)


def _empty(ask: Ask, picture: Size) -> Result:
    try:
        own = version("streamseg")
    except PackageNotFoundError:
        own = "not installed"
    return Result(
        made=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        streamseg=own,
        machine=examine_machine(),
        settings=Settings(
            source=None if ask.source is None else Path(ask.source).name,
            picture=f"{picture[0]}x{picture[1]}",
            seconds=ask.seconds,
            warmup_s=ask.warmup,
            rounds=ask.rounds,
            rates=ask.rates,
            parts=ask.parts,
        ),
    )


def _empty_row(case: Case) -> Row:
    size = None if case.size is None else f"{case.size[0]}x{case.size[1]}"
    asked = {"model": case.model, "engine": case.engine, "precision": case.precision}
    return Row(
        model=Path(case.model).stem,
        size=size,
        batch=case.batch,
        engine=case.engine,
        precision=case.precision,
        asked=asked if size is None else {**asked, "size": size},
    )


def _load(
    entry: Entry,
    ask: Ask,
    stack: ExitStack,
    load: Callable[..., Engine],
    stop: Stop,
    say: Printer,
) -> None:
    """Loads and warms the engine; what is wrong with this combination is noted in its row."""
    stop.check()
    case, begun = entry.case, time.perf_counter()
    try:
        model: Model = model_of(case, ask.card, ask.weights)
        with say.building() as watch:

            def go_on(phase: str, share: float | None) -> bool:
                return watch(phase, share) and not stop.asked

            engine = stack.enter_context(
                load(
                    model,
                    engine=case.engine,
                    precision=case.precision,
                    device=ask.device,
                    batch=case.batch,
                    say=say.note,
                    watch=go_on,
                )
            )
        warm_up(engine)
    except FAULTS as error:
        stop.check()  # a build that was stopped is no fault of the combination
        fail(entry, error, say)
        return
    entry.engine = engine
    row, info, size = entry.row, engine.info, engine.card.input
    row.model, row.size = engine.card.name, f"{size.height}x{size.width}"
    row.engine, row.precision, row.version = info.name, info.precision, info.version
    row.device, row.why = info.device, info.why
    row.load_s = round(time.perf_counter() - begun, 3)


def _require_one(entries: Sequence[Entry]) -> None:
    if all(entry.engine is None for entry in entries):
        _nothing(entries)


def _has_figures(entry: Entry) -> bool:
    return bool(entry.rates or entry.live or entry.peaks)


def _nothing(entries: Sequence[Entry]) -> NoReturn:
    first = entries[0].row.error
    more = f" (and {len(entries) - 1} more fail)" if len(entries) > 1 else ""
    raise ToolError(f"nothing can be measured: {first}{more}")


def _announce(entries: Sequence[Entry], ask: Ask, say: Printer) -> None:
    ready = [entry for entry in entries if entry.engine is not None]
    for entry in ready:
        row = entry.row
        say.note(f"measure {row.title} on {row.device}; loaded in {row.load_s:.1f} s")
    each = ask.seconds + ask.warmup
    singles = sum(entry.case.batch == 1 for entry in ready)
    runs = ("engine" in ask.parts) * len(ready) + singles * (
        ("synthetic" in ask.parts)
        + ("file" in ask.parts and ask.source is not None)
        + ("live" in ask.parts) * len(ask.rates)
        + ("peak" in ask.parts) * PROBES
    )
    most = ask.rounds * runs * each
    say.note(
        f"plan    {ask.rounds} rounds of {runs} runs, about {most / 60:.1f} min; Ctrl-C ends "
        "them and keeps what there is"
    )


def _traced(
    entries: Sequence[Entry], ask: Ask, picture: Size, stop: Stop, say: Printer
) -> Timeline | None:
    """A short traced run of the first combination that works, for the timeline and `--trace`."""
    ready = [e for e in entries if e.engine is not None and e.case.batch == 1]
    if not ready or (ask.html is None and ask.json is None and ask.trace is None):
        return None
    entry = ready[0]
    assert entry.engine is not None
    return traced_run(entry.engine, entry.row.title, picture, ask.warmup, stop, ask.trace, say)


def _publish(result: Result, ask: Ask, say: Printer) -> None:
    """Prints the tables and writes the files."""
    for path, text in (
        (ask.json, result.to_json),
        (ask.markdown, lambda: to_markdown(result)),
        (ask.html, lambda: to_html(result)),
    ):
        if path is not None:
            with disk_errors(path):
                write_whole(path, text().encode())
            say.note(f"wrote   {path}")
    if not ask.quiet:
        print(to_text(result), flush=True)
    if result.interrupted:
        kept = "kept" if ask.json is not None else "printed (--json keeps it)"
        say.note(
            f"stopped after {result.rounds_done} of {ask.rounds} rounds; "
            f"what was measured until then is {kept}"
        )
