"""Timestamps rise whatever the stream and the network do; and they are the stream's where sound."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sources.live.stamps import Timeline

times = st.floats(-1e6, 1e6, allow_nan=False)
step = st.tuples(st.one_of(st.none(), times), st.floats(0, 100), st.booleans())


@given(st.lists(step, min_size=1, max_size=50), st.booleans())
def test_they_always_rise(steps, jumps):
    timeline, now, stamps = Timeline(), 5000.0, []
    for stream_s, passed_s, restart in steps:
        now += passed_s
        if restart:
            timeline.restart()
        stamps.append(timeline.stamp(stream_s, now, jumps=jumps))
    assert stamps[0] == 0
    assert all(a < b for a, b in pairwise(stamps))


@given(times, st.lists(st.floats(0, 0.4), min_size=2, max_size=40))
def test_a_sound_stream_keeps_its_own_times_however_unevenly_it_arrives(start, jitter):
    timeline = Timeline()
    stamps = [timeline.stamp(start + i / 25, 100 + i / 25 + late) for i, late in enumerate(jitter)]
    assert all(abs(pts - 3600 * i) <= 1 for i, pts in enumerate(stamps))


@given(times, times, st.floats(0.2, 1e4))
def test_an_outage_is_a_gap_of_its_own_length(before, after, gap_s):
    timeline = Timeline()
    first = timeline.stamp(before, 100.0)
    timeline.restart()
    assert timeline.stamp(after, 100 + gap_s) - first == pytest.approx(90000 * gap_s, abs=1)


@pytest.mark.parametrize("jump_s", [-3600, 3600])
def test_a_clock_that_is_set_does_not_show(jump_s):
    timeline = Timeline()
    for i in range(10):
        timeline.stamp(i / 25, 100 + i / 25)
    pts = timeline.stamp(10 / 25 + jump_s, 100 + 10 / 25)
    assert pts == 36000
    assert timeline.stamp(11 / 25 + jump_s, 100 + 11 / 25) == 39600


def test_a_slow_line_does_not_break_the_times_and_neither_does_catching_up():
    timeline = Timeline()
    for i in range(600):  # half as fast as it was sent
        assert timeline.stamp(i / 25, 100 + i / 12.5) == 3600 * i
    # The rest at once, in two parts.
    assert timeline.stamp(900 / 25, 147.99) == 3600 * 900
    assert timeline.stamp(1200 / 25, 148.0) == 3600 * 1200
    assert timeline.stamp(1201 / 25, 148.04) == 3600 * 1201


def test_without_times_of_its_own_a_stream_has_those_of_arrival():
    timeline = Timeline()
    assert [timeline.stamp(None, 50 + t) for t in (0, 0.1, 0.1, 1)] == [0, 9000, 9001, 90000]
