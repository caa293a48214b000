"""Statistics: a JSON line a frame, whose numbers are right, and COCO's run lengths."""

import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sinks import StatisticsSink
from pipeline.sinks.statistics import coco_rle
from tests.pipeline.sinks.hand_made import drive, masks

CLASSES = ["background", *(f"class{i}" for i in range(1, 256))]
RNG = np.random.default_rng(4)


def rows(path, labels, rle=False, **more):
    drive(StatisticsSink(path, CLASSES, rle=rle), masks(labels, **more))
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_line_has_the_frames_number_time_and_shares(tmp_path):
    labels = np.zeros((10, 20), np.uint8)
    labels[:5, :10], labels[9] = 3, 255
    (first, second) = rows(
        tmp_path / "s.jsonl", [labels, labels], pts=[90, 4590], time_base=Fraction(1, 90_000)
    )
    assert first == {
        "index": 0,
        "pts": 90,
        "time_s": 0.001,
        "classes": {"background": 0.65, "class3": 0.25, "class255": 0.1},
    }
    assert (second["index"], second["pts"], second["time_s"]) == (1, 4590, 0.051)


def test_shares_are_counted_right_and_sum_to_one(tmp_path):
    labels = [RNG.integers(0, 256, (37, 53), np.uint8) for _ in range(5)]
    for row, ids in zip(rows(tmp_path / "s.jsonl", labels), labels, strict=True):
        values, counts = np.unique(ids, return_counts=True)
        assert list(row["classes"]) == [CLASSES[v] for v in values]
        assert list(row["classes"].values()) == pytest.approx(counts / ids.size, abs=1e-6)
        assert sum(row["classes"].values()) == pytest.approx(1, abs=256 * 5e-7)


def test_a_big_picture_is_counted_right(tmp_path):
    """More pixels of one class than a float32 counts one by one."""
    labels = np.zeros((4200, 4200), np.uint8)
    labels[0, 0] = 1
    (row,) = rows(tmp_path / "s.jsonl", [labels])
    assert row["classes"]["class1"] == pytest.approx(1 / 4200**2, abs=1e-6)
    assert set(row["classes"]) == {"background", "class1"}


def test_labels_that_are_not_contiguous_are_counted_as_they_look(tmp_path):
    ids = RNG.integers(0, 4, (30, 40), np.uint8)
    straight = rows(tmp_path / "a.jsonl", [np.ascontiguousarray(ids.T)], rle=True)
    turned = rows(tmp_path / "b.jsonl", [ids.T], rle=True)
    assert straight == turned


def test_every_line_is_in_the_file_as_soon_as_the_frame_is_passed_on(tmp_path):
    sink = StatisticsSink(tmp_path / "s.jsonl", CLASSES)
    labels = [np.zeros((4, 4), np.uint8)] * 5
    for count, _ in enumerate(sink.run(masks(labels)), start=1):
        text = (tmp_path / "s.partial.jsonl").read_text()
        assert text.endswith("\n")
        assert len([json.loads(line) for line in text.splitlines()]) == count


def test_rle_has_the_mask_of_each_class_that_occurs(tmp_path):
    ids = RNG.integers(0, 5, (33, 41), np.uint8)
    (row,) = rows(tmp_path / "s.jsonl", [ids], rle=True)
    assert set(row["rle"]) == set(row["classes"])
    for value in range(5):
        assert np.array_equal(decode(row["rle"][CLASSES[value]]), ids == value)


def test_without_rle_there_is_none(tmp_path):
    (row,) = rows(tmp_path / "s.jsonl", [np.zeros((4, 4), np.uint8)])
    assert "rle" not in row


sides = st.integers(1, 40)


@st.composite
def some_masks(draw):
    """Noise, stripes and blobs: short and long runs, both values first."""
    height, width = draw(sides), draw(sides)
    kind = draw(st.sampled_from(["noise", "runs", "full", "one pixel"]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if kind == "noise":
        return rng.random((height, width)) < draw(st.floats(0, 1))
    if kind == "full":
        return np.full((height, width), draw(st.booleans()))
    mask = np.zeros(height * width, bool)
    if kind == "runs":
        for _ in range(draw(st.integers(1, 8))):
            start, stop = sorted(rng.integers(0, mask.size + 1, 2))
            mask[start:stop] ^= True
    else:
        mask[rng.integers(0, mask.size)] = True
    return mask.reshape(width, height).T


@given(some_masks())
def test_rle_is_pycocotools_byte_for_byte(mask):
    coco = pytest.importorskip("pycocotools.mask")
    expected = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert coco_rle(mask) == {
        "size": expected["size"],
        "counts": expected["counts"].decode("ascii"),
    }


@given(some_masks())
def test_rle_decodes_to_the_mask(mask):
    assert np.array_equal(decode(coco_rle(mask)), mask)


def decode(rle):
    """The other way, written from the format's description (cocoapi, rleFrString)."""
    runs, value, shift = [], 0, 0
    for character in rle["counts"]:
        group = ord(character) - 48
        value |= (group & 31) << shift
        shift += 5
        if not group & 32:
            if group & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return flat.reshape(rle["size"][::-1]).T


@pytest.mark.parametrize("size", [(1080, 1920), (2160, 3840)])
def test_rle_of_large_masks_is_pycocotools(size):
    coco = pytest.importorskip("pycocotools.mask")
    y, x = np.mgrid[0 : size[0], 0 : size[1]]
    for mask in (
        (x - 900) ** 2 + (y - 500) ** 2 < 400**2,
        (x // 7 + y // 11) % 2 == 0,
        np.ones(size, bool),
        np.zeros(size, bool),
    ):
        expected = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
        assert coco_rle(mask)["counts"].encode() == expected
