"""One benchmark, from the plan to the files."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import cv2

from engines.choose import load_engine
from engines.engine import Engine
from engines.errors import EngineError
from engines.model import Model
from pipeline.errors import PipelineError
from pipeline.sinks.destination import check_file, disk_errors
from pipeline.sinks.images import write_whole
from pipeline.sources import AnySource, SyntheticSource, open_source
from tools.bench.html import to_html
from tools.bench.latency import PERCENTS, LiveRun, run_live, search_peak
from tools.bench.machine import OthersMeter, examine_machine, load_average
from tools.bench.measure import (
    ENDLESS,
    Passed,
    Stop,
    StoppedMeasuring,
    measure_engine,
    measure_pipeline,
    warm_up,
)
from tools.bench.plan import Case, Size, model_of
from tools.bench.result import Live, Peak, Probe, Result, Row, Series, Settings, Timeline
from tools.bench.tables import to_markdown, to_text
from tools.bench.timeline import traced_run
from tools.errors import ToolError
from tools.interrupt import interruptible
from tools.progress import Printer

# Rounds of the search for the peak: from a rate that is off by a third, to within 3%.
_PROBES = 6

# What goes wrong with one combination and leaves the others alone.
_FAULTS = (EngineError, PipelineError, ToolError)


@dataclass(frozen=True)
class Ask:
    """The options of `streamseg bench`."""

    cases: list[Case]
    source: str | None
    picture: Size
    card: Path | None
    weights: str
    device: str | None
    seconds: float
    warmup: float
    rounds: int
    rates: list[float]
    parts: list[str]
    json: Path | None = None
    markdown: Path | None = None
    html: Path | None = None
    trace: Path | None = None
    force: bool = False
    quiet: bool = False


@dataclass
class _Entry:
    """A combination on its way: its row, its engine, and what each round has found."""

    case: Case
    row: Row
    engine: Engine | None = None
    rates: dict[str, list[float]] = field(default_factory=dict)
    live: dict[float, list[LiveRun]] = field(default_factory=dict)
    peaks: list[float] = field(default_factory=list)
    probes: list[Probe] = field(default_factory=list)


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
            with closing(open_source(ask.source)) as source:
                picture = (source.info.height, source.info.width)
        result = _empty(ask, picture)
        others = OthersMeter()
        entries = [_Entry(case, _empty_row(case)) for case in ask.cases]
        with ExitStack() as stack, interrupt.stopping(stop):
            error: Exception | None = None
            try:
                for entry in entries:
                    _load(entry, ask, stack, load, stop, say)
                _require_one(entries)
                _announce(entries, ask, say)
                for number in range(1, ask.rounds + 1):
                    _round(number, entries, ask, picture, stop, say)
                    result.rounds_done = number
                result.timeline = _traced(entries, ask, picture, stop, say)
            except StoppedMeasuring:
                result.interrupted = True
            except Exception as caught:  # whatever it is, what was measured is kept
                if not any(entry.rates or entry.live for entry in entries):
                    raise
                error = caught
            for entry in entries:
                _finish(entry)
        result.rows = [entry.row for entry in entries]
        result.machine.load_after = load_average()
        result.machine.others_cpu_percent = others.percent()
        _publish(result, ask, say)
        if error is not None:
            raise error
    return 130 if result.interrupted else 0


def _check_files(ask: Ask) -> None:
    """Before minutes of work: every file can be made, and each is another."""
    paths = [p for p in (ask.json, ask.markdown, ask.html, ask.trace) if p is not None]
    for path in paths:
        if sum(path.resolve() == other.resolve() for other in paths) > 1:
            raise ToolError(f"{path} is named twice as an output; each needs its own")
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
    entry: _Entry,
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
    except _FAULTS as error:
        stop.check()  # a build that was stopped is no fault of the combination
        _fail(entry, error, say)
        return
    entry.engine = engine
    row, info, size = entry.row, engine.info, engine.card.input
    row.model, row.size = engine.card.name, f"{size.height}x{size.width}"
    row.engine, row.precision, row.version = info.name, info.precision, info.version
    row.device, row.why = info.device, info.why
    row.load_s = round(time.perf_counter() - begun, 3)


def _fail(entry: _Entry, error: Exception, say: Printer) -> None:
    entry.row.error = " ".join(str(error).split())
    entry.engine = None
    say.note(f"failed  {entry.case}: {entry.row.error}")


def _require_one(entries: Sequence[_Entry]) -> None:
    if all(entry.engine is None for entry in entries):
        first = entries[0].row.error
        more = f" (and {len(entries) - 1} more fail)" if len(entries) > 1 else ""
        raise ToolError(f"nothing can be measured: {first}{more}")


def _announce(entries: Sequence[_Entry], ask: Ask, say: Printer) -> None:
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
        + ("peak" in ask.parts) * _PROBES
    )
    most = ask.rounds * runs * each
    say.note(
        f"plan    {ask.rounds} rounds of {runs} runs, about {most / 60:.1f} min; Ctrl-C ends "
        "them and keeps what there is"
    )


def _round(
    number: int, entries: Sequence[_Entry], ask: Ask, picture: Size, stop: Stop, say: Printer
) -> None:
    """Each measurement of each combination once, so that a slow minute meets all alike."""
    for entry in entries:
        if entry.engine is None:
            continue
        try:
            said = _measure(number, entry, entry.engine, ask, picture, stop)
        except _FAULTS as error:
            _fail(entry, error, say)
        else:
            say.note(f"round {number}/{ask.rounds}  {entry.row.title}: {', '.join(said)}")


def _measure(
    number: int, entry: _Entry, engine: Engine, ask: Ask, picture: Size, stop: Stop
) -> list[str]:
    """One round of one combination, in words."""
    said = []

    def keep(part: str, fps: float) -> None:
        entry.rates.setdefault(part, []).append(fps)
        said.append(f"{part} {fps:.1f} fps")

    if "engine" in ask.parts:
        keep("engine", measure_engine(engine, ask.seconds, ask.warmup, stop))
    if entry.case.batch != 1:
        return said  # a pipeline submits single pictures
    sources: dict[str, Callable[[], AnySource]] = {}
    if "synthetic" in ask.parts:
        sources["synthetic"] = lambda: SyntheticSource(*picture, count=ENDLESS)
    if "file" in ask.parts and (name := ask.source) is not None:
        sources["file"] = lambda: open_source(name)
    for part, opened in sources.items():
        passed = measure_pipeline(opened(), engine, ask.seconds, ask.warmup, stop)
        keep(part, passed.fps)
        _keep_stages(entry.row, part, passed)
    for fps in ask.rates if "live" in ask.parts else ():
        run = run_live(engine, fps, ask.seconds, ask.warmup, picture, stop)
        entry.live.setdefault(fps, []).append(run)
        said.append(f"{fps:g} fps: {run.missed} missed")
    if "peak" in ask.parts:
        start = entry.peaks[-1] if entry.peaks else 0.0
        start = start or entry.rates.get("synthetic", [0.0])[-1]
        start = start or measure_engine(engine, min(1.0, ask.seconds), ask.warmup, stop)

        def probe(fps: float) -> bool:
            run = run_live(engine, fps, ask.seconds, ask.warmup, picture, stop)
            entry.probes.append(
                Probe(
                    round=number,
                    fps=round(run.fps, 3),
                    missed_percent=round(100 * run.missed / run.frames, 3),
                    delivered_fps=round(run.delivered_fps, 3),
                    sustained=run.sustained,
                )
            )
            return run.sustained

        entry.peaks.append(search_peak(probe, start, _PROBES))
        said.append(f"peak {entry.peaks[-1]:.1f} fps")
    return said


def _keep_stages(row: Row, part: str, passed: Passed) -> None:
    """The last round's stand for all: means a frame hardly differ from round to round."""
    row.stages[part] = passed.stages
    if passed.bottleneck is not None:
        row.bottleneck[part] = passed.bottleneck


def _finish(entry: _Entry) -> None:
    """Rounds -> medians and spreads, in the row."""
    row = entry.row
    row.rates = {part: Series.of(values) for part, values in entry.rates.items()}
    for part, base in (("synthetic", "engine"), ("file", "engine"), ("file", "synthetic")):
        # Within a round, so that what slows the machine down for a while slows both.
        pairs = zip(entry.rates.get(part, ()), entry.rates.get(base, ()), strict=False)
        if ratios := [over / under for over, under in pairs if under]:
            row.ratios[f"{part}/{base}"] = Series.of(ratios)
    row.live = [_live(runs) for _, runs in sorted(entry.live.items())]
    if entry.peaks:
        row.peak = Peak(fps=Series.of(entry.peaks), probes=entry.probes)


def _live(runs: Sequence[LiveRun]) -> Live:
    pooled = type(runs[0].latency)()
    for run in runs:
        pooled.merge(run.latency)
    return Live(
        fps=round(runs[0].fps, 3),
        frames=sum(run.frames for run in runs),
        missed=sum(run.missed for run in runs),
        missed_percent=Series.of([100 * run.missed / run.frames for run in runs]),
        offered_fps=Series.of([run.offered_fps for run in runs]),
        latency_ms=pooled.as_dict(PERCENTS),
        p50_ms=Series.of([1000 * run.latency.percentile_s(50) for run in runs]),
        p99_ms=Series.of([1000 * run.latency.percentile_s(99) for run in runs]),
        jitter_ms=Series.of([1000 * run.jitter_s for run in runs]),
        distribution=[
            (round(1000 * low, 4), round(1000 * high, 4), n) for low, high, n in pooled.buckets()
        ],
    )


def _traced(
    entries: Sequence[_Entry], ask: Ask, picture: Size, stop: Stop, say: Printer
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
            f"stopped in round {result.rounds_done + 1} of {ask.rounds}; "
            f"what was measured until then is {kept}"
        )
