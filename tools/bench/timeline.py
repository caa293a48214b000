"""One traced run, cut to a few frames in the steady state."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from engines.engine import Engine
from pipeline.api import stages_for
from pipeline.perfetto import trace_events
from pipeline.runner import Pipeline
from pipeline.sources import SyntheticSource
from tools.bench.measure import ENDLESS, Stop
from tools.bench.plan import Size
from tools.bench.result import Span, Timeline
from tools.progress import Printer
from tools.tracing import save_trace, tracing

FRAMES = 12
"""Frames in the picture; more are too narrow to be told apart."""

FLIGHT = "network"
"""The row of what is under way in the engine, from its submission to its result."""

# Beyond the warm-up, so that the cut lies in the steady state.
_MORE_FRAMES = 40


def traced_run(
    engine: Engine,
    title: str,
    picture: Size,
    warmup_s: float,
    stop: Stop,
    path: Path | None,
    say: Printer,
) -> Timeline:
    """Runs the synthetic source of (H, W) `picture` traced; the whole trace goes to `path`."""
    source = SyntheticSource(*picture, count=ENDLESS)
    with tracing(engine) as trace:
        pipeline = Pipeline(source, stages_for(engine), trace=trace)
        begun, beyond = time.perf_counter(), 0
        with stop.ending(pipeline):
            for _ in pipeline:
                beyond += time.perf_counter() - begun >= warmup_s
                if beyond == _MORE_FRAMES:
                    break
        timeline = Timeline(title=title, spans=cut(trace_events(trace), FRAMES))
        if path is not None:
            save_trace(trace, path, source.name, engine, say)
    return timeline


def cut(events: Iterable[dict[str, Any]], frames: int) -> list[Span]:
    """What went on while the last `frames` frames but a few came out; times from the cut's start.

    Rows are the trace's threads, in order, with the engine's own after `infer`.
    """
    names: dict[int, str] = {}
    spans: list[Span] = []
    submitted: dict[int, float] = {}
    waited: dict[int, float] = {}
    flights: list[Span] = []
    for event in events:
        if event["ph"] == "M" and event["name"] == "thread_name":
            names[event["tid"]] = event["args"]["name"]
        if event["ph"] != "X" or event["cat"] not in ("work", "wait"):
            continue
        row, begin = names[event["tid"]], event["ts"] / 1000
        end, frame = begin + event["dur"] / 1000, event.get("args", {}).get("frame")
        kind = event["cat"]
        spans.append(Span(row=row, kind=kind, frame=frame, begin_ms=begin, end_ms=end))
        if row == "infer" and kind == "work":
            submitted[frame] = end
        if event["name"] == "wait for engine":
            waited[event["tid"]] = end
        if row == "colorize" and kind == "work" and frame in submitted:
            # Without a wait for the engine its answer was there when it was asked for.
            done = waited.pop(event["tid"], begin)
            flights.append(
                Span(
                    row=FLIGHT, kind="flight", frame=frame, begin_ms=submitted[frame],
                    end_ms=max(done, submitted[frame]),
                )
            )  # fmt: skip
    return _window(spans, flights, list(names.values()), frames)


def _window(spans: list[Span], flights: list[Span], rows: list[str], frames: int) -> list[Span]:
    last = rows[-1] if rows else ""
    out = sorted(s.begin_ms for s in spans if s.row == last and s.kind == "work")
    if len(out) < 2:
        return []
    # The very last frames leave a pipeline that is being stopped.
    end = out[max(1, len(out) - 5)]
    begin = out[max(0, len(out) - 5 - frames)]
    if "infer" in rows:
        rows.insert(rows.index("infer") + 1, FLIGHT)
    inside = [s for s in [*spans, *flights] if s.end_ms > begin and s.begin_ms < end]
    moved = [
        s.model_copy(
            update={
                "begin_ms": round(max(s.begin_ms, begin) - begin, 4),
                "end_ms": round(min(s.end_ms, end) - begin, 4),
            }
        )
        for s in inside
    ]
    return sorted(moved, key=lambda s: (rows.index(s.row), s.begin_ms))
