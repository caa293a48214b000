"""Videos that are written: frames, timestamps, colours and sizes, read back and compared."""

from fractions import Fraction
from itertools import pairwise

import av
import cv2
import numpy as np
import pytest

from pipeline.errors import SinkError
from pipeline.sinks import VideoSink, open_output
from pipeline.sinks.encoder import CONTAINERS, choose_encoder
from pipeline.sources import SyntheticSource, open_source
from pipeline.sources.synthetic import read_number
from tests.clips import HEIGHT, WIDTH, numbered, write_clip, yuv_frame
from tests.pipeline.sinks.hand_made import colored, drive, frames, info

SUFFIXES = sorted(CONTAINERS)
MS = Fraction(1, 1000)
IRREGULAR = [0, 40, 80, 1000, 1010, 1200, 5000, 5040]
# The container's own tick, where it is coarser than a source's may be.
TICKS = {".mkv": MS, ".webm": MS, ".ts": Fraction(1, 90_000)}

SCHEDULES = {
    "constant": (list(range(12)), Fraction(1, 25)),
    "ntsc": ([1001 * i for i in range(12)], Fraction(1, 30_000)),
    "variable": (IRREGULAR, MS),
    "from ten seconds on": ([10_000 + 40 * i for i in range(12)], MS),
    "variable from ten seconds on": ([10_000 + t for t in IRREGULAR], MS),
    "fine": ([i * 8_000_007 for i in range(12)], Fraction(1, 200_000_000)),
    "90 kHz": ([900 + 3003 * i for i in range(12)], Fraction(1, 90_000)),
    "ntsc from the second frame on": ([1001 * i for i in range(1, 13)], Fraction(1, 30_000)),
    "with gaps": ([0, 1, 2, 7, 8, 20, 21], Fraction(1, 30)),
}


def read(path):
    source = open_source(path)
    return source, list(source.frames())


def seconds(given):
    return [f.pts * f.time_base for f in given]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_frame_is_written_in_order_at_its_time(tmp_path, suffix, schedule):
    pts, base = SCHEDULES[schedule]
    path = tmp_path / f"out{suffix}"
    sink = VideoSink(path, info(time_base=base))
    given = list(frames(len(pts), pts=pts, time_base=base, durations=[0] * len(pts)))
    passed_on = drive(sink, given)
    assert [f.index for f in passed_on] == list(range(len(pts)))
    source, written = read(path)
    assert [read_number(f.image) for f in written] == list(range(len(pts)))
    assert source.lost == {}
    tick = TICKS.get(suffix, 0)
    for got, wanted in zip(seconds(written), seconds(given), strict=True):
        assert abs(got - wanted) <= tick / 2
    assert sink.output.frames == len(pts)
    assert sink.output.complete
    assert sink.output.path == path


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".m4v"])
@pytest.mark.parametrize("last", [1, 40, 2000])
def test_the_last_frame_stays_as_long_as_the_source_says(tmp_path, suffix, last):
    path = tmp_path / f"out{suffix}"
    lengths = [b - a for a, b in pairwise(IRREGULAR)] + [last]
    given = frames(8, pts=IRREGULAR, time_base=MS, durations=lengths)
    drive(VideoSink(path, info(time_base=MS)), given)
    _, written = read(path)
    assert [f.duration * f.time_base for f in written] == [n * MS for n in lengths]
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        assert stream.duration * stream.time_base == (5040 + last) * MS


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_single_frame_is_a_video(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    drive(VideoSink(path, info()), frames(1))
    assert [read_number(f.image) for f in read(path)[1]] == [0]


def test_a_source_without_a_rate_is_written(tmp_path):
    path = tmp_path / "out.mp4"
    drive(VideoSink(path, info(rate=None)), frames())
    assert seconds(read(path)[1]) == [Fraction(i, 25) for i in range(12)]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_source_to_sink_to_source_keeps_all_timestamps(tmp_path, suffix):
    options = {"preset": "fast", "crf": "12", "bf": "3"}
    given = write_clip(tmp_path / "in.mp4", count=30, options=options)
    source = open_source(given)
    sink = open_output(tmp_path / f"out{suffix}", source)
    before = seconds(drive(sink, colored(source)))
    assert seconds(read(sink.output.path)[1]) == before


STRIPES = [
    (60, 128, 128),
    (200, 128, 128),
    (81, 90, 200),
    (145, 54, 60),
    (90, 190, 110),
    (120, 100, 160),
]


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm", ".ts"])
@pytest.mark.parametrize(
    ("matrix", "primaries", "transfer"), [(1, 1, 1), (6, 6, 6), (5, 5, 6), (9, 9, 14)]
)
def test_colors_and_their_tags_survive(tmp_path, suffix, matrix, primaries, transfer):
    tags = {"colorspace": matrix, "color_primaries": primaries, "color_trc": transfer}
    given = write_clip(
        tmp_path / "in.mkv",
        pictures=[yuv_frame(STRIPES, "yuv420p", (64, 384))] * 5,
        codec="ffv1",
        options={},
        tags={**tags, "color_range": 1},
    )
    source = open_source(given)
    path = tmp_path / f"out{suffix}"
    before = drive(open_output(path, source, quality=12), colored(source))
    after = read(path)[1]
    for i in range(len(STRIPES)):
        patch = np.s_[16:48, i * 64 + 20 : (i + 1) * 64 - 20]
        mean_before = before[-1].image[patch].reshape(-1, 3).mean(axis=0)
        mean_after = after[-1].image[patch].reshape(-1, 3).mean(axis=0)
        assert np.abs(mean_before - mean_after).max() <= 4
    with av.open(str(path)) as file:
        decoded = next(file.decode(video=0))
        # 5 and 6 are one matrix; it is written as 6.
        assert decoded.colorspace in ({5, 6} if matrix in (5, 6) else {matrix})
        assert decoded.color_range == 1
        if suffix != ".webm" or matrix != 5:  # VP9's stream has the matrix alone
            assert decoded.color_primaries in (primaries, {5: 6, 6: 5}.get(primaries))
            assert decoded.color_trc == transfer


@pytest.mark.parametrize(("size", "matrix"), [((96, 128), 6), ((720, 1280), 1)])
def test_pictures_that_were_never_yuv_get_the_matrix_of_their_size(tmp_path, size, matrix):
    path = tmp_path / "out.mp4"
    picture = np.full((*size, 3), (200, 60, 40), np.uint8)
    drive(VideoSink(path, info(*size)), frames(pictures=[picture] * 2))
    with av.open(str(path)) as file:
        assert next(file.decode(video=0)).colorspace == matrix
    middle = read(path)[1][0].image[size[0] // 2, size[1] // 2].astype(int)
    assert np.abs(middle - (200, 60, 40)).max() <= 4


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".ts"])
def test_the_pixel_aspect_is_kept(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    sink = VideoSink(path, info(pixel_aspect=Fraction(4, 3)))
    drive(sink, frames())
    assert read(path)[0].info.pixel_aspect == Fraction(4, 3)
    assert sink.notes == []


def test_webm_gets_square_pixels_so_that_it_is_shown_alike(tmp_path):
    path = tmp_path / "out.webm"
    sink = VideoSink(path, info(pixel_aspect=Fraction(3, 2)))
    pictures = [numbered(0), numbered(1), numbered(2, 2 * HEIGHT, 2 * WIDTH)]
    drive(sink, frames(pictures=pictures))
    source, written = read(path)
    assert source.info.pixel_aspect == 1
    assert [f.image.shape for f in written] == [(HEIGHT, WIDTH * 3 // 2, 3)] * 3
    assert [read_number(f.image) for f in written] == [0, 1, 2]
    assert any("192x96" in note for note in sink.notes)


@pytest.mark.parametrize("size", [(97, 129), (96, 129), (97, 128), (65, 33)])
def test_odd_sides_are_padded_by_a_repeated_edge_and_noted(tmp_path, size):
    path = tmp_path / "out.mp4"
    picture = np.full((*size, 3), 90, np.uint8)
    picture[-1], picture[:, -1] = 200, 200
    sink = VideoSink(path, info(*size))
    drive(sink, frames(pictures=[picture] * 3))
    even = (size[0] + size[0] % 2, size[1] + size[1] % 2)
    image = read(path)[1][0].image
    assert image.shape[:2] == even
    assert abs(int(image[-1, -1].mean()) - 200) < 30
    assert any(f"{even[1]}x{even[0]}" in note for note in sink.notes)


def test_vp9_takes_odd_sides_as_they_are(tmp_path):
    path = tmp_path / "out.webm"
    sink = VideoSink(path, info(97, 129))
    drive(sink, frames(pictures=[np.full((97, 129, 3), 90, np.uint8)] * 3))
    assert read(path)[1][0].image.shape == (97, 129, 3)
    assert sink.notes == []


def test_a_picture_with_padded_rows_is_written_as_it_looks(tmp_path):
    """Decoders hand out views of longer rows, and sources turned views; both are not contiguous."""
    wide = np.zeros((HEIGHT, WIDTH + 32, 3), np.uint8)
    wide[:, WIDTH:] = 255
    pictures = []
    for i in range(4):
        wide[:, :WIDTH] = numbered(i)
        pictures.append(wide.copy()[:, :WIDTH])
    pictures.append(np.ascontiguousarray(numbered(4)[::-1])[::-1])
    assert not any(p.flags.c_contiguous for p in pictures)
    path = tmp_path / "out.mp4"
    drive(VideoSink(path, info()), frames(pictures=pictures))
    written = read(path)[1]
    assert [read_number(f.image) for f in written] == [0, 1, 2, 3, 4]
    assert abs(int(written[0].image[HEIGHT // 2, -1].mean()) - 110) < 12


def test_the_sink_leaves_the_pictures_untouched(tmp_path):
    given = list(frames())
    before = [f.picture.copy() for f in given]
    drive(VideoSink(tmp_path / "out.mp4", info()), given)
    assert all(np.array_equal(f.picture, b) for f, b in zip(given, before, strict=True))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_after_a_change_of_size_pictures_are_fitted_into_the_first_ones(tmp_path, suffix):
    pictures = [numbered(0), numbered(1), np.full((200, 100, 3), 180, np.uint8), numbered(3)]
    path = tmp_path / f"out{suffix}"
    drive(VideoSink(path, info()), frames(pictures=pictures))
    written = read(path)[1]
    assert [f.image.shape for f in written] == [(HEIGHT, WIDTH, 3)] * 4
    assert [read_number(written[i].image) for i in (0, 1, 3)] == [0, 1, 3]
    middle = written[2].image[HEIGHT // 2]
    assert abs(int(middle[WIDTH // 2].mean()) - 180) < 12  # 48 wide, in the middle
    assert int(middle[4].max()) < 24  # black beside it
    assert int(middle[-5].max()) < 24


def test_no_frames_make_no_file(tmp_path):
    for suffix in SUFFIXES:
        sink = VideoSink(tmp_path / f"out{suffix}", info())
        drive(sink, [])
        assert list(tmp_path.iterdir()) == []
        assert sink.output.frames == 0
        assert not sink.output.complete


@pytest.mark.parametrize("name", ["out.mpeg", "out.avi", "out.gif", "out.txt"])
def test_a_suffix_that_is_not_written_names_those_that_are(tmp_path, name):
    with pytest.raises(
        SinkError, match=r"not written; allowed: \.mp4.*\.webm, \.m3u8, \.png"
    ) as caught:
        open_output(tmp_path / name, SyntheticSource(count=3))
    assert "\n" not in str(caught.value)


def test_an_unknown_encoder_names_those_that_are_allowed(tmp_path):
    with pytest.raises(SinkError, match=r"'h263' does not go into \.mp4; allowed: auto, .*libx264"):
        VideoSink(tmp_path / "out.mp4", info(), encoder="h263")
    with pytest.raises(
        SinkError, match=r"'libx264' does not go into \.webm; allowed: auto, libvpx"
    ):
        VideoSink(tmp_path / "out.webm", info(), encoder="libx264")


def test_an_encoder_that_is_not_on_this_machine_is_said(tmp_path):
    broken = []
    for name in CONTAINERS[".mp4"]:
        try:
            choose_encoder(".mp4", name)
        except SinkError as error:
            broken.append(str(error))
    assert broken, "no machine has NVIDIA's, Apple's, Intel's and AMD's encoders"
    assert all("does not work on this machine; --encoder auto finds one" in m for m in broken)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_auto_finds_an_encoder_for_every_suffix(suffix):
    assert choose_encoder(suffix).name in CONTAINERS[suffix]


@pytest.mark.parametrize(("suffix", "encoder"), [(".mp4", "libx264"), (".webm", "libvpx-vp9")])
def test_a_higher_quality_number_makes_a_smaller_file(tmp_path, suffix, encoder):
    noise = np.random.default_rng(5).integers(0, 255, (60, 80, 3), np.uint8)
    pictures = [cv2.resize(np.roll(noise, i, axis=1), (320, 240)) for i in range(8)]
    sizes = []
    for quality in (10, 23, 40):
        path = tmp_path / f"{quality}{suffix}"
        sink = VideoSink(path, info(240, 320), encoder=encoder, quality=quality)
        drive(sink, frames(pictures=pictures))
        sizes.append(path.stat().st_size)
    assert sizes[0] > sizes[1] > sizes[2]


def test_the_picture_is_near_the_one_given(tmp_path):
    """Mean error of a smooth picture at the default quality."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    smooth = np.stack([x * 255 // WIDTH, y * 255 // HEIGHT, np.full_like(x, 128)], axis=2)
    path = tmp_path / "out.mp4"
    drive(VideoSink(path, info()), frames(pictures=[smooth.astype(np.uint8)] * 5))
    error = np.abs(read(path)[1][-1].image.astype(int) - smooth)
    assert error.mean() < 3
