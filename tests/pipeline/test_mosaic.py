"""Several runs' pictures in one: where each is, what is said of it, and when a new one is made."""

from __future__ import annotations

import threading
import time
from fractions import Fraction

import numpy as np
import pytest

from pipeline.frame import Frame
from pipeline.mosaic import NO_CLASS, Mosaic
from pipeline.runner import Pipeline
from pipeline.stats import Histogram
from pipeline.together import Together

pytestmark = pytest.mark.timeout(30)


def frame(level, size=(90, 160), label=1):
    """A picture of one gray, all of it of one class."""
    picture = np.full((*size, 3), level, np.uint8)
    labels = np.full(size, label, np.uint8)
    return Frame(0, 0, Fraction(1, 25), picture, 1.0, labels=labels, picture=picture)


def last_of(mosaic):
    """The picture with which it ends."""
    mosaic.end()
    *_, last = mosaic.frames()
    return last


@pytest.mark.parametrize(
    ("count", "size"), [(1, (720, 1280)), (2, (360, 1280)), (3, (720, 1280)), (5, (476, 1278))]
)
def test_the_grid_is_as_square_as_can_be(count, size):
    picture = last_of(Mosaic([f"c{i}" for i in range(count)])).picture
    assert picture.shape == (*size, 3)


def test_each_has_its_cell_and_keeps_its_shape():
    mosaic = Mosaic(["a", "b", "c"])
    mosaic.take(0, frame(200, label=3))
    mosaic.take(1, frame(100, size=(90, 90), label=4))  # 360 of the cell's 640 columns
    last = last_of(mosaic)
    assert (last.picture[10:300, 5:635] == 200).all()
    assert (last.picture[10:300, 640 + 145 : 640 + 495] == 100).all()
    assert (last.picture[10:300, 640 + 5 : 640 + 135] < 20).all()
    assert (last.labels[10:300, 5:635] == 3).all()
    counts = np.bincount(last.labels.ravel(), minlength=256)
    assert counts[4] == 360 * 360
    assert counts[NO_CLASS] == 720 * 1280 - 640 * 360 - 360 * 360
    # The names are written in the lower left corners, also where there is no picture yet.
    assert last.picture[320:360, :100].max() > 240
    assert last.picture[680:720, :100].max() > 240


def test_the_newest_is_shown_and_what_was_given_out_stays_as_it_is():
    mosaic = Mosaic(["a"])
    frames = mosaic.frames()
    mosaic.take(0, frame(50))
    first = next(frames)
    mosaic.take(0, frame(60))
    mosaic.take(0, frame(70))
    second = next(frames)
    assert first.picture[100, 100, 0] == 50
    assert second.picture[100, 100, 0] == 70
    assert second.index == 1
    frames.close()


def test_what_has_ceased_is_dimmed_and_says_so(monkeypatch):
    mosaic = Mosaic(["a", "b", "c"])
    states = []
    monkeypatch.setattr("pipeline.mosaic.draw_lines", lambda picture, lines: states.extend(lines))
    mosaic.take(0, frame(90))
    mosaic.take(1, frame(90))
    for cell in mosaic._cells[:2]:
        cell.since -= 7.0
    mosaic.leave(1)
    last = last_of(mosaic)
    assert states == ["a: no picture for 7 s", "b: ended", "c: no picture yet"]
    assert last.picture[100, 100, 0] == last.picture[100, 740, 0] == 30


def test_one_that_has_ceased_is_painted_anew_while_nothing_comes():
    """The seconds go on."""
    mosaic = Mosaic(["a"])
    mosaic.take(0, frame(90))
    frames = mosaic.frames()
    next(frames)
    mosaic._cells[0].since -= 60.0
    assert next(frames).picture[100, 100, 0] == 30
    frames.close()


def test_thirty_a_second_and_no_more_however_many_come():
    mosaic, seen = Mosaic(["a"]), []
    over = threading.Event()

    def feed():
        picture = frame(90)
        while not over.wait(0.001):
            mosaic.take(0, picture)

    thread = threading.Thread(target=feed)
    thread.start()
    begun = time.perf_counter()
    for _ in mosaic.frames():
        seen.append(time.perf_counter() - begun)
        if seen[-1] > 1.0:
            mosaic.end()
    over.set()
    thread.join()
    assert len(seen) <= 30 * seen[-1] + 3


def test_it_is_a_source_and_its_tiles_are_sinks():
    """A run feeds its cell; the mosaic's own pipeline hands its pictures to viewers."""
    mosaic, seen = Mosaic(["a", "b"]), []
    given = [frame(40), frame(80)]
    assert list(mosaic.tiles[1].run(iter(given))) == given
    whole = Pipeline(mosaic, [])
    thread = threading.Thread(target=whole.run, args=[lambda one: seen.append(one.picture)])
    thread.start()
    deadline = time.monotonic() + 10
    while not seen and time.monotonic() < deadline:
        time.sleep(0.01)
    mosaic.end()
    thread.join()
    assert seen[-1][100, 740, 0] == 80
    assert whole.ledger.unaccounted == 0


class Books:
    def __init__(self, delivered, drops, lost, latency):
        self.delivered, self.drops, self.lost = delivered, drops, lost
        self.dropped = sum(drops.values())
        self.latency = Histogram()
        self.latency.add(latency)


def test_books_are_added_up():
    both = Together([Books(3, {"stale": 1}, {}, 0.1)])
    both.add(Books(4, {"stale": 2, "late": 5}, {"behind": 1}, 0.3))
    assert (both.delivered, both.dropped, both.drops) == (7, 8, {"stale": 3, "late": 5})
    assert both.lost == {"behind": 1}
    assert len(both.latency) == 2
    assert Together().drops == {"stale": 0}
