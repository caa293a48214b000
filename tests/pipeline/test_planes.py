"""The chain on YUV planes shows what the chain on RGB shows."""

from __future__ import annotations

import av
import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.planes import Matrix, Planes, from_rgb, into_rgb
from pipeline.sources import open_source
from pipeline.stages import Look
from pipeline.stages.colorize import Painter
from pipeline.stages.geometry import to_network
from tests.clips import write_clip
from tests.networks import make_card
from tests.planes import planes_of

CARD = make_card(classes=5)
EVERY = (0, 1, 2, 3, 4)


def smooth(height, width, seed=0):
    """RGB without edges, for which 4:2:0 loses nothing, and within what every matrix can hold."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(30, 220, (3, 4, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).clip(20, 230)


def exact_rgb(planes):
    """float (H, W, 3), unclipped, each pixel with the chroma of its four."""
    m = into_rgb(planes.matrix).astype(np.float64)
    chroma = [np.kron(p, np.ones((2, 2))) for p in (planes.u, planes.v)]
    return np.stack([planes.y.astype(np.float64), *chroma], -1) @ m[:, :3].T + m[:, 3]


def patches(height, width, seed=0, size=8):
    """Labels whose borders lie on odd places, too."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 5, (-(-height // size) + 1, -(-width // size) + 1))
    shift = rng.integers(0, size, 2)
    labels = np.kron(coarse, np.ones((size, size), int))[shift[0] :, shift[1] :]
    return labels[:height, :width].astype(np.uint8)


@pytest.mark.parametrize("matrix", list(Matrix))
def test_the_matrices_are_each_others_inverse_and_swscales(matrix):
    there, back = (np.vstack([m(matrix), [0, 0, 0, 1]]) for m in (from_rgb, into_rgb))
    np.testing.assert_allclose(there @ back, np.eye(4), atol=1e-4)
    rgb = smooth(48, 64)
    planes = planes_of(rgb, matrix)
    assert np.abs(planes.rgb.astype(int) - exact_rgb(planes).clip(0, 255)).max() <= 4
    white, black = (there @ [v, v, v, 1] for v in (255, 0))
    np.testing.assert_allclose(white[:3], [235, 128, 128], atol=1e-3)
    np.testing.assert_allclose(black[:3], [16, 128, 128], atol=1e-3)


@pytest.mark.parametrize("matrix", list(Matrix))
@pytest.mark.parametrize(
    "look",
    [
        Look(),
        Look(0.3, EVERY),
        Look(1.0, EVERY),
        Look(0.7, (1, 3)),
        Look(contours=True),
        Look(0.0, contours=True),
    ],
)
def test_planes_are_painted_as_rgb_is(matrix, look):
    rgb, labels = smooth(120, 160), patches(120, 160, seed=3)
    painted = Painter(CARD, look).paint(planes_of(rgb, matrix), labels)
    expected = Painter(CARD, look).paint(rgb, labels)
    assert isinstance(painted, Planes)
    # Both as means of 2 x 2 pixels: at borders 4:2:0 has one chroma for four, whoever paints.
    got = exact_rgb(painted).reshape(60, 2, 80, 2, 3).mean((1, 3))
    want = expected.astype(np.float64).reshape(60, 2, 80, 2, 3).mean((1, 3))
    assert np.abs(got - want).max() <= 5
    assert np.abs(got - want).mean() <= 0.8
    # And every pixel's luma by itself.
    m = from_rgb(matrix).astype(np.float64)
    luma = expected.astype(np.float64) @ m[0, :3] + m[0, 3]
    assert np.abs(painted.y - luma).max() <= 2


@settings(max_examples=100, deadline=None)
@given(
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
    st.floats(0, 1),
    st.none() | st.lists(st.integers(0, 4), unique=True).map(tuple),
    st.booleans(),
    st.integers(0, 99),
)
@example((1, 1), 0.5, None, True, 1)
@example((1, 1), 1.0, EVERY, False, 1)
@example((2, 1), 0.5, (1, 2), True, 3)
@example((1, 20), 0.5, None, True, 3)
def test_planes_of_every_shape_are_painted_where_they_should_be(
    half, overlay, classes, lines, seed
):
    height, width = 2 * half[0], 2 * half[1]
    rng = np.random.default_rng(seed)
    planes, labels = Planes.blank(height, width, Matrix.BT601), patches(height, width, seed, 3)
    for plane in (planes.y, planes.u, planes.v):
        plane[:] = rng.integers(16, 236, plane.shape)
    kept = [p.copy() for p in (planes.y, planes.u, planes.v)]
    look = Look(overlay, classes, contours=lines)
    result = Painter(CARD, look).paint(planes, labels)
    for now, before in zip((planes.y, planes.u, planes.v), kept, strict=True):
        np.testing.assert_array_equal(now, before)  # the image is left alone
    mask = np.isin(labels, (1, 2, 3, 4) if classes is None else classes)
    np.testing.assert_array_equal(result.y[~mask], planes.y[~mask])
    touched = mask.reshape(half[0], 2, half[1], 2).any((1, 3))
    for now, before in ((result.u, planes.u), (result.v, planes.v)):
        np.testing.assert_array_equal(now[~touched], before[~touched])
    if overlay == 1:
        m = from_rgb(Matrix.BT601).astype(np.float64)
        colors = CARD.colors.astype(np.float64) @ m[:, :3].T + m[:, 3]
        assert np.abs(result.y[mask] - colors[labels[mask], 0]).max(initial=0) <= 0.51
        whole = mask.reshape(half[0], 2, half[1], 2).all((1, 3))
        means = colors[labels][..., 1].reshape(half[0], 2, half[1], 2).mean((1, 3))
        assert np.abs(result.u[whole] - means[whole]).max(initial=0) <= 1.51


@pytest.mark.parametrize("look", [Look(), Look(classes=()), Look(overlay=0)])
def test_where_nothing_is_painted_the_result_is_the_planes_themselves(look):
    planes = planes_of(smooth(20, 30))
    labels = np.zeros((20, 30), np.uint8)
    labels[:, 15:] = 1 if look.overlay == 0 or look.classes == () else 0
    assert Painter(CARD, look).paint(planes, labels) is planes


def test_the_legend_looks_the_same_on_planes_and_touches_only_its_corner():
    rgb, labels = smooth(360, 640), patches(360, 640)
    planes = planes_of(rgb)
    plain = Painter(CARD, Look()).paint(planes, labels)
    named = Painter(CARD, Look(legend=True)).paint(planes, labels)
    expected = Painter(CARD, Look(legend=True)).paint(rgb, labels)
    changed = np.argwhere(named.y.astype(int) - plain.y != 0)
    assert len(changed) > 500
    bottom, right = changed.max(0) + 1
    assert bottom < 80
    assert right < 200
    m = from_rgb(planes.matrix).astype(np.float64)
    luma = expected[:bottom, :right].astype(np.float64) @ m[0, :3] + m[0, 3]
    assert np.abs(named.y[:bottom, :right] - luma).max() <= 3


@pytest.mark.parametrize("size", [(96, 128), (90, 130), (45, 61), (200, 300)])
@pytest.mark.parametrize("aspect", ["stretch", "keep"])
@pytest.mark.parametrize("sampling", ["bilinear", "area"])
def test_the_network_gets_from_planes_what_it_gets_from_rgb(size, aspect, sampling):
    want = make_card(*size, aspect=aspect, sampling=sampling, mean=(0.1, 0.5, 0.9)).input
    planes = planes_of(smooth(180, 260))
    got = to_network(planes, want)
    expected = to_network(exact_rgb(planes).clip(0, 255).round().astype(np.uint8), want)
    assert got.shape == expected.shape == (1, *size, 3)
    assert np.abs(got.astype(int) - expected).max() <= 4
    assert np.abs(got.astype(int) - expected).mean() <= 0.6


def test_real_frames_come_as_planes_and_look_the_same_painted(tmp_path):
    clip = write_clip(tmp_path / "c.mp4", count=4, size=(96, 128))
    for frame in open_source(clip).frames():
        held = frame.held_image
        assert isinstance(held, Planes)
        labels = patches(96, 128, frame.index)
        painted = Painter(CARD, Look()).paint(held, labels)
        expected = Painter(CARD, Look()).paint(held.rgb, labels)
        inner = cv2.erode((labels > 0).astype(np.uint8), np.ones((5, 5))) > 0
        inner |= cv2.erode((labels == 0).astype(np.uint8), np.ones((5, 5))) > 0
        edge = cv2.morphologyEx(labels, cv2.MORPH_GRADIENT, np.ones((5, 5), np.uint8)) > 0
        difference = np.abs(painted.rgb.astype(int) - expected)[inner & ~edge]
        assert difference.max() <= 5  # swscale's fast path is within 3 of either
        assert difference.mean() <= 2


@pytest.mark.parametrize(
    ("pix_fmt", "codec", "size", "tags"),
    [
        ("yuv422p", "ffv1", (96, 128), {}),
        ("yuv444p", "libx264", (96, 128), {}),
        ("yuv420p10le", "ffv1", (96, 128), {}),
        ("yuv420p", "ffv1", (95, 128), {}),
        ("yuv420p", "ffv1", (96, 127), {}),
        ("yuv420p", "ffv1", (96, 128), {"color_range": 2}),
    ],
)
def test_what_is_not_plain_420_comes_as_rgb(tmp_path, pix_fmt, codec, size, tags):
    path = tmp_path / "c.mkv"
    write_clip(path, count=2, size=size, codec=codec, pix_fmt=pix_fmt, options={}, tags=tags)
    for frame in open_source(path).frames():
        assert isinstance(frame.held_image, np.ndarray)
        assert frame.image.shape == (*size, 3)


def test_planes_read_as_rgb_by_two_formats_of_memory():
    # A decoder's rows are padded; what is blank has rows of its own length.
    planes = planes_of(smooth(34, 50))
    again = Planes(planes.video, planes.matrix)
    np.testing.assert_array_equal(planes.rgb, again.rgb)
    assert isinstance(planes.video, av.VideoFrame)
    copy = planes.copy()
    copy.y[:] = 16
    assert planes.y.max() > 16
