"""Smoothing over time: what flickers is held, what moves is not, and a cut begins anew."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest

from engines.fake_engine import FakeEngine, fake_card
from pipeline.frame import Frame
from pipeline.runner import Pipeline
from pipeline.sinks.flicker import FlickerSink
from pipeline.sources.synthetic import SyntheticSource
from pipeline.stages import colorize, infer, preprocess
from pipeline.stages.geometry import Window
from pipeline.stages.smooth import HOLD, Smoother

H, W = 36, 64
WHOLE = Window(0, 0, H, W)
GRAY = np.full((H, W, 3), 120, np.uint8)
CALM = np.zeros((H, W), np.uint8)


def spotted():
    labels = CALM.copy()
    labels[10:20, 10:20] = 3
    return labels


def smooth(steps, smoother=None, where=WHOLE):
    """Steps of (labels, picture), at 25 frames a second."""
    smoother = smoother or Smoother()
    return [smoother(*step, where, i / 25).copy() for i, step in enumerate(steps)]


def test_a_class_that_comes_and_goes_is_not_shown():
    steps = [(spotted() if i % 2 else CALM, GRAY) for i in range(20)]
    assert not np.any(smooth(steps))


def test_a_class_that_stays_is_shown_after_a_few_frames():
    shown = smooth([(CALM, GRAY)] * 3 + [(spotted(), GRAY)] * 6)
    first = next(i for i, labels in enumerate(shown) if labels.any())
    assert first == 3 + HOLD - 1
    np.testing.assert_array_equal(shown[first], spotted())


def test_what_moves_is_shown_at_once():
    moved = GRAY.copy()
    moved[8:22, 8:22] = 200
    shown = smooth([(CALM, GRAY)] * 5 + [(spotted(), moved)])
    np.testing.assert_array_equal(shown[-1], spotted())


def test_noise_and_steady_labels_pass_unchanged():
    random = np.random.default_rng(0)
    noisy = [(GRAY + random.integers(-3, 4, GRAY.shape)).astype(np.uint8) for _ in range(10)]
    labels = random.integers(0, 21, (H, W)).astype(np.uint8)
    for shown in smooth([(labels, picture) for picture in noisy]):
        np.testing.assert_array_equal(shown, labels)


def scene(seed, count=8):
    """A clip: a textured picture and labels of its own that flicker a little."""
    random = np.random.default_rng(seed)
    picture = random.integers(0, 256, (H, W, 3)).astype(np.uint8)
    labels = random.integers(0, 21, (H, W)).astype(np.uint8)
    steps = []
    for _ in range(count):
        flickering = labels.copy()
        flickering[random.random((H, W)) < 0.05] = 7
        steps.append((flickering, picture))
    return steps


def test_after_a_cut_nothing_of_the_clip_before_is_left():
    one, two = scene(1), scene(2)
    joined = smooth([*one, *two])
    for ours, alone in zip(joined[len(one) :], smooth(two), strict=True):
        np.testing.assert_array_equal(ours, alone)
    assert not np.array_equal(joined[len(one) + 1], two[1][0])  # it does smooth there


def test_a_cut_is_seen_where_most_of_the_input_is_border():
    """A wide picture in a tall input: the border never changes."""
    where = Window(15, 0, 6, W)
    random = np.random.default_rng(3)

    def bordered():
        picture = GRAY.copy()
        picture[15:21] = random.integers(0, 256, (6, W, 3))
        return picture

    labels = CALM.copy()
    labels[15:21] = 5
    shown = smooth([(CALM, bordered())] * 4 + [(labels, bordered())], where=where)
    np.testing.assert_array_equal(shown[-1], labels)


@pytest.mark.parametrize(
    ("time_s", "shape", "anew"),
    [(0.2, (H, W), False), (1.0, (H, W), True), (-1.0, (H, W), True), (0.2, (18, 32), True)],
)
def test_a_gap_a_step_back_or_another_size_begins_anew(time_s, shape, anew):
    smoother = Smoother()
    for i in range(4):
        smoother(CALM, GRAY, WHOLE, i * 0.04)
    labels = np.full(shape, 4, np.uint8)
    picture = np.full((*shape, 3), 120, np.uint8)
    shown = smoother(labels, picture, Window(0, 0, *shape), time_s)
    assert bool((shown == 4).all()) == anew


def test_inputs_of_a_pixel():
    for size in ((1, 1), (1, 4), (4, 1)):
        smoother = Smoother()
        for value in (0, 1, 0, 1, 1, 1):
            labels = np.full(size, value, np.uint8)
            picture = np.full((*size, 3), 90, np.uint8)
            shown = smoother(labels, picture, Window(0, 0, *size), 0.0).copy()
        assert (shown == 1).all()


def test_a_run_smooths_and_says_what_that_did():
    """The same frames with and without; the score is of both."""
    card = fake_card(H, W)

    def frames():
        random = np.random.default_rng(4)
        still = random.integers(0, 256, (2 * H, 2 * W, 3)).astype(np.uint8)
        for i in range(30):
            noisy = still.astype(np.int16) + random.integers(-4, 5, still.shape)
            image = np.clip(noisy, 0, 255).astype(np.uint8)
            yield Frame(i, i, Fraction(1, 25), image, captured_at=1.0)

    def run(smooth):
        source, sink = SyntheticSource(2 * H, 2 * W, count=30), FlickerSink()
        source.frames = frames
        with FakeEngine(card) as engine:
            stages = [
                preprocess(card),
                infer(engine, keep_input=smooth),
                colorize(card, smooth=smooth),
            ]
            sinks = [sink] if smooth else []
            with Pipeline(source, stages, sinks, ahead=40) as pipeline:
                taken = [(f.labels, f.smoothed, f.tensor) for f in pipeline]
            return taken, sink, pipeline.ledger

    raw, _, _ = run(False)
    smoothed, sink, ledger = run(True)
    assert all(both is None and tensor is None for _, both, tensor in raw)
    assert all(tensor is None for _, _, tensor in smoothed)
    np.testing.assert_array_equal(raw[0][0], smoothed[0][0])

    def changes(labels):
        return np.mean([np.mean(a != b) for a, b in itertools.pairwise(labels)])

    before = changes([labels for labels, _, _ in raw])
    assert changes([labels for labels, _, _ in smoothed]) < before / 2
    assert ledger.skipped == {}
    found = sink.as_dict()
    assert found["pairs"] >= 1
    assert 0 <= found["smoothed"] < found["raw"]
    assert "unsmoothed" in str(sink)
