"""Still images: one, a folder, a pattern."""

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import SourceError
from pipeline.sources import open_source
from pipeline.sources.images import IMAGE_SUFFIXES, natural_order, read_image
from pipeline.sources.synthetic import read_number
from tests.clips import corners, numbered, quadrants

# Those that keep every pixel, and how far the others may be off on flat patches.
LOSSLESS = {"bmp", "png", "ppm", "pnm", "tif", "tiff"}


def save(path, image, *flags):
    """uint8 (H, W, 3) RGB or (H, W) gray to a file; skips what OpenCV does not write here."""
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    try:
        done = cv2.imwrite(str(path), image, list(flags))
    except cv2.error:
        done = False
    if not done:
        pytest.skip(f"OpenCV writes no {path.suffix} here")
    return path


@pytest.mark.parametrize("suffix", sorted(s.lstrip(".") for s in IMAGE_SUFFIXES))
def test_every_suffix_is_read_with_its_colors(tmp_path, suffix):
    gray = suffix in ("pbm", "pgm")
    picture = quadrants(64, 80)
    path = save(
        tmp_path / f"a.{suffix}", cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) if gray else picture
    )
    source = open_source(path)
    (frame,) = source.frames()
    assert frame.image.shape == (64, 80, 3)
    assert frame.image.dtype == np.uint8
    assert source.info.codec == suffix
    if suffix == "pbm":  # black and white
        assert set(np.unique(frame.image)) <= {0, 255}
    elif gray:
        expected = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        assert np.array_equal(frame.image, expected)
    elif suffix in LOSSLESS:
        assert np.array_equal(frame.image, picture)
    else:
        assert corners(frame.image) == corners(picture)


@pytest.mark.parametrize("name", ["SHOUT.PNG", "Schräg & schön 日本.png", "a b.png", "x.y.png"])
def test_any_name_is_read(tmp_path, name):
    data = cv2.imencode(".png", quadrants())[1].tobytes()
    (tmp_path / name).write_bytes(data)
    (frame,) = open_source(tmp_path / name).frames()
    assert frame.name == Path(name).stem


# TIFF 6.0's and EXIF's Orientation -> the stored picture of an upright one.
ORIENTATIONS = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, 1),
    7: lambda p: np.rot90(p, 2).transpose(1, 0, 2),
    8: lambda p: np.rot90(p, -1),
}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_exif_turns_a_photograph_upright(tmp_path, orientation):
    stored = np.ascontiguousarray(ORIENTATIONS[orientation](quadrants(96, 128)))
    path = save(tmp_path / "photo.jpg", stored)
    data = path.read_bytes()
    path.write_bytes(data[:2] + exif(orientation) + data[2:])
    image = read_image(path)
    assert image.shape == (96, 128, 3)
    assert corners(image) == corners(quadrants())


def exif(orientation):
    """An APP1 segment with the one tag."""
    tiff = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    body = b"Exif\0\0" + tiff
    return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body


def test_gray_becomes_three_equal_channels(tmp_path):
    gray = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = read_image(save(tmp_path / "g.png", gray))
    assert all(np.array_equal(image[..., c], gray) for c in range(3))


def test_sixteen_bits_become_eight(tmp_path):
    deep = np.linspace(0, 65535, 4096).astype(np.uint16).reshape(64, 64)
    path = tmp_path / "deep.png"
    cv2.imwrite(str(path), deep)
    image = read_image(path)
    assert image.dtype == np.uint8
    assert np.abs(image[..., 0].astype(int) - deep // 257).max() <= 1


def test_alpha_is_dropped(tmp_path):
    bgra = np.dstack([cv2.cvtColor(quadrants(), cv2.COLOR_RGB2BGR), np.zeros((96, 128), np.uint8)])
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), bgra)
    assert np.array_equal(read_image(path), quadrants())


def test_a_cmyk_jpeg_is_read_as_colors(tmp_path):
    """Four components as a print shop writes them: a baseline JPEG made of one gray one."""
    path = tmp_path / "cmyk.jpg"
    path.write_bytes(cmyk_jpeg([40, 200, 200, 255]))  # Adobe's CMYK is inverted: 255 is no ink
    image = read_image(path)
    assert image.shape == (8, 8, 3)
    r, g, b = (int(v) for v in image[4, 4])
    assert abs(r - 40) <= 12
    assert abs(g - 200) <= 12
    assert abs(b - 200) <= 12


def cmyk_jpeg(values):
    """8x8 pixels of one colour in four components, Adobe transform 0."""
    quantization = b"\xff\xdb" + struct.pack(">HB", 67, 0) + bytes([8] * 64)
    components = b"".join(bytes([i + 1, 0x11, 0]) for i in range(4))
    frame = b"\xff\xc0" + struct.pack(">HBHHB", 8 + 12, 8, 8, 8, 4) + components
    adobe = b"\xff\xee" + struct.pack(">H5sHHHB", 14, b"Adobe", 100, 0, 0, 0)
    # Huffman codes of 4 bits for DC lengths 0 to 11, and of 1 bit for the AC's end of block.
    lengths = bytes([0, 0, 0, 12] + [0] * 12)
    dc = b"\xff\xc4" + struct.pack(">HB", 19 + 12, 0x00) + lengths + bytes(range(12))
    ac = b"\xff\xc4" + struct.pack(">HB", 19 + 1, 0x10) + bytes([1] + [0] * 15) + b"\0"
    scan = b"\xff\xda" + struct.pack(">HB", 6 + 8, 4)
    scan += b"".join(bytes([i + 1, 0x00]) for i in range(4)) + bytes([0, 63, 0])
    bits = ""
    for value in values:
        dc_value = value - 128  # the mean times 8, divided by the quantizer of 8
        size = abs(dc_value).bit_length()
        offset = dc_value if dc_value >= 0 else dc_value + (1 << size) - 1
        bits += f"{size:04b}" + (f"{offset:0{size}b}" if size else "") + "0"
    bits += "1" * (-len(bits) % 8)
    data = bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)).replace(
        b"\xff", b"\xff\0"
    )
    return b"\xff\xd8" + adobe + quantization + frame + dc + ac + scan + data + b"\xff\xd9"


@given(
    st.lists(st.integers(0, 10**12), unique=True, max_size=30), st.sampled_from(["", "f", "a1b"])
)
def test_numbered_files_come_in_the_order_of_their_numbers(values, prefix):
    names = [Path(f"{prefix}{value}.png") for value in values]
    expected = [Path(f"{prefix}{value}.png") for value in sorted(values)]
    assert natural_order(names) == expected


@given(st.lists(st.integers(0, 999), unique=True, max_size=20), st.integers(3, 8))
def test_leading_zeros_change_no_order(values, width):
    names = [Path(f"img_{value:0{width if value % 2 else 0}d}.jpg") for value in values]
    ordered = natural_order(names)
    assert [int(p.stem.split("_")[1]) for p in ordered] == sorted(values)


@given(st.lists(st.text("aB1٣²0_.", min_size=1, max_size=8), unique=True, max_size=12))
def test_any_names_have_one_order_whatever_order_they_come_in(names):
    paths = [Path(f"/d/{name}.png") for name in names]
    assert natural_order(paths) == natural_order(reversed(paths))


def test_a_folder_is_read_in_natural_order_with_its_names(tmp_path):
    for number in (10, 2, 1, 33):
        save(tmp_path / f"frame{number}.png", numbered(number))
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "sub.png").mkdir()
    source = open_source(tmp_path, fps=10)
    frames = list(source.frames())
    assert [read_number(f.image) for f in frames] == [1, 2, 10, 33]
    assert [f.name for f in frames] == ["frame1", "frame2", "frame10", "frame33"]
    assert [float(f.time_s) for f in frames] == pytest.approx([0, 0.1, 0.2, 0.3])
    assert source.info.frames == 4


def test_a_pattern_takes_what_matches_and_is_an_image(tmp_path):
    for number in (1, 2, 3):
        save(tmp_path / f"left{number}.png", numbered(number))
        save(tmp_path / f"right{number}.png", numbered(10 + number))
    (tmp_path / "left9.txt").write_text("no")
    frames = open_source(tmp_path / "left*").frames()
    assert [read_number(f.image) for f in frames] == [1, 2, 3]


def test_a_pattern_may_go_down_into_folders(tmp_path):
    for number in (1, 2):
        (tmp_path / f"d{number}").mkdir()
        save(tmp_path / f"d{number}" / "a.png", numbered(number))
    frames = open_source(tmp_path / "**" / "*.png").frames()
    assert [read_number(f.image) for f in frames] == [1, 2]


@pytest.mark.parametrize("name", ["a[1].png", "50%d.png", "what?.png"])
def test_a_file_named_like_a_pattern_is_that_file(tmp_path, name):
    save(tmp_path / name, numbered(5))
    (frame,) = open_source(tmp_path / name).frames()
    assert read_number(frame.image) == 5


@pytest.mark.parametrize("rate", [25.0, 29.97, 0.5, 23.976])
def test_fps_times_the_images(tmp_path, rate):
    for number in range(3):
        save(tmp_path / f"{number}.png", numbered(number))
    source = open_source(tmp_path, fps=rate)
    frames = list(source.frames())
    assert frames[2].time_s == pytest.approx(2 / rate, rel=1e-4)
    assert float(source.info.rate) == pytest.approx(rate, rel=1e-4)


@pytest.mark.parametrize("broken", [0, 2, 4])
def test_a_broken_image_in_a_folder_is_lost_and_leaves_its_time_empty(tmp_path, broken):
    for number in range(5):
        save(tmp_path / f"{number}.png", numbered(number))
    (tmp_path / f"{broken}.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing more")
    source = open_source(tmp_path)
    frames = list(source.frames())
    rest = [n for n in range(5) if n != broken]
    assert [read_number(f.image) for f in frames] == rest
    assert [f.pts for f in frames] == rest
    assert [f.index for f in frames] == [0, 1, 2, 3]
    assert source.lost == {"undecodable": 1}


def test_images_may_have_different_sizes(tmp_path):
    sizes = [(96, 128), (192, 256), (90, 122)]
    for number, size in enumerate(sizes):
        save(tmp_path / f"{number}.png", numbered(number, *size))
    frames = list(open_source(tmp_path).frames())
    assert [f.image.shape[:2] for f in frames] == sizes
    assert [read_number(f.image) for f in frames] == [0, 1, 2]


@pytest.mark.parametrize(
    "data", [b"", b"GIF89a", b"\xff\xd8\xff\xe0 cut off", b"\x89PNG\r\n\x1a\n"]
)
def test_a_broken_image_by_itself_is_one_line(tmp_path, data):
    path = tmp_path / "broken.png"
    path.write_bytes(data)
    with pytest.raises(SourceError, match=r"broken\.png is (empty|not an image)") as caught:
        open_source(path)
    assert "\n" not in str(caught.value)


def test_a_folder_of_broken_images_names_the_first(tmp_path):
    for number in (1, 2):
        (tmp_path / f"{number}.png").write_bytes(b"none")
    with pytest.raises(SourceError, match=r"1\.png is not an image"):
        open_source(tmp_path)
