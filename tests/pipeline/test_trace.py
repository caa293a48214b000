"""Traces: every frame in every stage, in order; true lengths; valid JSON however a run ends."""

from __future__ import annotations

import itertools
import json
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from engines.fake_engine import FakeEngine
from pipeline import trace as tracing
from pipeline.channel import Channel
from pipeline.errors import SinkError
from pipeline.nvtx import nvtx_ranges
from pipeline.perfetto import write_trace
from pipeline.runner import Pipeline
from pipeline.trace import Recorder
from tests.pipeline.troubled import CARD, Collector, Fault, Numbers, Plan, stages_of

pytestmark = pytest.mark.timeout(30)
COUNT = 30
STAGES = ["capture", "preprocess", "infer", "colorize"]


def run_traced(path, plan=None, *, live=False, pause_s=0.0, sinks=(), on_frame=None, ranges=None):
    """A traced run and its trace; an error of the run's is swallowed if it was planned."""
    plan = plan or Plan(count=COUNT)
    with FakeEngine(CARD, delay_s=0.002, parallel=1) as engine, Recorder(ranges) as recorder:
        source = Numbers(plan, live=live, pause_s=pause_s)
        pipeline = Pipeline(source, stages_of(engine, plan), sinks, trace=recorder)
        try:
            with pipeline:
                for frame in pipeline:
                    if on_frame is not None:
                        on_frame(pipeline, frame)
        except Fault:
            assert plan.faults
        write_trace(recorder, path, {"model": "fake"})
    return pipeline, json.loads(path.read_text(encoding="utf-8"))


def threads_of(trace):
    """Thread number -> name."""
    named = [e for e in trace["traceEvents"] if e["ph"] == "M" and e["name"] == "thread_name"]
    return {e["tid"]: e["args"]["name"] for e in named}


def work_of(trace):
    """Thread name -> its spans of work, as they come."""
    names = threads_of(trace)
    rows = {name: [] for name in names.values()}
    for event in trace["traceEvents"]:
        if event["ph"] == "X" and event["cat"] == "work":
            rows[names[event["tid"]]].append(event)
    return rows


def frames_in(spans):
    return [span["args"]["frame"] for span in spans]


def test_every_frame_is_in_every_stage_and_sink_in_order(tmp_path):
    plan = Plan(count=COUNT)
    _, trace = run_traced(tmp_path / "t.json", plan, sinks=[Collector(plan, lag=3)])
    rows = work_of(trace)
    assert list(rows) == [*STAGES, "deliver", "file"]
    for name, spans in rows.items():
        assert frames_in(spans) == list(range(COUNT)), name
        assert all(span["dur"] >= 0 and span["ts"] >= 0 for span in spans)
        ends = [span["ts"] + span["dur"] for span in spans]
        for end, span in zip(ends, spans[1:], strict=False):
            assert span["ts"] >= end - 0.01, f"{name} did two things at once"
    for before, after in itertools.pairwise(STAGES):
        for one, next_ in zip(rows[before], rows[after], strict=True):
            assert next_["ts"] >= one["ts"] + one["dur"] - 0.01, "worked on before it was there"


def test_spans_last_as_long_as_the_work(tmp_path):
    def slow(pipeline, frame):
        time.sleep(0.01)

    pipeline, trace = run_traced(tmp_path / "t.json", on_frame=slow)
    rows = work_of(trace)
    assert all(span["dur"] >= 9_900 for span in rows["deliver"][:-1])
    busy = {s.name: s.busy_s for s in pipeline.stage_stats}
    # What the books call busy lies in the spans; outside them is but the hand-over.
    assert sum(s["dur"] for s in rows["preprocess"]) / 1e6 <= busy["preprocess"] + 0.005
    waits = [e for e in trace["traceEvents"] if e["ph"] == "X" and e["cat"] == "wait"]
    assert {"wait for room", "wait for a frame"} <= {e["name"] for e in waits}


def test_waiting_for_the_engine_lies_within_the_work(tmp_path):
    _, trace = run_traced(tmp_path / "t.json")
    number = {name: tid for tid, name in threads_of(trace).items()}["colorize"]
    mine = [e for e in trace["traceEvents"] if e["ph"] == "X" and e["tid"] == number]
    waits = [e for e in mine if e["name"] == "wait for engine"]
    work = [e for e in mine if e["cat"] == "work"]
    assert waits, "the engine is the slowest here"
    for wait in waits:
        assert any(
            w["ts"] - 0.01 <= wait["ts"] and wait["ts"] + wait["dur"] <= w["ts"] + w["dur"] + 0.01
            for w in work
        )


def lengths_of(trace):
    """Channel name -> the lengths that its counter takes, in time."""
    counters = [e for e in trace["traceEvents"] if e["ph"] == "C"]
    rows = {}
    for event in sorted(counters, key=lambda e: e["ts"]):
        rows.setdefault(event["name"].removeprefix("channel "), []).append(event["args"]["frames"])
    return rows


@pytest.mark.parametrize("live", [False, True])
def test_counters_step_by_one_between_zero_and_the_capacity(tmp_path, live):
    plan = Plan(count=60)
    sinks = [Collector(plan, "viewer", "drop_oldest", pause_s=0.005)]
    pipeline, trace = run_traced(tmp_path / "t.json", plan, live=live, sinks=sinks)
    capacities = trace["otherData"]["channels"]
    rows = lengths_of(trace)
    assert set(rows) == set(capacities) == {*STAGES, "to viewer"}
    for name, lengths in rows.items():
        assert max(lengths) <= capacities[name], name
        assert min(lengths) >= 0
        steps = {b - a for a, b in itertools.pairwise([0, *lengths])}
        assert steps <= {1, -1}, name
    filled = "capture" if live else "to viewer"
    assert max(rows[filled]) == capacities[filled], "what is dropped from was full"
    dropped = [e for e in trace["traceEvents"] if e["ph"] == "i" and e["name"] == "dropped"]
    unseen = sum(pipeline.ledger.skipped.values())
    assert len(dropped) == pipeline.ledger.dropped.get("stale", 0) + unseen > 0


def test_dropped_frames_end_where_they_were_dropped(tmp_path):
    pipeline, trace = run_traced(tmp_path / "t.json", Plan(count=60), live=True)
    gone = {e["args"]["frame"] for e in trace["traceEvents"] if e["ph"] == "i"}
    rows = work_of(trace)
    assert len(gone) == pipeline.ledger.dropped["stale"] > 0
    assert frames_in(rows["capture"]) == list(range(60))
    assert frames_in(rows["deliver"]) == [i for i in range(60) if i not in gone]
    opened = [e["id"] for e in trace["traceEvents"] if e["ph"] == "b"]
    closed = [e["id"] for e in trace["traceEvents"] if e["ph"] == "e"]
    assert sorted(opened) == sorted(closed) == list(range(60))


def test_an_arrow_follows_each_frame_through_spans(tmp_path):
    plan = Plan(count=COUNT)
    _, trace = run_traced(tmp_path / "t.json", plan, sinks=[Collector(plan)])
    ways = {}
    for event in trace["traceEvents"]:
        if event.get("cat") == "way":
            ways.setdefault(event["id"], []).append(event)
    assert sorted(ways) == list(range(COUNT))
    for steps in ways.values():
        by_time = sorted(steps, key=lambda e: e["tid"])
        assert [e["ph"] for e in by_time] == ["s", "t", "t", "t", "t", "f"]


@pytest.mark.parametrize("who", ["source", "preprocess", "infer", "colorize"])
def test_after_an_error_the_trace_is_whole(tmp_path, who):
    plan = Plan(who, "middle", count=COUNT)
    _, trace = run_traced(tmp_path / "t.json", plan)
    assert plan.faults
    captured = frames_in(work_of(trace)["capture"])
    assert captured == list(range(len(captured)))
    assert captured


def test_after_a_stop_the_trace_is_whole(tmp_path):
    def stop(pipeline, frame):
        if frame.index == 10:
            threading.Thread(target=pipeline.stop).start()

    pipeline, trace = run_traced(
        tmp_path / "t.json", Plan(count=5000), pause_s=0.001, on_frame=stop
    )
    assert pipeline.interrupted
    delivered = frames_in(work_of(trace)["deliver"])
    assert delivered == list(range(pipeline.ledger.delivered))


def test_a_caller_that_breaks_off_has_its_last_frame_in_the_trace(tmp_path):
    with FakeEngine(CARD) as engine, Recorder() as recorder:
        plan = Plan(count=COUNT)
        with Pipeline(Numbers(plan), stages_of(engine, plan), trace=recorder) as pipeline:
            for frame in pipeline:
                if frame.index == 4:
                    break
        write_trace(recorder, tmp_path / "t.json")
    trace = json.loads((tmp_path / "t.json").read_text())
    assert frames_in(work_of(trace)["deliver"]) == [0, 1, 2, 3, 4]


def test_memory_is_bounded_and_spilled_records_keep_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr(tracing, "_CHUNK", 10 * 24)
    most = []

    def watch(pipeline, frame):
        most.append(max(len(track._records) for track in recorders[-1].tracks))

    recorders = []
    with FakeEngine(CARD) as engine, Recorder() as recorder:
        recorders.append(recorder)
        plan = Plan(count=200)
        pipeline = Pipeline(Numbers(plan), stages_of(engine, plan), trace=recorder)
        pipeline.run(lambda frame: watch(pipeline, frame))
        write_trace(recorder, tmp_path / "t.json")
    assert max(most) <= 10 * 24
    rows = work_of(json.loads((tmp_path / "t.json").read_text()))
    assert all(frames_in(spans) == list(range(200)) for spans in rows.values())


def test_a_full_disk_ends_the_trace_and_not_the_run(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tracing, "_CHUNK", 10 * 24)
    monkeypatch.setattr(tracing.tempfile, "TemporaryFile", full)
    with FakeEngine(CARD) as engine, Recorder() as recorder:
        plan = Plan(count=COUNT)
        pipeline = Pipeline(Numbers(plan), stages_of(engine, plan), trace=recorder)
        pipeline.run()
        with pytest.raises(SinkError, match="No space left"):
            write_trace(recorder, tmp_path / "t.json")
    assert pipeline.ledger.delivered == COUNT
    assert not list(tmp_path.iterdir())


def test_without_a_trace_none_of_its_code_takes_part():
    with FakeEngine(CARD) as engine:
        plan = Plan(count=2)
        pipeline = Pipeline(Numbers(plan), stages_of(engine, plan))
        assert all(type(lane.channel) is Channel for lane in pipeline._lanes)
        pipeline.run()


def test_a_recorder_takes_one_pipeline():
    with FakeEngine(CARD) as engine, Recorder() as recorder:
        for number in range(2):
            plan = Plan(count=2)
            if number:
                with pytest.raises(RuntimeError, match="one pipeline"):
                    Pipeline(Numbers(plan), stages_of(engine, plan), trace=recorder)
            else:
                Pipeline(Numbers(plan), stages_of(engine, plan), trace=recorder).run()


class Ranges:
    """A stand-in for the module nvtx, which keeps each thread's stack."""

    def __init__(self):
        self.done = {}
        self._open = threading.local()
        self.left = 0

    def push_range(self, message):
        assert not getattr(self._open, "name", None), "ranges of one thread do not overlap"
        self._open.name = message
        self.left += 1

    def pop_range(self):
        assert self._open.name
        name, self._open.name = self._open.name, None
        self.done[name] = self.done.get(name, 0) + 1
        self.left -= 1


def test_nvtx_ranges_open_and_close_once_a_frame(tmp_path, monkeypatch):
    fake = Ranges()
    monkeypatch.setitem(sys.modules, "nvtx", fake)
    ranges = nvtx_ranges(gpu=True)
    plan = Plan(count=COUNT)
    run_traced(tmp_path / "t.json", plan, sinks=[Collector(plan)], ranges=ranges)
    assert fake.left == 0
    assert set(fake.done) == {*STAGES[1:], "capture", "deliver", "file"}
    assert all(COUNT - 1 <= count <= COUNT + 1 for count in fake.done.values()), fake.done


def test_nvtx_is_left_alone_without_a_gpu_or_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "nvtx", SimpleNamespace())
    assert nvtx_ranges(gpu=False) is None
    monkeypatch.setitem(sys.modules, "nvtx", None)
    assert nvtx_ranges(gpu=True) is None
