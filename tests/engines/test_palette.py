from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines import palette
from engines.errors import CardError


@pytest.mark.parametrize(
    ("class_id", "color"),
    [
        (0, (0, 0, 0)),
        (1, (128, 0, 0)),
        (2, (0, 128, 0)),
        (4, (0, 0, 128)),
        (8, (64, 0, 0)),
        (15, (192, 128, 128)),
        (20, (0, 64, 128)),
        (255, (224, 224, 192)),
    ],
)
def test_voc_has_the_published_colours(class_id, color):
    assert tuple(palette.voc()[class_id]) == color


@given(st.integers(0, 255))
def test_voc_deals_the_bits_of_an_id_to_the_channels_in_turn(class_id):
    # Written as text: the bits from the lowest up, every third to the same channel, highest first.
    bits = f"{class_id:08b}"[::-1]
    color = tuple(int(bits[channel::3].ljust(8, "0"), 2) for channel in range(3))
    assert tuple(int(v) for v in palette.voc()[class_id]) == color


def test_voc_has_no_colour_twice():
    assert len(np.unique(palette.voc(), axis=0)) == 256


@pytest.mark.parametrize(("name", "count"), [("voc", 21), ("camvid", 11), ("cityscapes", 19)])
def test_named_palettes_tell_their_classes_apart(name, count):
    table = palette.colors(name, count)
    assert table.shape == (256, 3)
    assert table.dtype == np.uint8
    assert len(np.unique(table[:count], axis=0)) == count
    assert not table[count:].any()


def test_published_colours_of_named_palettes():
    assert tuple(palette.colors("cityscapes", 19)[11]) == (220, 20, 60)  # person
    assert tuple(palette.colors("cityscapes", 19)[13]) == (0, 0, 142)  # car
    assert tuple(palette.colors("camvid", 11)[8]) == (64, 0, 128)  # car


@given(st.integers(1, 256), st.data())
def test_a_list_is_taken_as_it_is_and_the_rest_is_black(count, data):
    color = st.lists(st.integers(0, 255), min_size=3, max_size=3)
    rows = data.draw(st.lists(color, min_size=count, max_size=count + 2))
    table = palette.colors(rows, count)
    assert table[:count].tolist() == rows[:count]
    assert not table[count:].any()


@pytest.mark.parametrize(
    ("rows", "count", "message"),
    [
        ("rainbow", 2, "'rainbow' is unknown; allowed: voc, camvid, cityscapes"),
        ("camvid", 12, "11 colours for 12 classes"),
        ([[0, 0, 0]], 2, "1 colours for 2 classes"),
        ([[0, 0, 0], [0, 0]], 2, r"colour 1 is \[0, 0\]"),
        ([[0, 0, 0, 0], [1, 1, 1]], 2, r"colour 0 is \[0, 0, 0, 0\]"),
        ([[0, 0, 256], [1, 1, 1]], 2, "colour 0 .*each 0..255"),
        ([[0, 0, 0], [-1, 1, 1]], 2, "colour 1 .*each 0..255"),
        ([[0, 0, 0.5], [1, 1, 1]], 2, "colour 0"),
    ],
)
def test_mistakes_are_named(rows, count, message):
    with pytest.raises(CardError, match=message):
        palette.colors(rows, count)
