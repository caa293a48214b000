"""Video files: containers, codecs, timestamps, rotation, sizes and cut-outs."""

import struct
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest

from pipeline.errors import SourceError
from pipeline.sources import file as file_module
from pipeline.sources import open_source
from pipeline.sources.synthetic import read_number
from pipeline.threads import ThreadPlan
from tests.clips import (
    HEIGHT,
    WIDTH,
    Tone,
    audio_samples,
    corners,
    needs_encoder,
    numbered,
    packets,
    quadrants,
    set_display_matrix,
    times,
    write_clip,
)

B_FRAMES = {"preset": "fast", "crf": "12", "bf": "3"}
MS = Fraction(1, 1000)
IRREGULAR = [0, 40, 80, 1000, 1010, 1200, 5000, 5040]  # ms


def read(path, **cut):
    source = open_source(path, **cut)
    return source, list(source.frames())


def numbers(frames):
    return [read_number(f.image) for f in frames]


def seconds(frames):
    return [f.pts * f.time_base for f in frames]


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [
        ("mp4", "libx264"),
        ("mp4", "libx265"),
        ("mp4", "libsvtav1"),
        ("m4v", "mpeg4"),
        ("mov", "libx264"),
        ("mov", "mjpeg"),
        ("mov", "prores_ks"),
        ("mkv", "libx264"),
        ("mkv", "ffv1"),
        ("webm", "libvpx"),
        ("webm", "libvpx-vp9"),
        ("avi", "mpeg4"),
        ("avi", "mjpeg"),
        ("ts", "libx264"),
        ("ts", "mpeg2video"),
        ("mpg", "mpeg2video"),
        ("mxf", "mpeg2video"),
        ("flv", "flv"),
        ("flv", "libx264"),
        ("wmv", "wmv2"),
        ("3gp", "h263"),
        ("gif", "gif"),
        ("nut", "rawvideo"),
        ("h264", "libx264"),
        ("hevc", "libx265"),
        ("m2v", "mpeg2video"),
        ("mjpeg", "mjpeg"),
        ("ivf", "libvpx"),
    ],
)
def test_every_container_and_codec_gives_all_frames_in_order_at_their_rate(tmp_path, suffix, codec):
    needs_encoder(codec)
    source, frames = read(write_clip(tmp_path / f"clip.{suffix}", codec=codec))
    assert numbers(frames) == list(range(12))
    start = seconds(frames)[0]
    assert [t - start for t in seconds(frames)] == [Fraction(i, 25) for i in range(12)]
    assert source.lost == {}
    assert source.info.codec


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "flv", "ts"])
def test_variable_rate_timestamps_are_exact(tmp_path, suffix):
    path = write_clip(tmp_path / f"clip.{suffix}", count=8, pts=IRREGULAR, time_base=MS)
    source, frames = read(path)
    assert seconds(frames) == [t * MS for t in IRREGULAR]
    assert source.lost == {}


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_variable_rate_in_avi_is_exact_though_it_stores_no_timestamps(tmp_path, codec):
    path = write_clip(tmp_path / "clip.avi", codec=codec, count=8, pts=IRREGULAR, time_base=MS)
    source, frames = read(path)
    assert seconds(frames) == [t * MS for t in IRREGULAR]
    assert source.lost == {}


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "webm", "flv", "ts"])
def test_a_start_that_is_not_zero_is_kept_and_nothing_counts_as_lost(tmp_path, suffix):
    codec = "libvpx-vp9" if suffix == "webm" else "libx264"
    stamps = [10_000 + 40 * i for i in range(20)]
    path = write_clip(tmp_path / f"c.{suffix}", codec=codec, count=20, pts=stamps, time_base=MS)
    source, frames = read(path)
    assert seconds(frames) == [t * MS for t in stamps]
    assert source.info.frames == 20
    assert source.lost == {}


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "ts", "flv", "h264"])
def test_b_frames_come_in_presentation_order_without_a_gap(tmp_path, suffix):
    source, frames = read(write_clip(tmp_path / f"c.{suffix}", count=40, options=B_FRAMES))
    assert numbers(frames) == list(range(40))
    start = seconds(frames)[0]
    assert [t - start for t in seconds(frames)] == [Fraction(i, 25) for i in range(40)]
    assert source.lost == {}


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_b_frames_in_avi_are_on_time(tmp_path, codec):
    options = B_FRAMES if codec == "libx264" else {"bf": "2", "qmin": "2", "qmax": "2"}
    path = write_clip(tmp_path / "c.avi", codec=codec, count=40, options=options)
    _, frames = read(path)
    assert numbers(frames) == list(range(40))
    assert seconds(frames) == [Fraction(i, 25) for i in range(40)]


def test_frames_have_the_containers_durations(tmp_path):
    lengths = [40, 40, 920, 10, 190, 3800, 40, 2000]
    path = write_clip(
        tmp_path / "c.mp4", count=8, pts=IRREGULAR, durations=lengths, time_base=MS, codec="mpeg4"
    )
    _, frames = read(path)
    assert [f.duration * f.time_base for f in frames[:-1]] == [n * MS for n in lengths[:-1]]


def test_a_container_without_durations_gives_zero(tmp_path):
    _, frames = read(write_clip(tmp_path / "c.flv", codec="flv"))
    assert {f.duration for f in frames} == {0}


def test_a_huge_time_base_stays_exact(tmp_path):
    base, stamps = Fraction(1, 200_000_000), [i * 8_000_007 for i in range(12)]
    _, frames = read(write_clip(tmp_path / "c.mp4", pts=stamps, time_base=base))
    assert seconds(frames) == [p * base for p in stamps]


def test_ntsc_rate_is_exact(tmp_path):
    source, frames = read(write_clip(tmp_path / "c.mp4", rate=Fraction(30000, 1001)))
    assert source.info.rate == Fraction(30000, 1001)
    assert seconds(frames) == [Fraction(1001 * i, 30000) for i in range(12)]


def test_timestamps_that_step_back_are_made_to_rise(tmp_path):
    """A packet table of an MP4 whose composition offsets are damaged."""
    path = write_clip(tmp_path / "c.mp4", count=40, options=B_FRAMES)
    data = bytearray(path.read_bytes())
    at = data.index(b"ctts")
    entries = struct.unpack_from(">I", data, at + 8)[0]
    for i in range(entries):
        struct.pack_into(">I", data, at + 16 + 8 * i, 1024)
    path.write_bytes(data)
    _, frames = read(path)
    assert len(frames) == 40
    stamps = [f.pts for f in frames]
    assert all(a < b for a, b in pairwise(stamps))


@pytest.mark.parametrize(
    ("begin", "length", "expected"),
    [(60, 20, range(60, 80)), (0, 20, range(20)), (60, 100, range(60, 100))],
)
def test_an_edit_list_shows_its_part_and_the_rest_is_not_lost(tmp_path, begin, length, expected):
    path = write_clip(tmp_path / "c.mp4", count=100, gop=25)
    set_edit(path, begin * 512, length * 40)
    source, frames = read(path)
    assert numbers(frames) == list(expected)
    assert seconds(frames)[0] == 0
    if hasattr(av.stream.Stream, "index_entries"):  # PyAV 16 cannot tell
        assert source.info.frames == len(expected)
    assert source.lost == {}


def set_edit(path, media_time, duration):
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 4 + 8
    struct.pack_into(">Ii", data, at, duration, media_time)
    path.write_bytes(data)


# What each display matrix does to a picture (FFmpeg's libavutil/display.h), as numpy says it.
TURNS = {
    "upright": ((1, 0, 0, 1), lambda p: p),
    "90 clockwise": ((0, 1, -1, 0), lambda p: np.rot90(p, -1)),
    "180": ((-1, 0, 0, -1), lambda p: np.rot90(p, 2)),
    "90 counterclockwise": ((0, -1, 1, 0), lambda p: np.rot90(p, 1)),
    "mirrored": ((-1, 0, 0, 1), lambda p: p[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda p: p[::-1]),
    "transposed": ((0, 1, 1, 0), lambda p: p.transpose(1, 0, 2)),
    "transposed the other way": ((0, -1, -1, 0), lambda p: np.rot90(p, 2).transpose(1, 0, 2)),
}


@pytest.mark.parametrize("turn", TURNS)
def test_pictures_are_upright(tmp_path, turn):
    matrix, apply = TURNS[turn]
    # Unequal sides that are no multiple of 16: a turn that forgets cropping would show.
    path = write_clip(tmp_path / "c.mp4", pictures=[quadrants(90, 122)] * 2)
    source, frames = read(set_display_matrix(path, *matrix))
    expected = apply(quadrants(90, 122))
    assert frames[0].image.shape == expected.shape
    assert (source.info.height, source.info.width) == expected.shape[:2]
    assert corners(frames[0].image) == corners(expected)


def test_a_turn_that_is_no_quarter_leaves_the_picture(tmp_path):
    path = write_clip(tmp_path / "c.mp4", pictures=[quadrants()] * 2)
    data = bytearray(set_display_matrix(path, 1, 0, 0, 1).read_bytes())
    at = data.index(b"tkhd") + 44
    struct.pack_into(">9i", data, at, 56756, 32768, 0, -32768, 56756, 0, 0, 0, 1 << 30)  # 30°
    path.write_bytes(data)
    _, frames = read(path)
    assert corners(frames[0].image) == corners(quadrants())


def test_the_pixel_aspect_is_told_and_turns_with_the_picture(tmp_path):
    path = write_clip(tmp_path / "c.mp4", aspect=Fraction(4, 3))
    assert read(path)[0].info.pixel_aspect == Fraction(4, 3)
    assert read(set_display_matrix(path, 0, 1, -1, 0))[0].info.pixel_aspect == Fraction(3, 4)


@pytest.mark.parametrize("size", [(97, 129), (96, 127), (33, 201), (2, 16), (1081, 33)])
@pytest.mark.parametrize(("codec", "pix_fmt"), [("ffv1", "yuv420p"), ("ffv1", "yuv444p")])
def test_odd_sizes_are_read_whole(tmp_path, size, codec, pix_fmt):
    path = write_clip(tmp_path / "c.mkv", count=3, size=size, codec=codec, pix_fmt=pix_fmt)
    source, frames = read(path)
    assert {f.image.shape for f in frames} == {(*size, 3)}
    assert (source.info.height, source.info.width) == size


@pytest.mark.parametrize("suffix", ["h264", "ts"])
def test_a_change_of_size_in_the_middle_goes_on(tmp_path, suffix):
    small = write_clip(tmp_path / f"a.{suffix}", count=5, size=(96, 128))
    big = write_clip(tmp_path / f"b.{suffix}", count=5, first=5, size=(192, 256), pts=range(5, 10))
    path = tmp_path / f"both.{suffix}"
    path.write_bytes(small.read_bytes() + big.read_bytes())
    source, frames = read(path)
    assert numbers(frames) == list(range(10))
    assert [f.image.shape[:2] for f in frames] == [(96, 128)] * 5 + [(192, 256)] * 5
    assert (source.info.height, source.info.width) == (96, 128)
    assert source.lost == {}


def test_interlaced_video_is_read_frame_by_frame(tmp_path):
    needs_encoder("mpeg2video")
    path = write_clip(
        tmp_path / "c.ts",
        codec="mpeg2video",
        options={"qmin": "2", "qmax": "2", "flags": "+ildct+ilme", "top": "1"},
    )
    assert numbers(read(path)[1]) == list(range(12))


def test_the_first_real_video_stream_is_taken_not_a_cover_picture(tmp_path):
    plain = write_clip(tmp_path / "plain.mp4", audio=[Tone()])
    path = add_cover(plain, tmp_path / "covered.mp4")
    with av.open(str(path)) as file:
        assert len(file.streams.video) == 2
    _, frames = read(path)
    assert numbers(frames) == list(range(12))


def add_cover(source, path):
    """A copy of `source` with a red picture attached, as first stream."""
    with av.open(str(source)) as given, av.open(str(path), "w") as output:
        cover = output.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        copies = {s.index: output.add_stream_from_template(s) for s in given.streams}
        red = np.full((64, 64, 3), (255, 0, 0), np.uint8)
        output.mux(cover.encode(av.VideoFrame.from_ndarray(red, "rgb24")))
        output.mux(cover.encode(None))
        for packet in given.demux():
            if packet.size:
                packet.stream = copies[packet.stream.index]
                output.mux(packet)
    return path


@pytest.mark.parametrize("threads", [1, 4])
def test_the_number_of_decoder_threads_changes_nothing(tmp_path, monkeypatch, threads):
    monkeypatch.setattr(file_module, "plan_threads", lambda: ThreadPlan(threads, 1))
    source, frames = read(write_clip(tmp_path / "c.mp4", count=40, options=B_FRAMES))
    assert numbers(frames) == list(range(40))
    assert source.lost == {}


WINDOWED = [
    ("mp4", "libx264", B_FRAMES),
    ("mov", "mjpeg", None),
    ("mkv", "libx264", B_FRAMES),
    ("webm", "libvpx-vp9", None),
    ("avi", "mpeg4", None),
    ("avi", "libx264", B_FRAMES),
    ("flv", "libx264", B_FRAMES),
    ("ts", "libx264", B_FRAMES),
    ("ts", "mpeg2video", None),
    ("mpg", "mpeg2video", None),
    ("h264", "libx264", B_FRAMES),
    ("gif", "gif", None),
]


@pytest.mark.parametrize(("suffix", "codec", "options"), WINDOWED)
def test_a_window_holds_exactly_the_frames_of_its_time(tmp_path, suffix, codec, options):
    needs_encoder(codec)
    path = write_clip(tmp_path / f"c.{suffix}", codec=codec, options=options, count=75, gop=25)
    for start, duration, expected in [
        (0.0, 1.0, range(25)),
        (0.04, None, range(1, 75)),
        (1.0, 0.2, range(25, 30)),
        (1.4, 0.4, range(35, 45)),
        (2.96, None, range(74, 75)),
        (2.4, 9.0, range(60, 75)),
    ]:
        source, frames = read(path, start_s=start, duration_s=duration)
        assert numbers(frames) == list(expected), (start, duration)
        # From the start of the window; a container may round the file's own start.
        assert 0 <= seconds(frames)[0] < Fraction(1, 25)
        assert source.lost == {}
        if suffix not in ("h264", "mpg", "flv"):  # which do not know their length
            assert source.info.frames == len(expected)


def test_a_window_of_a_file_with_a_late_start_counts_from_its_first_frame(tmp_path):
    stamps = [10_000 + 40 * i for i in range(50)]
    for suffix in ("mp4", "mkv", "ts"):
        path = write_clip(tmp_path / f"c.{suffix}", count=50, pts=stamps, time_base=MS)
        _, frames = read(path, start_s=1.0, duration_s=0.4)
        assert numbers(frames) == list(range(25, 35))
        assert seconds(frames)[0] == 0


def test_window_and_max_frames_together(tmp_path):
    path = write_clip(tmp_path / "c.mp4", count=50)
    source, frames = read(path, start_s=0.4, duration_s=1.0, max_frames=3)
    assert numbers(frames) == [10, 11, 12]
    assert source.info.frames == 3


def test_a_window_between_two_far_frames_starts_at_the_next(tmp_path):
    path = write_clip(tmp_path / "c.mkv", count=8, pts=IRREGULAR, time_base=MS)
    _, frames = read(path, start_s=2.0)
    assert numbers(frames) == [6, 7]
    assert seconds(frames) == [3, Fraction(3040, 1000)]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "h264", "flv"])
def test_a_start_behind_the_end_is_one_line_that_says_so(tmp_path, suffix):
    path = write_clip(tmp_path / f"c.{suffix}", count=25)
    with pytest.raises(SourceError, match=rf"c\.{suffix} has no frames in the part from 60 s") as e:
        open_source(path, start_s=60)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "aac"), ("mkv", "flac"), ("ts", "mp2")])
def test_audio_packets_of_a_window_are_those_of_its_time(tmp_path, suffix, codec):
    needs_encoder(codec)
    path = write_clip(tmp_path / f"c.{suffix}", count=100, gop=25, audio=[Tone(codec, seconds=4)])
    source = open_source(path, start_s=1.4, duration_s=1.0)
    tap = source.tap_audio()
    with av.open(str(path)) as file:
        video = file.streams.video[0]
        begin = video.start_time * video.time_base + Fraction(14, 10)
    list(source.frames())
    got = [packet.pts * packet.time_base for _, packet in tap.take(None)]
    with av.open(str(path)) as file:
        stamps = [p.pts * p.time_base for p in file.demux(audio=0) if p.size]
    expected = [t - begin for t in stamps if begin <= t < begin + 1]
    assert len(expected) > 8
    assert [float(t) for t in got] == pytest.approx([float(t) for t in expected], abs=1e-4)
    assert tap.frames == 25


def test_audio_packets_of_a_whole_file_all_pass_even_those_before_the_first_frame(tmp_path):
    path = write_clip(tmp_path / "c.mp4", count=25, audio=[Tone(), Tone("libmp3lame", hz=880)])
    source = open_source(path)
    taps = [source.tap_audio(), source.tap_audio()]
    list(source.frames())
    for tap in taps:
        taken = tap.take(None)
        for number in (0, 1):
            expected = packets(path, "audio", number)
            assert [p.size for n, p in taken if n == number] == [p.size for p in expected]
            assert [p.pts for n, p in taken if n == number] == [p.pts for p in expected]


def test_a_tap_gives_packets_up_to_a_time_and_keeps_the_rest(tmp_path):
    path = write_clip(tmp_path / "c.mp4", count=25, audio=[Tone()])
    source = open_source(path)
    tap = source.tap_audio()
    list(source.frames())
    first = [float(p.pts * p.time_base) for _, p in tap.take(0.5)]
    rest = [float(p.pts * p.time_base) for _, p in tap.take(None)]
    assert max(first) <= 0.5 < min(rest)
    assert len(first) + len(rest) == len(packets(path, "audio"))


def test_times_agree_with_ffmpegs_own(tmp_path):
    path = write_clip(tmp_path / "c.mp4", count=20, options=B_FRAMES, audio=[Tone("aac")])
    assert seconds(read(path)[1]) == times(path)
    assert audio_samples(path)[1].shape[1] > 40_000


def test_numbers_survive_every_size_that_the_tests_use():
    for size in [(HEIGHT, WIDTH), (192, 256), (90, 122)]:
        assert read_number(numbered(40_123, *size)) == 40_123
