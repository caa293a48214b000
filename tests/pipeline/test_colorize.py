"""Painting: what a pixel becomes, what stays untouched, and pictures of every shape."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engines.fake_engine import FakeEngine, fake_card
from pipeline.roles import chain
from pipeline.sources.synthetic import SyntheticSource
from pipeline.stages import Controls, Look, colorize, infer, preprocess
from pipeline.stages.colorize import Painter
from pipeline.stages.draw import contours
from tests.networks import make_card

CARD = make_card(classes=5)
COLORS = CARD.colors.astype(np.float64)
ODD_SIZES = [(1, 1), (1, 2), (2, 1), (1, 50), (50, 1), (3, 4), (4, 4), (4, 1), (37, 53), (101, 64)]


def picture(size, seed=0):
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    image.flags.writeable = False  # a painter that wrote into it would raise
    return image


def labels_of(size, seed=0, classes=5):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, classes, (-(-size[0] // 5), -(-size[1] // 5)))
    labels = np.kron(coarse, np.ones((5, 5), int))[: size[0], : size[1]].astype(np.uint8)
    labels.flags.writeable = False
    return labels


def painted(look, labels, image, card=CARD):
    return Painter(card, look).paint(image, labels)


def blend(image, labels, overlay):
    return (1 - overlay) * image.astype(np.float64) + overlay * COLORS[labels]


def mask_of(labels, classes):
    return np.isin(labels, [1, 2, 3, 4] if classes is None else list(classes))


CLASSES = st.none() | st.lists(st.integers(0, 4), unique=True).map(tuple)


@settings(max_examples=150, deadline=None)
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.floats(0, 1),
    CLASSES,
    st.integers(0, 99),
)
@example((1, 1), 0.5, None, 0)
@example((40, 1), 0.5, (1, 3), 3)
@example((1, 40), 0.5, (0, 1, 2, 3, 4), 3)
@example((4, 1), 1.0, (2,), 1)
def test_a_painted_pixel_is_a_mixture_and_any_other_stays(size, overlay, classes, seed):
    image, labels = picture(size, seed), labels_of(size, seed)
    result = painted(Look(overlay=overlay, classes=classes), labels, image)
    assert (result.shape, result.dtype) == (image.shape, np.uint8)
    mask = mask_of(labels, classes)
    np.testing.assert_array_equal(result[~mask], image[~mask])
    np.testing.assert_allclose(result[mask], blend(image, labels, overlay)[mask], atol=1)


def test_overlay_0_shows_the_picture_and_1_the_colours():
    image, labels = picture((30, 40)), labels_of((30, 40))
    everything = (0, 1, 2, 3, 4)
    np.testing.assert_array_equal(painted(Look(0.0, everything), labels, image), image)
    np.testing.assert_array_equal(painted(Look(1.0, everything), labels, image), COLORS[labels])


@pytest.mark.parametrize(
    ("look", "ids"),
    [
        (Look(), [0]),
        (Look(classes=(3,)), [0, 1, 2, 4]),
        (Look(classes=()), [0, 1, 2, 3, 4]),
        (Look(overlay=0), [1, 2]),
        (Look(contours=True), [0]),
    ],
)
def test_where_nothing_is_painted_the_result_is_the_image_itself(look, ids):
    image = picture((20, 30))
    labels = np.resize(np.array(ids, np.uint8), (20, 30))
    assert painted(look, labels, image) is image


@pytest.mark.parametrize("look", [Look(), Look(legend=True), Look(overlay=0, contours=True)])
def test_where_something_is_painted_the_result_is_a_copy_of_its_own(look):
    image, labels = picture((40, 60)), labels_of((40, 60))
    painter = Painter(CARD, look)
    first = painter.paint(image, labels)
    kept = first.copy()
    assert not np.shares_memory(first, image)
    painter.paint(picture((40, 60), 1), labels_of((40, 60), 1))
    np.testing.assert_array_equal(first, kept)  # sinks still read it


def test_every_class_is_painted_where_there_is_no_background():
    card = CARD.model_copy(update={"classes": ("sky", "road", "tree", "car", "man")})
    image, labels = picture((20, 30)), labels_of((20, 30))
    result = painted(Look(1.0), labels, image, card)
    np.testing.assert_array_equal(result, COLORS[labels])


@pytest.mark.parametrize("size", ODD_SIZES)
@pytest.mark.parametrize(
    "look",
    [
        Look(legend=True, contours=True),
        Look(overlay=0.0, contours=True),
        Look(legend=True, classes=(0, 1, 2, 3, 4)),
        Look(classes=(2,), legend=True),
    ],
)
def test_pictures_of_every_shape_are_painted(size, look):
    painter = Painter(CARD, look)
    for seed in range(3):
        result = painter.paint(picture(size, seed), labels_of(size, seed))
        assert (result.shape, result.dtype) == ((*size, 3), np.uint8)


@pytest.mark.parametrize("look", [Look(), Look(contours=True, legend=True), Look(classes=(0, 1))])
def test_rows_with_padding_are_painted_alike(look):
    wide, wide_labels = picture((30, 64)), labels_of((30, 64))
    image, labels = wide[:, :41], wide_labels[:, :41]
    np.testing.assert_array_equal(
        painted(look, labels, image), painted(look, labels.copy(), image.copy())
    )


def test_one_painter_serves_frames_of_changing_size():
    painter = Painter(CARD, Look())
    for seed, size in enumerate([(30, 40), (10, 10), (60, 80), (1, 1), (31, 40)]):
        image, labels = picture(size, seed), labels_of(size, seed)
        mask = mask_of(labels, None)
        result = painter.paint(image, labels)
        np.testing.assert_array_equal(result[~mask], image[~mask])
        np.testing.assert_allclose(result[mask], blend(image, labels, 0.5)[mask], atol=1)


def neighbours_differ(labels, reach):
    """Where another class lies within `reach` pixels in one direction or diagonally."""
    h, w = labels.shape
    out = np.zeros((h, w), bool)
    padded = np.pad(labels, reach, mode="edge")
    for dy in range(2 * reach + 1):
        for dx in range(2 * reach + 1):
            out |= padded[dy : dy + h, dx : dx + w] != labels
    return out


@pytest.mark.parametrize("classes", [None, (0, 1, 2, 3, 4), (2,), (1, 4)])
@pytest.mark.parametrize("overlay", [0.0, 0.5])
def test_contours_follow_the_borders_of_painted_classes_and_only_them(classes, overlay):
    for seed in range(4):
        image, labels = picture((60, 80), seed), labels_of((60, 80), seed)
        lined = painted(Look(overlay, classes, contours=True), labels, image)
        plain = painted(Look(overlay, classes), labels, image)
        mask = mask_of(labels, classes)
        border = mask & neighbours_differ(labels, 1)
        np.testing.assert_array_equal(lined[border], COLORS[labels][border])
        np.testing.assert_array_equal(lined[~border], plain[~border])


def test_an_object_has_a_contour_on_all_its_sides():
    labels = np.zeros((50, 50), np.uint8)
    labels[10:30, 20:40] = 2
    image = picture((50, 50))
    lined = painted(Look(0.0, contours=True), labels, image)
    ring = np.zeros((50, 50), bool)
    ring[10:30, 20:40] = True
    ring[11:29, 21:39] = False
    assert (lined[ring] == CARD.colors[2]).all()
    np.testing.assert_array_equal(lined[~ring], image[~ring])


@pytest.mark.parametrize(("height", "width"), [(100, 2), (720, 2), (1080, 3), (1440, 4)])
def test_lines_are_as_wide_as_the_picture_is_high(height, width):
    labels = np.zeros((height, 40), np.uint8)
    labels[:, 20:] = 1
    lines = contours(labels, height)
    assert set(np.unique(lines)) == {0, 255}
    assert (np.count_nonzero(lines, axis=1) == width).all()
    columns = np.flatnonzero(lines[0])
    assert abs(columns.mean() - 19.5) <= 0.5


def legend_box(with_legend, without):
    rows, columns = np.nonzero((with_legend != without).any(axis=2))
    return rows.min(), rows.max() + 1, columns.min(), columns.max() + 1


def test_the_legend_changes_its_corner_only_and_shows_the_colours_of_what_is_seen():
    image, labels = picture((360, 640)), labels_of((360, 640), classes=4)
    plain = painted(Look(), labels, image)
    with_legend = painted(Look(legend=True), labels, image)
    _, bottom, _, right = legend_box(with_legend, plain)
    assert bottom <= 10 * 4 + 10  # three lines of ten pixels, and a margin
    assert right <= 200
    corner = with_legend[:bottom, :right].reshape(-1, 3).tolist()
    for class_id, seen in ((0, False), (1, True), (2, True), (3, True), (4, False)):
        assert (corner.count(CARD.colors[class_id].tolist()) >= 25) == seen, class_id


def test_the_legend_names_no_class_that_is_not_painted():
    image = picture((360, 640))
    labels = labels_of((360, 640))
    one = painted(Look(legend=True, classes=(2,)), labels, image)
    corner = one[:60, :200].reshape(-1, 3).tolist()
    assert corner.count(CARD.colors[2].tolist()) >= 25
    assert corner.count(CARD.colors[1].tolist()) < 25


def test_without_anything_to_name_there_is_no_legend():
    image = picture((360, 640))
    result = painted(Look(legend=True), np.zeros((360, 640), np.uint8), image)
    np.testing.assert_array_equal(result, image)


def test_a_class_that_leaves_stays_in_the_legend_for_a_second_and_then_goes():
    image, empty = picture((360, 640)), np.zeros((360, 640), np.uint8)
    painter = Painter(CARD, Look(legend=True))
    painter.paint(image, np.full((360, 640), 2, np.uint8))
    changed = [bool((painter.paint(image, empty) != image).any()) for _ in range(40)]
    assert changed == sorted(changed, reverse=True)
    assert 20 <= sum(changed) <= 30


def test_the_stage_fills_in_labels_and_picture_at_frame_size_and_lets_the_answer_go():
    card = fake_card(18, 32)
    with FakeEngine(card) as engine:
        stages = [preprocess(card), infer(engine), colorize(card, Look(0.25))]
        frames = list(chain(SyntheticSource(45, 80, 4), stages))
    assert len(frames) == 4
    for frame in frames:
        assert frame.labels.shape == (45, 80)
        assert frame.labels.dtype == np.uint8
        assert frame.picture.shape == (45, 80, 3)
        assert frame.tensor is None
        assert frame.pending is None
        mask = frame.labels > 0
        assert mask.any()
        expected = 0.75 * frame.image + 0.25 * card.colors[frame.labels].astype(np.float64)
        np.testing.assert_allclose(frame.picture[mask], expected[mask], atol=1)


def test_a_look_that_changes_while_frames_flow_is_worn_by_the_next_frame():
    card = fake_card(18, 32)
    controls = Controls(Look(overlay=0, legend=False))
    with FakeEngine(card) as engine:
        stages = [preprocess(card), infer(engine), colorize(card, controls)]
        frames = chain(SyntheticSource(45, 80, 4), stages)
        plain = next(frames)
        controls.change(overlay=1.0)
        covered = next(frames)
        controls.change(classes=())
        none_chosen = next(frames)
    assert plain.picture is plain.image
    np.testing.assert_array_equal(
        covered.picture,
        np.where((covered.labels > 0)[..., None], card.colors[covered.labels], covered.image),
    )
    assert none_chosen.picture is none_chosen.image
    assert controls.look == Look(overlay=1.0, classes=())


def test_a_class_that_is_switched_off_leaves_the_legend_at_once():
    card = make_card()
    painter = Painter(card, Look(legend=True))
    image = np.full((120, 160, 3), 90, np.uint8)
    labels = np.ones((120, 160), np.uint8)
    assert (painter.paint(image, labels) != image).any()
    painter.wear(Look(classes=(2,), legend=True))
    np.testing.assert_array_equal(painter.paint(image, labels), image)
