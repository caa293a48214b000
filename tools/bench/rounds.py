"""The rounds of a benchmark: every measurement in turn, and what they come to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engines.engine import Engine
from engines.errors import EngineError
from pipeline.errors import PipelineError
from pipeline.sources import AnySource, SyntheticSource, open_source
from pipeline.stats import Histogram
from tools.bench.latency import PERCENTS, LiveRun, run_live, search_peak
from tools.bench.measure import ENDLESS, Alone, Passed, Stop, measure_engine, measure_pipeline
from tools.bench.plan import Case, Size
from tools.bench.result import Live, Peak, Probe, Row, Series
from tools.errors import ToolError
from tools.progress import Printer

# Rates that a search for the peak tries at most: from one that is a third off to within 3%.
PROBES = 6

# What goes wrong with one combination and leaves the others alone.
FAULTS = (EngineError, PipelineError, ToolError)


@dataclass(frozen=True)
class Ask:
    """The options of `streamseg bench`."""

    cases: list[Case]
    source: str | None
    picture: Size
    card: Path | None
    weights: str | None
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
class Entry:
    """A combination on its way: its row, its engine, and what each round has found."""

    case: Case
    row: Row
    engine: Engine | None = None
    rates: dict[str, list[float]] = field(default_factory=dict)
    cpu_ms: dict[str, list[float]] = field(default_factory=dict)
    live: dict[float, list[LiveRun]] = field(default_factory=dict)
    peaks: list[float] = field(default_factory=list)
    probes: list[Probe] = field(default_factory=list)


def take_round(
    number: int, entries: Sequence[Entry], ask: Ask, picture: Size, stop: Stop, say: Printer
) -> None:
    """Each measurement of each combination once, so that a slow minute meets all alike."""
    for entry in entries:
        if entry.engine is None:
            continue
        try:
            said = _measure(number, entry, entry.engine, ask, picture, stop)
        except FAULTS as error:
            fail(entry, error, say)
        else:
            say.note(f"round {number}/{ask.rounds}  {entry.row.title}: {', '.join(said)}")


def _measure(
    number: int, entry: Entry, engine: Engine, ask: Ask, picture: Size, stop: Stop
) -> list[str]:
    """One round of one combination, in words."""
    said = []

    def keep(part: str, found: Alone | Passed) -> None:
        entry.rates.setdefault(part, []).append(found.fps)
        entry.cpu_ms.setdefault(part, []).append(found.cpu_ms)
        said.append(f"{part} {found.fps:.1f} fps")

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
        keep(part, passed)
        _keep_stages(entry.row, part, passed)
    for fps in ask.rates if "live" in ask.parts else ():
        run = run_live(engine, fps, ask.seconds, ask.warmup, picture, stop)
        entry.live.setdefault(fps, []).append(run)
        said.append(f"{fps:g} fps: {run.missed} missed")
    if "peak" in ask.parts:
        start = entry.peaks[-1] if entry.peaks else 0.0
        start = start or entry.rates.get("synthetic", [0.0])[-1]
        start = start or measure_engine(engine, min(1.0, ask.seconds), ask.warmup, stop).fps

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

        entry.peaks.append(search_peak(probe, start, PROBES))
        said.append(f"peak {entry.peaks[-1]:.1f} fps")
    return said


def _keep_stages(row: Row, part: str, passed: Passed) -> None:
    """The last round's stand for all: means a frame hardly differ from round to round."""
    row.stages[part] = passed.stages
    if passed.bottleneck is not None:
        row.bottleneck[part] = passed.bottleneck


def finish(entry: Entry) -> None:
    """Rounds -> medians and spreads, in the row."""
    row = entry.row
    row.rates = {part: Series.of(values) for part, values in entry.rates.items()}
    row.cpu_ms = {part: Series.of(values) for part, values in entry.cpu_ms.items()}
    for part, base in (("synthetic", "engine"), ("file", "engine"), ("file", "synthetic")):
        # Within a round, so that what slows the machine down for a while slows both.
        pairs = zip(entry.rates.get(part, ()), entry.rates.get(base, ()), strict=False)
        if ratios := [over / under for over, under in pairs if under]:
            row.ratios[f"{part}/{base}"] = Series.of(ratios)
    row.live = [_live(runs) for _, runs in sorted(entry.live.items())]
    if entry.peaks:
        row.peak = Peak(fps=Series.of(entry.peaks), probes=entry.probes)


def _live(runs: Sequence[LiveRun]) -> Live:
    pooled = Histogram()
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


def fail(entry: Entry, error: Exception, say: Printer) -> None:
    entry.row.error = " ".join(str(error).split())
    entry.engine = None
    say.note(f"failed  {entry.case}: {entry.row.error}")
