"""A file's own pace: no sooner, and not in a hurry after a delay."""

from __future__ import annotations

import threading
import time
from fractions import Fraction

import numpy as np
import pytest

from pipeline.frame import Frame
from pipeline.runner import Pipeline
from pipeline.sources.synthetic import SyntheticSource
from pipeline.stages import pace

pytestmark = pytest.mark.timeout(30)
IMAGE = np.zeros((4, 4, 3), np.uint8)


def frames(times_s):
    for i, time_s in enumerate(times_s):
        yield Frame(i, round(time_s * 1000), Fraction(1, 1000), IMAGE)


def arrivals(times_s, slow=lambda i: 0.0):
    begun, seen = time.perf_counter(), []
    for frame in pace().run(frames(times_s)):
        seen.append(time.perf_counter() - begun)
        assert frame.captured_at == pytest.approx(time.perf_counter(), abs=0.05)
        time.sleep(slow(frame.index))
    return seen


def test_frames_come_no_sooner_than_they_are_due():
    times = [5.0, 5.04, 5.1, 5.2, 5.21, 5.4]
    seen = arrivals(times)
    for at, due in zip(seen, times, strict=True):
        assert at - seen[0] >= due - 5.0 - 0.001
    assert seen[-1] < 2.0


def test_lost_time_is_not_made_up():
    seen = arrivals([i * 0.1 for i in range(13)], slow=lambda i: 1.0 if i == 3 else 0.0)
    assert seen[-1] - seen[4] >= 0.8 - 0.25  # but for what it may be late without that


def test_a_leap_or_a_step_back_is_not_waited_for():
    assert arrivals([0.0, 0.05, 9000.0, 9000.05, 0.0, 0.05])[-1] < 5.0


def test_stopping_wakes_it():
    source = SyntheticSource(4, 4, count=5, fps=Fraction(1, 20))
    pipeline = Pipeline(source, [pace()])
    thread = threading.Thread(target=pipeline.run)
    thread.start()
    time.sleep(0.3)
    begun = time.perf_counter()
    pipeline.stop()
    thread.join(10)
    assert time.perf_counter() - begun < 2
    assert pipeline.ledger.unaccounted == 0
