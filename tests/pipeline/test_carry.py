"""Labels carried along by motion, where the network has not looked."""

from __future__ import annotations

from fractions import Fraction

import cv2
import numpy as np
import pytest

from engines.fake_engine import FakeEngine, fake_card
from pipeline.api import stages_for
from pipeline.frame import Frame
from pipeline.roles import chain
from pipeline.runner import Pipeline
from pipeline.sources import SyntheticSource
from pipeline.stages.carry import Carrier, Turns

SIZE = (288, 512)


def textured(seed, height, width):
    noise = np.random.default_rng(seed).integers(0, 256, (height // 16, width // 16, 3), np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def scene(step, speed=10):
    """A textured thing that moves right and down over a textured ground: picture, ids."""
    picture, ids = textured(1, *SIZE), np.zeros(SIZE, np.uint8)
    y, x = 40 + step * speed // 2, 60 + step * speed
    picture[y : y + 144, x : x + 160] = textured(2, 144, 160)
    ids[y : y + 144, x : x + 160] = 1
    return picture, ids


def iou(one, other):
    return (one & other).sum() / (one | other).sum()


def test_labels_go_with_what_moves():
    carrier = Carrier()
    _, first = scene(0)
    carrier(first, scene(0)[0])
    for step in range(1, 5):
        picture, truth = scene(step)
        carried = carrier(None, picture)
        assert carried.dtype == np.uint8
        assert carried.shape == truth.shape
    # Its leading and trailing edges, where there is no flow to find, are not as exact.
    assert iou(carried, truth) > 0.7
    assert iou(carried, truth) > iou(first, truth) + 0.2
    # What the network says counts again at once.
    np.testing.assert_array_equal(carrier(truth, picture), truth)


def test_what_stands_still_keeps_its_labels_exactly():
    carrier = Carrier()
    picture, ids = scene(3)
    carrier(ids, picture)
    for _ in range(5):
        np.testing.assert_array_equal(carrier(None, picture), ids)


@pytest.mark.parametrize("size", [(16, 16), (17, 31), (1, 1), (8, 300)])
def test_networks_of_any_size(size):
    carrier, ids = Carrier(), np.full(size, 7, np.uint8)
    picture = np.full((*size, 3), 90, np.uint8)
    carrier(ids, picture)
    np.testing.assert_array_equal(carrier(None, picture), ids)


def frame(index, image, time_s=None):
    pts = index * 40 if time_s is None else round(1000 * time_s)
    return Frame(index=index, pts=pts, time_base=Fraction(1, 1000), image=image)


def due(turns, frames):
    return [turns.due(f, f.image) for f in frames]


def test_one_of_so_many_is_due():
    frames = [frame(i, scene(i, speed=1)[0]) for i in range(8)]
    assert due(Turns(3), frames) == [True, False, False, True, False, False, True, False]


def test_a_cut_a_gap_and_another_size_are_due_and_begin_anew():
    calm, other = scene(0)[0], np.full((*SIZE, 3), 250, np.uint8)
    cut = [frame(i, calm if i < 2 else other) for i in range(6)]
    assert due(Turns(3), cut) == [True, False, True, False, False, True]
    gap = [frame(i, calm, time_s=t) for i, t in enumerate([0, 0.04, 0.64, 0.68])]
    assert due(Turns(3), gap) == [True, False, True, False]
    back = [frame(i, calm, time_s=t) for i, t in enumerate([5.0, 5.04, 0.0, 0.04])]
    assert due(Turns(3), back) == [True, False, True, False]
    sizes = [frame(0, calm), frame(1, calm), frame(2, calm[:100])]
    assert due(Turns(3), sizes) == [True, False, True]


class Together(FakeEngine):
    """Knows how many pictures it had at once."""

    now = most = 0

    def _start(self, slot, pictures):
        self.now += 1
        self.most = max(self.most, self.now)
        super()._start(slot, pictures)

    def _finish(self, slot):
        try:
            return super()._finish(slot)
        finally:
            self.now -= 1


@pytest.mark.timeout(20)
@pytest.mark.parametrize("every", [1, 3, 5])
def test_the_engine_gets_as_many_pictures_at_once_as_it_takes(every):
    # Those that it does not see lie between them, and must not keep it from being full.
    with Together(fake_card(36, 64), depth=4, parallel=1, delay_s=0.03) as engine:
        Pipeline(SyntheticSource(72, 128, 8 * every), stages_for(engine, every=every)).run()
    assert engine.most == 4


class Counting(FakeEngine):
    submitted = 0

    def submit(self, pictures):
        self.submitted += 1
        return super().submit(pictures)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("smooth", [False, True])
def test_every_frame_gets_labels_and_the_network_sees_a_third(smooth):
    with Counting(fake_card(36, 64)) as engine:
        source = SyntheticSource(72, 128, 30)
        stages = stages_for(engine, smooth=smooth, every=3)
        with Pipeline(source, stages) as pipeline:
            threaded = [f.labels for f in pipeline]
        assert engine.submitted == 10
        assert pipeline.ledger.delivered == 30
        again = list(
            chain(SyntheticSource(72, 128, 30), stages_for(engine, smooth=smooth, every=3))
        )
    for one, other in zip(threaded, again, strict=True):
        np.testing.assert_array_equal(one, other.labels)
        assert other.tensor is None
