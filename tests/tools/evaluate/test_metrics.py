"""The figures agree with others' and with their definitions, counted pixel by pixel."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.errors import DataError
from tools.evaluate.match import OTHER, match_classes
from tools.evaluate.metrics import Confusion, mean, scores

VOID = 255


def naive(truth, labels, classes, void):
    """From the definitions, with sets of pixels; None where there is nothing to divide by."""
    pixels = list(zip(truth.ravel().tolist(), labels.ravel().tolist(), strict=True))
    if void == "ignore":
        pixels = [p for p in pixels if p[0] != VOID]
    rows = []
    for c in range(classes):
        true = {i for i, p in enumerate(pixels) if p[0] == c}
        called = {i for i, p in enumerate(pixels) if p[1] == c}
        both, either = true & called, true | called
        rows.append(
            (
                len(both) / len(either) if either else None,
                2 * len(both) / (len(true) + len(called)) if either else None,
                len(both) / len(true) if true else None,
            )
        )
    right = sum(a == b for a, b in pixels)
    return rows, right / len(pixels) if pixels else None


def counted(pictures, classes):
    confusion = Confusion(classes)
    for truth, labels in pictures:
        confusion.add(truth, labels)
    return confusion.counts


def same(found, expected):
    return math.isnan(found) if expected is None else math.isclose(found, expected, abs_tol=1e-12)


@st.composite
def pictures(draw):
    """A truth that may lack classes or be void altogether, and labels."""
    classes = draw(st.integers(2, 6))
    shape = (draw(st.integers(1, 6)), draw(st.integers(1, 6)))
    size = shape[0] * shape[1]
    ids = st.sampled_from([*range(classes), VOID])
    truth = draw(st.lists(ids, min_size=size, max_size=size))
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=size, max_size=size))
    return (
        classes,
        np.array(truth, np.uint8).reshape(shape),
        np.array(labels, np.uint8).reshape(shape),
    )


@pytest.mark.parametrize("void", ["ignore", "error"])
@given(pictures())
def test_scores_are_their_definitions(void, picture):
    classes, truth, labels = picture
    found = scores(counted([(truth, labels)], classes), void)
    rows, right = naive(truth, labels, classes, void)
    for c, row in enumerate(rows):
        for value, expected in zip((found.iou, found.dice, found.accuracy), row, strict=True):
            assert same(value[c], expected)
    assert same(found.pixel_accuracy, right)
    known = [row[0] for row in rows if row[0] is not None]
    assert same(found.miou, sum(known) / len(known) if known else None)


@given(pictures(), pictures())
def test_counts_add_up_whatever_the_sizes(one, two):
    classes = max(one[0], two[0])
    together = counted([one[1:], two[1:]], classes)
    assert np.array_equal(together, counted([one[1:]], classes) + counted([two[1:]], classes))
    assert together.sum() == one[1].size + two[1].size


CASES = {
    "random": lambda rng: [rng.integers(0, 5, (2, 40, 30)) for _ in range(2)],
    "absent": lambda rng: [rng.choice([0, 2, 4], (2, 40, 30)) for _ in range(2)],
    "only called": lambda rng: [rng.choice([0, 1], (2, 9, 7)), rng.choice([0, 3], (2, 9, 7))],
    "one class": lambda rng: [np.zeros((2, 5, 5), int), np.zeros((2, 5, 5), int)],
    "void": lambda rng: [
        rng.choice([0, 1, 2, 3, 4, VOID], (2, 40, 30)),
        rng.integers(0, 5, (2, 40, 30)),
    ],
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES)
def test_scores_agree_with_torchmetrics(case):
    torch = pytest.importorskip("torch")
    classification = pytest.importorskip("torchmetrics.functional.classification")
    truth, labels = CASES[case](np.random.default_rng(7))
    pairs = zip(truth.astype(np.uint8), labels.astype(np.uint8), strict=True)
    found = scores(counted(pairs, 5))
    a, b = torch.from_numpy(labels), torch.from_numpy(truth)
    options = {"num_classes": 5, "ignore_index": VOID}
    jaccard = classification.multiclass_jaccard_index
    assert found.miou == pytest.approx(float(jaccard(a, b, average="macro", **options)), abs=1e-6)
    theirs = {
        "iou": jaccard(a, b, average="none", **options),
        "dice": classification.multiclass_f1_score(a, b, average="none", **options),
        "accuracy": classification.multiclass_recall(a, b, average="none", **options),
    }
    for name, values in theirs.items():
        # Where a class has no value, they give 0.
        ours = np.nan_to_num(getattr(found, name))
        assert ours == pytest.approx(values.numpy(), abs=1e-6), name
    accuracy = classification.multiclass_accuracy(a, b, average="micro", **options)
    assert found.pixel_accuracy == pytest.approx(float(accuracy), abs=1e-6)


def test_a_picture_that_is_void_has_no_figures():
    void = np.full((4, 4), VOID, np.uint8)
    found = scores(counted([(void, np.zeros_like(void))], 3))
    assert all(map(math.isnan, (found.miou, found.mean_accuracy, found.pixel_accuracy)))
    as_error = scores(counted([(void, np.zeros_like(void))], 3), "error")
    assert as_error.miou == 0
    assert as_error.pixel_accuracy == 0


def test_ids_beyond_the_classes_are_refused():
    good = np.zeros((2, 2), np.uint8)
    for truth, labels in ((good + 3, good), (good, good + 3), (good, good[:1])):
        with pytest.raises(ValueError, match=r"classes|shape"):
            Confusion(3).add(truth, labels)


def test_mean_of_nothing():
    assert math.isnan(mean(np.array([np.nan, np.nan])))
    assert mean(np.array([0.5, np.nan])) == 0.5


def test_classes_match_by_name():
    match = match_classes(
        ["sky", "Road", "tree", "traffic_light"], ["road", "Traffic  light", "dog"]
    )
    assert match.classes == ("Road", "traffic_light")
    assert (match.truth, match.labels) == ((1, 3), (0, 1))
    assert match.left_out == ("sky", "tree")
    assert match.extra == ("dog",)
    counts = np.arange(5 * 3).reshape(5, 3)
    assert match.select(counts).tolist() == [[3, 4, 5], [9, 10, 11], [12, 13, 14]]
    truth = np.array([[0, 1, 3, VOID]], np.uint8)
    ours, theirs = match.compared(truth, np.array([[0, 0, 1, 2]], np.uint8))
    assert ours.tolist() == [[VOID, 0, 1, VOID]]
    assert theirs.tolist() == [[0, 0, 1, OTHER]]


def test_classes_match_by_id():
    for truth in ((), ("A", "b")):
        match = match_classes(truth, ("a", "b"))
        assert match.truth == match.labels == (0, 1)
        assert match.how.startswith("by id")
    with pytest.raises(DataError, match="nothing can be compared"):
        match_classes(("x", "y"), ("a", "b"))
