"""Colours: what comes out is what the file means, by the formulas of ITU-T H.273."""

import numpy as np
import pytest

from pipeline.planes import Matrix
from pipeline.sources import open_source
from pipeline.sources.color import matrix_of
from tests.clips import LOSSLESS, needs_encoder, write_clip, yuv_frame

# H.273's number -> Kr, Kb (table 4).
MATRICES = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}
LIMITED, FULL = 1, 2

COLORS = [
    (0, 0, 0),
    (255, 255, 255),
    (128, 128, 128),
    (255, 0, 0),
    (0, 255, 0),
    (0, 0, 255),
    (255, 255, 0),
    (200, 120, 70),
    (30, 90, 160),
    (90, 30, 60),
]
SIZE = (32, 32 * len(COLORS))


def codes_of(rgb, matrix, full, depth=8):
    """Rounded code values Y, Cb, Cr of 8-bit R'G'B' (H.273, equations 38 to 41 and 20 to 25)."""
    kr, kb = MATRICES[matrix]
    r, g, b = (v / 255 for v in rgb)
    y = kr * r + (1 - kr - kb) * g + kb * b
    cb, cr = (b - y) / (2 * (1 - kb)), (r - y) / (2 * (1 - kr))
    scale = 2 ** (depth - 8)
    if full:
        top = 2**depth - 1
        half = 2 ** (depth - 1)
        values = (y * top, cb * top + half, cr * top + half)
    else:
        values = ((219 * y + 16) * scale, (224 * cb + 128) * scale, (224 * cr + 128) * scale)
    top = 2**depth - 1
    return tuple(min(top, max(0, round(v))) for v in values)


def rgb_of(codes, matrix, full, depth=8):
    """The exact 8-bit colour, unrounded, of code values: the inverse."""
    kr, kb = MATRICES[matrix]
    scale = 2 ** (depth - 8)
    if full:
        top, half = 2**depth - 1, 2 ** (depth - 1)
        y, cb, cr = codes[0] / top, (codes[1] - half) / top, (codes[2] - half) / top
    else:
        y = (codes[0] / scale - 16) / 219
        cb, cr = ((c / scale - 128) / 224 for c in codes[1:])
    r, b = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
    g = (y - kr * r - kb * b) / (1 - kr - kb)
    return np.clip(np.array([r, g, b]) * 255, 0, 255)


def stripes(image, count):
    """The middle of each vertical stripe, float (count, 3), which must be flat."""
    width = image.shape[1] // count
    middles = []
    for i in range(count):
        patch = image[8:-8, i * width + width // 3 : (i + 1) * width - width // 3].reshape(-1, 3)
        middles.append(patch.mean(axis=0))
    return np.array(middles)


def decoded(path, count=10):
    (frame,) = open_source(path).frames()
    return stripes(frame.image.astype(np.int16), count)


def write(path, codes, pix_fmt, codec, size=SIZE, **tags):
    frame = yuv_frame(codes, pix_fmt, size)
    return write_clip(path, pictures=[frame], codec=codec, options=LOSSLESS[codec], tags=tags)


@pytest.mark.parametrize("matrix", [1, 5, 6, 9])
@pytest.mark.parametrize("color_range", [LIMITED, FULL])
@pytest.mark.parametrize(
    ("pix_fmt", "codec", "levels"),
    [
        ("yuv420p", "ffv1", 3),
        ("yuv420p", "libx264", 3),  # decoded as yuvj420p where the range is full
        ("nv12", "rawvideo", 3),
        ("yuv422p", "ffv1", 3),
        ("yuv444p", "ffv1", 1),
        ("yuv444p", "libx264", 1),
        ("yuv420p10le", "ffv1", 1),
        ("yuv422p10le", "ffv1", 1),
    ],
)
def test_tagged_colors_are_exact(tmp_path, matrix, color_range, pix_fmt, codec, levels):
    needs_encoder(codec)
    depth = 10 if "10" in pix_fmt else 8
    full = color_range == FULL
    codes = [codes_of(rgb, matrix, full, depth) for rgb in COLORS]
    path = write(
        tmp_path / "c.mkv", codes, pix_fmt, codec, colorspace=matrix, color_range=color_range
    )
    expected = np.array([rgb_of(code, matrix, full, depth) for code in codes])
    assert np.abs(decoded(path) - expected).max() <= levels


@pytest.mark.parametrize("codec", ["ffv1", "libx264"])
@pytest.mark.parametrize("color_range", [LIMITED, FULL, 0])
def test_gray_is_expanded_where_it_is_limited_and_only_there(tmp_path, codec, color_range):
    codes = [(16,), (17,), (100,), (180,), (235,)]
    path = write(tmp_path / "c.mkv", codes, "gray", codec, (32, 160), color_range=color_range)
    values = np.array([code[0] for code in codes], float)
    # libx264 writes limited where nobody says; FFV1 does not say, and gray then is full.
    if color_range == LIMITED or (codec == "libx264" and color_range == 0):
        values = np.clip((values - 16) * 255 / 219, 0, 255)
    expected = np.repeat(values[:, None], 3, axis=1)
    assert np.abs(decoded(path, len(codes)) - expected).max() <= 1


@pytest.mark.parametrize(
    ("suffix", "codec", "pix_fmt"),
    [
        ("nut", "rawvideo", "rgb24"),
        ("avi", "rawvideo", "bgr24"),
        ("mov", "png", "rgb24"),
        ("mkv", "ffv1", "bgr0"),
    ],
)
def test_rgb_goes_through_untouched(tmp_path, suffix, codec, pix_fmt):
    rgb = np.repeat(np.repeat(np.array([COLORS], np.uint8), 32, axis=1), 32, axis=0)
    path = write_clip(
        tmp_path / f"c.{suffix}", pictures=[rgb], codec=codec, pix_fmt=pix_fmt, options={}
    )
    (frame,) = open_source(path).frames()
    assert np.array_equal(frame.image, rgb)


def test_motion_jpeg_is_full_range_bt601_at_any_size(tmp_path):
    codes = [codes_of(rgb, 5, True) for rgb in COLORS]
    frame = yuv_frame(codes, "yuvj420p", SIZE)
    path = write_clip(tmp_path / "c.avi", pictures=[frame], codec="mjpeg", pix_fmt="yuvj420p")
    expected = np.array([rgb_of(code, 5, True) for code in codes])
    assert np.abs(decoded(path) - expected).max() <= 4  # 3, and the codec's own rounding


@pytest.mark.parametrize(
    ("size", "matrix"),
    [((480, 640), 5), ((576, 720), 5), ((720, 1280), 1), ((578, 800), 1), ((360, 1280), 1)],
)
@pytest.mark.parametrize("pix_fmt", ["yuv444p", "yuv420p"])
def test_untagged_video_is_bt709_from_hd_on_and_bt601_below(tmp_path, size, matrix, pix_fmt):
    codes = [codes_of(rgb, matrix, False) for rgb in COLORS]
    path = write(tmp_path / "c.mkv", codes, pix_fmt, "ffv1", size)
    expected = np.array([rgb_of(code, matrix, False) for code in codes])
    assert np.abs(decoded(path) - expected).max() <= (1 if pix_fmt == "yuv444p" else 3)


@pytest.mark.parametrize("matrix", [1, 5, 6, 9])
def test_info_tells_matrix_primaries_and_transfer(tmp_path, matrix):
    path = write(
        tmp_path / "c.mkv",
        [(100, 120, 140)],
        "yuv420p",
        "ffv1",
        (32, 64),
        colorspace=matrix,
        color_primaries=9,
        color_trc=14,
    )
    info = open_source(path).info
    assert info.matrix == matrix_of(matrix, 64, 32)
    assert (info.color_primaries, info.color_trc) == (9, 14)


def test_every_matrix_number_has_swscales_counterpart():
    assert matrix_of(1, 100, 100) == Matrix.BT709
    assert matrix_of(9, 100, 100) == Matrix.BT2020
    assert matrix_of(6, 4000, 4000) == Matrix.BT601
    assert matrix_of(2, 1280, 500) == Matrix.BT709
    assert matrix_of(2, 1279, 576) == Matrix.BT601
