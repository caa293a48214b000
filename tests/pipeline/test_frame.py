"""A frame's picture in two forms: planes where nobody asks for more, RGB for whoever does."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from pipeline.frame import Frame
from pipeline.planes import Matrix, Planes


def planes(height=6, width=8, luma=120):
    out = Planes.blank(height, width, Matrix.BT709)
    out.y[:] = luma
    out.u[:] = 128
    out.v[:] = 128
    return out


def frame_of(image, **more):
    return Frame(0, 0, Fraction(1, 25), image, **more)


GRAY = round((120 - 16) * 255 / 219)


def test_planes_read_as_rgb_and_the_same_array_each_time():
    frame = frame_of(planes())
    assert frame.image.shape == (6, 8, 3)
    assert np.abs(frame.image.astype(int) - GRAY).max() <= 1
    assert frame.image is frame.image
    assert frame.picture is None
    assert frame.held_picture is None


def test_what_a_stage_writes_into_the_rgb_is_what_counts_from_then_on():
    frame = frame_of(planes())
    assert isinstance(frame.held_image, Planes)
    frame.image[:] = 7
    assert frame.held_image is frame.image
    assert (frame.held_image == 7).all()


def test_a_picture_in_which_nothing_was_painted_is_the_image_in_both_forms():
    frame = frame_of(planes())
    frame.picture = frame.held_image
    assert frame.picture is frame.image
    assert frame.held_picture is frame.image


def test_what_one_sink_asks_for_changes_nothing_for_another():
    frame = frame_of(planes(), shared=True)
    frame.picture = frame.held_image
    held = frame.held_picture
    assert frame.picture is frame.picture
    assert frame.held_picture is held


def test_a_copy_has_the_same_pictures():
    frame = frame_of(planes(), shared=True)
    copy = replace(frame, pts=9, picture=frame.image)
    assert copy.pts == 9
    assert copy.image is frame.image
    assert copy.picture is frame.image


def test_a_frame_has_an_image():
    with pytest.raises(TypeError, match="image"):
        Frame(0, 0, Fraction(1, 25))


def test_what_a_decoder_gave_cannot_be_written_to():
    given = planes()
    read = Planes(given.video, Matrix.BT709)
    with pytest.raises(ValueError, match="read-only"):
        read.y[:] = 0
    assert read.shape == (6, 8)
    assert read.u.shape == read.v.shape == (3, 4)
