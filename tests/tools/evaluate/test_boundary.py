"""The boundary F-score is what its definition says, pixel by pixel."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.evaluate.boundary import TOLERANCE, BoundaryScores

VOID = 255


def border(ids, void, class_id):
    """Pixels of the class that are beside another class."""
    height, width = ids.shape
    found = []
    for y, x in np.argwhere((ids == class_id) & ~void):
        beside = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        inside = [(a, b) for a, b in beside if 0 <= a < height and 0 <= b < width]
        if any(ids[at] != class_id and not void[at] for at in inside):
            found.append((y, x))
    return found


def naive(truth, labels, class_id):
    void = truth == VOID
    theirs, ours = border(truth, void, class_id), border(labels, void, class_id)
    if not theirs and not ours:
        return None
    if not theirs or not ours:
        return 0.0
    reach = TOLERANCE * math.hypot(*truth.shape)
    near = [[math.dist(a, b) <= reach for b in theirs] for a in ours]
    precision = sum(map(any, near)) / len(ours)
    recall = sum(map(any, zip(*near, strict=True))) / len(theirs)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(12, 17), (90, 160), (130, 110)]))
def test_scores_are_their_definition(seed, shape):
    rng = np.random.default_rng(seed)
    small = rng.choice([0, 1, 2, VOID], (4, 4), p=[0.4, 0.3, 0.2, 0.1]).astype(np.uint8)
    grid = np.ix_(np.arange(shape[0]) * 4 // shape[0], np.arange(shape[1]) * 4 // shape[1])
    truth = small[grid]
    labels = np.roll(np.where(truth == VOID, 0, truth), rng.integers(-2, 3, 2), (0, 1))
    labels[: rng.integers(1, 9), : rng.integers(1, 9)] = 2
    scores = BoundaryScores(3)
    scores.add(truth, labels)
    for class_id in range(3):
        expected = naive(truth, labels, class_id)
        if expected is None:
            assert math.isnan(scores.scores[class_id])
        else:
            assert scores.scores[class_id] == pytest.approx(expected, abs=1e-9)


def test_the_tolerance_is_of_the_diagonal():
    truth = np.zeros((300, 400), np.uint8)  # 0.75% of 500 pixels are 3.75
    truth[:, 200:] = 1
    for shift, expected in ((0, 1.0), (3, 1.0), (4, 0.0)):
        scores = BoundaryScores(2)
        scores.add(truth, np.roll(truth, shift, axis=1)[:, :] * (np.arange(400) >= 150))
        assert scores.scores[1] == expected, shift


def test_void_hides_a_border():
    truth = np.zeros((20, 20), np.uint8)
    truth[:, 10:] = 1
    truth[:, 5:15] = VOID
    labels = np.zeros_like(truth)
    labels[:, 12:] = 1
    scores = BoundaryScores(2)
    scores.add(truth, labels)
    assert np.isnan(scores.scores).all()


def test_a_class_is_averaged_over_pictures_that_show_it():
    truth = np.zeros((20, 20), np.uint8)
    truth[5:15, 5:15] = 1
    scores = BoundaryScores(2)
    scores.add(truth, truth)
    scores.add(truth, np.zeros_like(truth))
    scores.add(np.zeros_like(truth), np.zeros_like(truth))
    assert scores.scores.tolist() == [0.5, 0.5]
