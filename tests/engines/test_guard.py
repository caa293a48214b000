"""The guard's figures, against counts made another way; and what it refuses."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from engines.engine import EngineInfo
from engines.errors import DriftError, ModelError, PlanError
from engines.fake_engine import FakeEngine, fake_card
from engines.guard import FRAMES, LEAST_AGREEMENT, Agreement, check, compare, guard_pictures

HEIGHT, WIDTH, CLASSES = 6, 8, 4
CARD = fake_card(HEIGHT, WIDTH, CLASSES)


class Fixed:
    """An engine whose answers are written down beforehand."""

    def __init__(self, masks, card=CARD):
        self.card = card
        self.info = EngineInfo("fixed", "fp32", "7", "this process")
        self._masks = list(masks)

    def submit(self, pictures):
        self._next = self._masks.pop(0)
        assert pictures.shape == (*self._next.shape, 3)
        return self

    def result(self):
        return self._next


def agreement_of(mine, right, card=CARD):
    pictures = [np.zeros((*mask.shape, 3), np.uint8) for mask in right]
    return compare(Fixed(mine, card), Fixed(right, card), pictures)


def masks(highest=CLASSES - 1, count=2):
    shape = (count, 1, HEIGHT, WIDTH)
    return arrays(np.uint8, shape, elements=st.integers(0, highest))


@given(masks(), masks())
def test_figures_are_what_sets_of_pixels_say(mine, right):
    got = agreement_of(mine, right)
    assert got.frames == 2
    assert got.pixels == pytest.approx((mine == right).mean())
    expected = {}
    for i, name in enumerate(CARD.classes):
        one, other = (set(np.flatnonzero(m == i).tolist()) for m in (mine, right))
        if one | other:
            expected[name] = len(one & other) / len(one | other)
    assert got.classes == pytest.approx(expected)
    worst = got.worst(2)
    assert [iou for _, iou in worst] == pytest.approx(sorted(expected.values())[:2])


@given(masks())
def test_a_mask_agrees_with_itself(mask):
    got = agreement_of(mask, mask.copy())
    assert got.pixels == 1.0
    assert set(got.classes.values()) == {1.0}
    check(got, "it", ["do nothing"])


@given(masks(), masks())
def test_the_figures_do_not_depend_on_which_is_the_reference(mine, right):
    one, other = agreement_of(mine, right), agreement_of(right, mine)
    assert one.pixels == other.pixels
    assert one.classes == other.classes


@given(masks(255), masks(255))
def test_ids_beyond_the_classes_never_agree_by_chance_and_never_crash(mine, right):
    got = agreement_of(mine, right)
    assert got.pixels == pytest.approx(((mine == right) & (mine < CLASSES)).mean())
    assert set(got.classes) <= set(CARD.classes)


def test_an_id_beyond_the_classes_is_a_difference():
    right = np.full((1, 1, HEIGHT, WIDTH), CLASSES - 1, np.uint8)
    mine = right.copy()
    mine[..., 0] = 255
    got = agreement_of(mine, right)
    assert got.pixels == pytest.approx(1 - 1 / WIDTH)
    assert got.classes == pytest.approx({CARD.classes[-1]: 1 - 1 / WIDTH})


@pytest.mark.parametrize("classes", [255, 256])
def test_networks_with_all_ids_in_use_are_compared(classes):
    card = fake_card(16, 16, classes)
    right = (np.arange(256) % classes).astype(np.uint8).reshape(1, 1, 16, 16)
    got = agreement_of(right, right.copy(), card)
    assert got.pixels == 1.0
    assert len(got.classes) == classes


def test_a_class_that_is_hardly_there_has_no_figure():
    card = fake_card(200, 100, CLASSES)
    right = np.zeros((1, 1, 200, 100), np.uint8)
    right[0, 0, 0, 0] = 1  # one of 20,000: below a ten-thousandth
    right[0, 0, 1, :2] = 2  # exactly a ten-thousandth
    got = agreement_of(right, right.copy(), card)
    assert set(got.classes) == {CARD.classes[0], CARD.classes[2]}


def test_classes_that_drift_are_named_and_what_to_do_is_said():
    right = np.zeros((1, 1, HEIGHT, WIDTH), np.uint8)
    right[0, 0, :3] = 1
    right[0, 0, 3:, 4:] = 2
    mine = right.copy()
    mine[0, 0, :2] = 0  # two thirds of class 1 are lost
    got = agreement_of(mine, right)
    with pytest.raises(DriftError) as caught:
        check(got, "the FP16 plan of x", ["use bf16", "pass --allow-drift"])
    text = str(caught.value)
    assert isinstance(caught.value, PlanError)
    assert text.startswith("the FP16 plan of x drifts: 66.66% of the pixels agree with FP32, 99%")
    assert "class1 (IoU 0.33)" in text
    assert "background (IoU 0.43)" in text
    assert "class2" not in text
    assert text.endswith("use bf16, or pass --allow-drift")
    assert "\n" not in text


def shares(pixels, **classes):
    return Agreement(frames=1, pixels=pixels, classes=classes, reference="fixed 7, fp32")


@pytest.mark.parametrize(("wrong", "passes"), [(0, True), (99, True), (100, True), (101, False)])
def test_exactly_the_bound_is_enough(wrong, passes):
    card = fake_card(100, 100, CLASSES)
    right = np.zeros((1, 1, 100, 100), np.uint8)
    mine = right.copy()
    mine.reshape(-1)[:wrong] = 1
    got = agreement_of(mine, right, card)
    assert got.pixels == pytest.approx(1 - wrong / 10_000)
    if passes:
        check(got, "it", [])
    else:
        with pytest.raises(DriftError, match="class1"):
            check(got, "it", ["retrain"])


def test_just_below_the_bound_is_not_enough():
    check(shares(LEAST_AGREEMENT), "it", [])
    with pytest.raises(DriftError, match=r"98\.99% .* 99% are needed"):
        check(shares(0.98999999), "it", ["retrain"])


def test_a_drift_without_a_class_to_blame_says_so():
    with pytest.raises(DriftError, match="no single class"):
        check(shares(0.5, background=1.0), "it", ["retrain"])


def test_the_figures_as_one_line_and_as_data():
    got = shares(0.998799, dog=0.98, car=1.0)
    assert str(got) == (
        "99.87% of the pixels of 1 frames agree with FP32; class IoU from dog 0.980, car 1.000"
    )
    assert Agreement.model_validate_json(got.model_dump_json()) == got


def test_real_engines_are_compared():
    with FakeEngine(CARD) as one, FakeEngine(CARD) as other:
        pictures = guard_pictures(CARD)
        got = compare(one, other, pictures)
    assert got.pixels == 1.0
    assert got.frames == len(pictures)
    assert got.reference == "fake 1, fp32"


def test_a_failure_of_an_engine_is_not_hidden():
    from engines.errors import InferenceError

    with FakeEngine(CARD, fail_on=[1]) as one, FakeEngine(CARD) as other:
        with pytest.raises(InferenceError, match="told to fail"):
            compare(one, other, guard_pictures(CARD))


def test_the_frames_that_come_with_the_package():
    paths = sorted(FRAMES.glob("*.jpg"))
    assert len(paths) == 6
    assert {p.suffix for p in FRAMES.iterdir()} == {".jpg"}
    assert all(p.stat().st_size <= 60 * 1024 for p in paths)
    card = fake_card(289, 513)
    pictures = guard_pictures(card)
    assert len(pictures) == 6
    for picture in pictures:
        assert picture.dtype == np.uint8
        assert picture.shape == (1, 289, 513, 3)
        assert picture.flags.c_contiguous
        assert picture.std() > 20  # a photograph, not one colour
    assert len({p.tobytes() for p in pictures}) == 6


def write_red(path):
    picture = np.zeros((20, 30, 3), np.uint8)
    picture[..., 2] = 255  # OpenCV writes BGR
    assert cv2.imwrite(str(path), picture)


def test_ones_own_pictures_are_rgb_at_the_networks_size_and_in_order_of_name(tmp_path):
    for i in range(3):
        assert cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((9, 9, 3), 40 * i, np.uint8))
    write_red(tmp_path / "3.PNG")
    (tmp_path / "notes.txt").write_text("not a picture, and not asked for")
    pictures = guard_pictures(CARD, tmp_path)
    assert [p.shape for p in pictures] == [(1, HEIGHT, WIDTH, 3)] * 4
    assert [int(p.max()) for p in pictures[:3]] == [0, 40, 80]
    np.testing.assert_array_equal(pictures[3][0, 0, 0], [255, 0, 0])
    assert len(guard_pictures(CARD, tmp_path, most=2)) == 2


def test_a_folder_without_pictures_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing here")
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(ModelError, match=r"holds no pictures \(\.jpg"):
            guard_pictures(CARD, folder)


@pytest.mark.parametrize("data", [b"", b"not a picture", b"\xff\xd8\xff\xe0 and no more"])
def test_a_picture_that_cannot_be_read_is_named(tmp_path, data):
    write_red(tmp_path / "a.png")
    (tmp_path / "b.jpg").write_bytes(data)
    with pytest.raises(ModelError, match=r"b\.jpg is not a picture"):
        guard_pictures(CARD, tmp_path)
