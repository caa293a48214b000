"""Layouts: where the samples of a picture lie."""

from __future__ import annotations

import numpy as np
import pytest

from engines.cuda.picture import Layout, NetworkInput, Placed


@pytest.mark.parametrize(
    ("layout", "size", "shapes"),
    [
        (Layout("rgb24", 3, 5), 45, [(3, 5, 3)]),
        (Layout("rgb24", 3, 5, 32), 96, [(3, 5, 3)]),
        (Layout("yuv420p", 4, 6), 36, [(4, 6), (2, 3), (2, 3)]),
        (Layout("yuv420p", 4, 6, 16), 96, [(4, 6), (2, 3), (2, 3)]),
        (Layout("nv12", 4, 6), 36, [(4, 6), (2, 3, 2)]),
        (Layout("nv12", 4, 6, 17), 102, [(4, 6), (2, 3, 2)]),
    ],
)
def test_views_are_where_the_numbers_say(layout, size, shapes):
    assert layout.size == size
    buffer = np.zeros(size + 7, np.uint8)  # a pinned block may be larger
    views = layout.planes(buffer)
    assert [view.shape for view in views] == shapes
    for i, view in enumerate(views):
        view[:] = i + 1
    assert np.count_nonzero(buffer) == sum(view.size for view in views)
    assert not buffer[size:].any()
    for y, x in ((0, 0), (layout.height - 1, layout.width - 1)):
        step = 3 if layout.format == "rgb24" else 1
        assert buffer[y * layout.pitch + x * step] == 1
        if layout.format != "rgb24":
            u = layout.chroma + y // 2 * layout.chroma_pitch + x // 2 * layout.chroma_step
            views[1][y // 2, x // 2] = (77, 99) if layout.format == "nv12" else 77
            views[-1][y // 2, x // 2] = (77, 99) if layout.format == "nv12" else 99
            assert (buffer[u], buffer[u + layout.u_to_v]) == (77, 99)


def test_a_tight_pitch_may_be_left_out():
    assert Layout("rgb24", 2, 4) == Layout("rgb24", 2, 4, 12)


@pytest.mark.parametrize(
    ("form", "height", "width", "pitch", "said"),
    [
        ("rgb24", 2, 4, 11, "they take 12"),
        ("rgb24", 0, 4, 0, "at least one pixel"),
        ("nv12", 3, 4, 0, "must be even"),
        ("yuv420p", 4, 3, 0, "must be even"),
        ("yuv420p", 4, 4, 7, "is even, not 7"),
    ],
)
def test_what_cannot_be_is_refused(form, height, width, pitch, said):
    with pytest.raises(ValueError, match=said):
        Layout(form, height, width, pitch)


def test_chroma_lies_behind_luma_unless_it_is_said():
    layout = Layout("nv12", 4, 6, 8)
    assert Placed(layout, 1000).chroma_address == 1032
    assert Placed(layout, 1000, 5000).chroma_address == 5000
    assert Placed(Layout("rgb24", 4, 6), 1000).chroma_address == 0


def test_a_window_lies_in_its_network():
    NetworkInput(8, 8, 2, 0, 4, 8, (0, 0, 0))
    for top, left, height, width in ((5, 0, 4, 8), (-1, 0, 4, 8), (0, 1, 8, 8), (0, 0, 0, 8)):
        with pytest.raises(ValueError, match="is not inside"):
            NetworkInput(8, 8, top, left, height, width, (0, 0, 0))
