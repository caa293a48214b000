"""The two sampling rules against plain NumPy in floating point."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.stages.geometry import LabelScaler, fill_color, present, to_network, window
from tests.networks import bilinear, make_card

SIDES = st.integers(1, 70)
SIZES = st.tuples(SIDES, SIDES)
ASPECTS = st.sampled_from(["stretch", "keep"])


def want(size, aspect="stretch", **more):
    return make_card(*size, aspect=aspect, **more).input


def picture(size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def blobs(size, classes, seed):
    """Labels in patches, as networks give them, with ids that are not all neighbours."""
    rng = np.random.default_rng(seed)
    ids = np.sort(rng.choice(256, classes, replace=False)).astype(np.uint8)
    if rng.integers(2):
        ids[0] = 0
    coarse = rng.integers(0, classes, (-(-size[0] // 4), -(-size[1] // 4)))
    return ids[np.kron(coarse, np.ones((4, 4), int))[: size[0], : size[1]]]


def islands(size, classes, seed):
    """The same with the lowest id nearly everywhere, as most pictures have it."""
    rng = np.random.default_rng(seed)
    labels = blobs(size, classes, seed)
    sea = np.ones(size, bool)
    for _ in range(2):
        top, left = (int(rng.integers(side)) for side in size)
        height, width = (int(rng.integers(1, side // 3 + 2)) for side in size)
        sea[top : top + height, left : left + width] = False
    labels[sea] = labels.min()
    return labels


def channels_first(image):
    return image.astype(np.float64).transpose(2, 0, 1)[None]


def expected_window(size, wanted, aspect):
    """(top, left, height, width), from the rule as written."""
    if aspect == "stretch":
        return 0, 0, *wanted
    scale = min(wanted[0] / size[0], wanted[1] / size[1])
    h, w = (min(big, max(1, round(side * scale))) for side, big in zip(size, wanted, strict=True))
    return (wanted[0] - h) // 2, (wanted[1] - w) // 2, h, w


@given(SIZES, SIZES)
def test_a_kept_picture_fits_touches_two_sides_and_lies_in_the_middle(size, wanted):
    where = window(*size, want(wanted, "keep"))
    right, bottom = wanted[1] - where.left - where.width, wanted[0] - where.top - where.height
    assert min(where.top, where.left, right, bottom) >= 0
    assert abs(where.top - bottom) <= 1
    assert abs(where.left - right) <= 1
    assert where.height == wanted[0] or where.width == wanted[1]
    scale = min(wanted[0] / size[0], wanted[1] / size[1])
    assert abs(where.height - size[0] * scale) <= 1
    assert abs(where.width - size[1] * scale) <= 1


@settings(max_examples=150, deadline=None)
@given(SIZES, SIZES, ASPECTS, st.integers(0, 9))
@example((1, 1), (7, 9), "keep", 0)
@example((1, 70), (70, 1), "keep", 0)
@example((70, 1), (9, 9), "keep", 0)
@example((64, 64), (32, 32), "stretch", 0)
@example((20, 30), (20, 30), "keep", 0)
def test_rule_1_bilinear_with_half_pixel_centres(size, wanted, aspect, seed):
    image = picture(size, seed)
    tensor = to_network(image, want(wanted, aspect, mean=(0.1, 0.5, 0.9)))
    assert tensor.shape == (1, *wanted, 3)
    assert tensor.dtype == np.uint8
    assert tensor.flags.c_contiguous
    top, left, h, w = expected_window(size, wanted, aspect)
    expected = np.empty((*wanted, 3))
    expected[:] = (26, 128, 230)  # the mean, where there is no picture
    expected[top : top + h, left : left + w] = bilinear(channels_first(image), (h, w))[0].transpose(
        1, 2, 0
    )
    np.testing.assert_allclose(tensor[0], expected, atol=1)


@pytest.mark.parametrize("factor", [(2, 2), (3, 3), (4, 2), (1, 5)])
@pytest.mark.parametrize("aspect", ["stretch", "keep"])
def test_area_takes_the_mean_of_what_a_pixel_covers(factor, aspect):
    h, w = 8, 12
    image = picture((h * factor[0], w * factor[1]))
    tensor = to_network(image, want((h, w), aspect, sampling="area"))
    top, left, kept_h, kept_w = expected_window(image.shape[:2], (h, w), aspect)
    if (kept_h, kept_w) == (h, w):
        blocks = image.reshape(h, factor[0], w, factor[1], 3).astype(np.float64)
        np.testing.assert_allclose(tensor[0], blocks.mean(axis=(1, 3)), atol=1)
    inside = tensor[0, top : top + kept_h, left : left + kept_w].astype(np.float64)
    np.testing.assert_allclose(inside.mean(), image.mean(), atol=3)


@pytest.mark.parametrize(
    ("color", "mean", "fill"),
    [
        ("rgb", (0.485, 0.456, 0.406), (124, 116, 104)),
        ("bgr", (0.406, 0.456, 0.485), (124, 116, 104)),
        ("gray", (0.5,), (128, 128, 128)),
        ("rgb", (-1, 2, 0), (0, 255, 0)),
    ],
)
def test_around_a_kept_picture_lies_what_normalises_to_zero(color, mean, fill):
    entry = want((10, 10), "keep", color=color, mean=mean)
    assert fill_color(entry) == fill
    tensor = to_network(picture((5, 10)), entry)
    assert (tensor[0, :2] == fill).all()
    assert (tensor[0, -2:] == fill).all()


@pytest.mark.parametrize("aspect", ["stretch", "keep"])
def test_rows_with_padding_and_read_only_pictures_are_taken_and_left_alone(aspect):
    padded = picture((20, 64))
    image = padded[:, :33]
    before = padded.copy()
    padded.flags.writeable = image.flags.writeable = False
    entry = want((12, 16), aspect)
    tensor = to_network(image, entry)
    np.testing.assert_array_equal(tensor, to_network(image.copy(), entry))
    np.testing.assert_array_equal(padded, before)


def test_every_tensor_is_new():
    # The engine may still read the last one.
    image, entry = picture((12, 16)), want((12, 16))
    first, second = to_network(image, entry), to_network(image, entry)
    assert not np.shares_memory(first, second)
    assert not np.shares_memory(first, image)


def smoothed(masks):
    """[1 2 1] / 4 in both directions, edges repeated."""
    for axis in (2, 3):
        pad = [(0, 0)] * 4
        pad[axis] = (1, 1)
        padded = np.pad(masks, pad, mode="edge")
        n = masks.shape[axis]
        before, middle, after = (np.take(padded, range(i, i + n), axis) for i in range(3))
        masks = (before + 2 * middle + after) / 4
    return masks


def label_scores(labels, size):
    """Each id's mask at `size`, by the rule as written: float64 (ids, H, W)."""
    ids = np.unique(labels)
    masks = (labels[None] == ids[:, None, None]).astype(np.float64)[None]
    if size[0] > labels.shape[0] and size[1] > labels.shape[1]:
        masks = smoothed(masks)
    return ids, bilinear(masks, size)[0]


def check_rule_2(size, wanted, aspect, labels, scaler):
    top, left, h, w = expected_window(size, wanted, aspect)
    out = scaler(labels, *size, want(wanted, aspect))
    assert out.shape == size
    assert out.dtype == np.uint8
    assert out.flags.c_contiguous
    inside = labels[top : top + h, left : left + w]
    ids, scores = label_scores(inside, size)
    if inside.shape == size:
        np.testing.assert_array_equal(out, inside)
        return
    ordered = np.sort(scores, axis=0)
    assert np.isin(out, ids).all()
    # Masks have 8 bits, and are rounded once or twice: closer ones are ties, which may go either
    # way. Whoever wins must be within that of the best.
    own = np.take_along_axis(scores, np.searchsorted(ids, out)[None], axis=0)[0]
    assert (own >= ordered[-1] - 3.5 / 255).all()
    certain = ordered[-1] - (ordered[-2] if len(ids) > 1 else 0) > 3.5 / 255
    assert (out == ids[scores.argmax(0)])[certain].all()


@settings(max_examples=200, deadline=None)
@given(SIZES, SIZES, ASPECTS, st.integers(1, 5), st.integers(0, 99))
@example((1, 1), (7, 9), "keep", 3, 0)
@example((1, 1), (1, 9), "stretch", 2, 2)  # OpenCV 5 takes 1x1 pictures for numbers
@example((4, 1), (8, 2), "stretch", 3, 1)
@example((1, 4), (8, 4), "stretch", 3, 1)
@example((70, 60), (4, 1), "stretch", 3, 2)
@example((70, 60), (1, 4), "stretch", 2, 2)
@example((20, 30), (20, 30), "keep", 4, 0)
def test_rule_2_the_class_whose_mask_is_highest(size, wanted, aspect, classes, seed):
    check_rule_2(size, wanted, aspect, blobs(wanted, classes, seed), LabelScaler())


@settings(max_examples=200, deadline=None)
@given(SIZES, SIZES, ASPECTS, st.integers(2, 5), st.integers(0, 99))
def test_rule_2_where_classes_are_islands(size, wanted, aspect, classes, seed):
    check_rule_2(size, wanted, aspect, islands(wanted, classes, seed), LabelScaler())


@pytest.mark.parametrize("aspect", ["stretch", "keep"])
@pytest.mark.parametrize("classes", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [(180, 320), (173, 311), (30, 40), (40, 400)])
def test_rule_2_on_pictures_differs_in_ties_only(size, classes, aspect):
    wanted = (45, 80)
    labels = blobs(wanted, classes, classes)
    out = LabelScaler()(labels, *size, want(wanted, aspect))
    top, left, h, w = expected_window(size, wanted, aspect)
    ids, scores = label_scores(labels[top : top + h, left : left + w], size)
    ordered = np.sort(scores, axis=0)
    even = (ordered[-1] - ordered[-2] < 1e-9) if len(ids) > 1 else np.zeros(size, bool)
    assert (out != ids[scores.argmax(0)])[~even].mean() <= 0.005


def test_one_scaler_serves_frames_of_changing_size_and_classes():
    scaler = LabelScaler()
    rng = np.random.default_rng(0)
    for seed in range(40):
        size, wanted = (tuple(int(n) for n in rng.integers(1, 60, 2)) for _ in range(2))
        labels = blobs(wanted, int(rng.integers(1, 6)), seed)
        check_rule_2(size, wanted, ("stretch", "keep")[seed % 2], labels, scaler)


def test_nothing_stays_of_the_frame_before():
    scaler = LabelScaler()
    for seed in range(40):
        labels = islands((30, 50), 2 + seed % 4, seed)
        check_rule_2((72, 128), (30, 50), "stretch", labels, scaler)


def test_labels_are_the_frames_own():
    # Sinks still read the last frame's labels when the next one is scaled.
    scaler, entry = LabelScaler(), want((8, 8))
    first = scaler(blobs((8, 8), 4, 1), 20, 20, entry)
    kept = first.copy()
    for seed in range(5):
        scaler(blobs((8, 8), 4, seed), 20, 20, entry)
    np.testing.assert_array_equal(first, kept)
    same = blobs((8, 8), 4, 1)
    assert not np.shares_memory(scaler(same, 8, 8, entry), same)


def test_of_two_equal_masks_the_lower_id_wins():
    # Three pixels from two: the middle one lies exactly between.
    labels = np.array([[9, 4]] * 2, np.uint8)
    out = LabelScaler()(labels, 2, 3, want((2, 2)))
    assert out.tolist() == [[9, 4, 4]] * 2
    out = LabelScaler()(np.array([[0, 4]] * 2, np.uint8), 2, 3, want((2, 2)))
    assert out[:, [0, 2]].tolist() == [[0, 4]] * 2


def test_present_lists_the_ids_that_occur():
    labels = np.array([[0, 255], [7, 7]], np.uint8)
    assert present(labels) == [0, 7, 255]
