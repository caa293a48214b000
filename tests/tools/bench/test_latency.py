"""Live sources of a fixed rate: what is missed, how late frames are, and the peak."""

from __future__ import annotations

import itertools
import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.fake_engine import FakeEngine, fake_card
from pipeline.sources.synthetic import SyntheticSource
from tools.bench.latency import LiveRun, run_live, search_peak
from tools.bench.measure import (
    Stop,
    StoppedMeasuring,
    measure_engine,
    measure_pipeline,
    rate_of,
    warm_up,
)
from tools.errors import ToolError

pytestmark = pytest.mark.timeout(60)
CARD = fake_card(9, 16)
PICTURE = (18, 32)


def live(fps, delay_s, seconds=0.6, depth=2):
    with FakeEngine(CARD, parallel=1, depth=depth, delay_s=delay_s) as engine:
        return run_live(engine, fps, seconds, 0.1, PICTURE, Stop())


def test_a_rate_that_is_easy_misses_nothing():
    run = live(10, 0.001, seconds=1.5)  # a shared machine may stand still for tens of milliseconds
    assert (run.frames, run.missed) == (15, 0)
    assert len(run.latency) == 15
    assert run.fps == 10


def test_a_rate_that_is_too_high_misses_what_the_engine_cannot_take():
    # 50 ms a frame, one at a time: 20 of 100 frames a second.
    run = live(100, 0.05, seconds=1.5)
    assert not run.sustained
    assert run.frames == 150
    # Whatever waits in channels at the end still comes out.
    assert 0.5 * run.frames < run.missed < run.frames
    assert run.missed + len(run.latency) == run.frames
    assert run.delivered_fps < 25
    # It takes 50 ms, behind what is left of the one before it and no more.
    assert 0.05 <= run.latency.percentile_s(50) < 0.2


def test_latency_is_at_least_the_work():
    run = live(20, 0.02)
    assert run.latency.percentile_s(1) * 1.01 >= 0.02
    assert 0 <= run.jitter_s < 0.5


def test_jitter_is_the_mean_step_from_frame_to_frame(monkeypatch):
    # Every second frame takes 30 ms longer: each step is about 30 ms.
    class Uneven(FakeEngine):
        def _run(self, number, pictures):
            time.sleep(0.03 * (number % 2))
            return super()._run(number, pictures)

    for _attempt in range(3):  # a shared machine adds steps of its own
        with Uneven(CARD, parallel=1, depth=2) as engine:
            run = run_live(engine, 10, 1.0, 0.1, PICTURE, Stop())
        if run.jitter_s == pytest.approx(0.03, abs=0.012):
            return
    pytest.fail(f"{run.jitter_s} is not about 0.03")


@pytest.mark.parametrize(
    ("missed", "delivered", "offered", "sustained"),
    [
        (0, 30, 30, True),
        (2, 30, 30, True),
        (3, 30, 30, False),
        (0, 29.0, 30, False),
        (0, 29.2, 30, True),
        (0, 30, 29.0, False),
    ],
)
def test_what_sustained_means(missed, delivered, offered, sustained):
    run = LiveRun(30, 300, missed, None, 0.0, delivered, offered)
    assert run.sustained is sustained


@given(st.floats(5, 900), st.floats(0.3, 3.0))
def test_the_search_finds_a_sharp_limit(limit, off):
    tried = []

    def probe(fps):
        tried.append(fps)
        return fps <= limit

    found = search_peak(probe, limit * off, 20)
    assert found <= limit <= found * 1.03
    assert len(tried) <= 20
    assert found in tried


@given(st.floats(5, 900), st.integers(1, 6))
def test_the_search_never_claims_what_no_probe_showed(limit, most):
    tried = {}

    def probe(fps):
        tried[fps] = fps <= limit
        return tried[fps]

    found = search_peak(probe, limit * 1.1, most)
    assert len(tried) <= most
    assert found == max((fps for fps, good in tried.items() if good), default=0.0)


def test_where_nothing_is_sustained_the_peak_is_zero():
    assert search_peak(lambda fps: False, 30, 4) == 0.0


def test_a_paced_source_is_due_by_the_clock_and_says_how_late_it_is():
    source = SyntheticSource(*PICTURE, count=6, fps=50, paced=True)
    assert source.live
    times = []
    for frame in source.frames():
        times.append((frame.captured_at, time.perf_counter()))
        assert times[-1][1] >= frame.captured_at
        assert source.behind_s <= times[-1][1] - frame.captured_at
        if frame.index == 2:
            time.sleep(0.1)  # whoever takes the frames is slow: the next are late, not later due
    due = [t for t, _ in times]
    assert all(b - a == pytest.approx(0.02, abs=1e-6) for a, b in itertools.pairwise(due))
    assert times[3][1] - due[3] >= 0.07


def test_an_unpaced_source_is_not_live_and_waits_for_nobody():
    begun = time.perf_counter()
    assert sum(1 for _ in SyntheticSource(*PICTURE, count=200, fps=1).frames()) == 200
    assert time.perf_counter() - begun < 20
    assert not SyntheticSource().live


def test_the_engine_alone_is_measured_with_all_its_slots():
    with FakeEngine(CARD, parallel=2, depth=4, delay_s=0.02) as engine:
        warm_up(engine)
        found = measure_engine(engine, 0.5, 0.1, Stop())
    assert found.cpu_ms < 15, "sleeping takes no processor time"
    assert 25 < found.fps <= 101  # two at a time, 20 ms each


def test_a_batch_counts_its_pictures():
    with FakeEngine(CARD, batch=4, parallel=1, depth=2, delay_s=0.02) as engine:
        assert 50 < measure_engine(engine, 0.5, 0.1, Stop()).fps <= 205


def test_a_pipeline_is_no_faster_than_its_slowest_stage():
    with FakeEngine(CARD, parallel=1, depth=2, delay_s=0.01) as engine:
        source = SyntheticSource(*PICTURE, count=1 << 30)
        passed = measure_pipeline(source, engine, 0.4, 0.1, Stop())
    assert 15 < passed.fps <= 101
    assert [s["name"] for s in passed.stages] == ["capture", "preprocess", "infer", "colorize"]
    assert passed.bottleneck["stage"] == "infer"


def test_a_short_clip_counts_as_a_whole():
    assert rate_of([0, 1, 2, 3, 4, 5], 2.0, "clip") == 1
    assert rate_of([0, 0.1, 0.2, 0.3, 9.0], 1.0, "clip") == pytest.approx(4 / 9)
    fast_later = [0, 1, 2, *(2 + i / 10 for i in range(1, 30))]
    assert rate_of(fast_later, 2.0, "clip") == pytest.approx(10)


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=50), st.floats(0, 5))
def test_a_rate_is_finite_and_within_the_gaps(gaps, warmup_s):
    times = [math.fsum(gaps[:i]) for i in range(len(gaps) + 1)]
    rate = rate_of(times, warmup_s, "clip")
    assert 1 / max(gaps) * 0.999 <= rate <= 1 / min(gaps) * 1.001


@pytest.mark.parametrize("times", [[], [1.0]])
def test_too_few_frames_have_no_rate(times):
    with pytest.raises(ToolError, match=r"clip\.mp4 has too few frames"):
        rate_of(times, 0.5, "clip.mp4")


def test_what_is_stopped_measures_nothing():
    stop = Stop()
    stop()
    with FakeEngine(CARD) as engine:
        with pytest.raises(StoppedMeasuring):
            measure_engine(engine, 60, 0, stop)
        with pytest.raises(StoppedMeasuring):
            run_live(engine, 30, 60, 0, PICTURE, stop)
        with pytest.raises(StoppedMeasuring):
            measure_pipeline(SyntheticSource(*PICTURE, count=10), engine, 60, 0, stop)
