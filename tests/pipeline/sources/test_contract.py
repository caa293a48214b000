"""What holds for every source, whatever it reads."""

import os
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.sources import FileSource, SyntheticSource, open_source
from pipeline.sources.synthetic import read_number
from tests.clips import HEIGHT, WIDTH, numbered, write_clip
from tests.pipeline.sources.live.peers import Files, http_server

COUNT = 6


def video(folder, **cut):
    return open_source(write_clip(folder / "clip.mp4", count=COUNT), **cut)


def variable_video(folder, **cut):
    path = write_clip(folder / "clip.mkv", count=COUNT, pts=[0, 1, 5, 6, 20, 21])
    return open_source(path, **cut)


def images(folder, **cut):
    for number in range(COUNT):
        cv2.imwrite(str(folder / f"{number}.png"), numbered(number))
    return open_source(folder, **cut)


def pattern(folder, **cut):
    images(folder)
    return open_source(folder / "[0-9].png", **cut)


def synthetic(folder, **cut):
    return SyntheticSource(HEIGHT, WIDTH, cut.get("max_frames", COUNT), fps=25)


def recording(folder, **cut):
    """Read by another process, from a web server whose answers break off."""
    write_clip(folder / "clip.mp4", count=COUNT)
    return open_source(f"{(folder / 'address').read_text()}/clip.mp4", **cut)


@pytest.fixture(params=[video, variable_video, images, pattern, synthetic, recording])
def opener(request, tmp_path):
    if request.param is not recording:
        yield lambda **cut: request.param(tmp_path, **cut)
        return
    with http_server(tmp_path, Files) as url:
        (tmp_path / "address").write_text(url)
        yield lambda **cut: recording(tmp_path, **cut)


def test_frames_come_in_order_numbered_without_a_gap(opener):
    frames = list(opener().frames())
    assert [read_number(f.image) for f in frames] == list(range(COUNT))
    assert [f.index for f in frames] == list(range(COUNT))


def test_images_are_uint8_height_width_rgb(opener):
    for frame in opener().frames():
        assert frame.image.dtype == np.uint8
        assert frame.image.shape == (HEIGHT, WIDTH, 3)


def test_timestamps_rise_and_durations_are_never_negative(opener):
    frames = list(opener().frames())
    stamps = [f.pts for f in frames]
    assert all(a < b for a, b in pairwise(stamps))
    assert all(f.duration >= 0 for f in frames)


def test_info_says_what_the_frames_are(opener):
    source = opener()
    frames = list(source.frames())
    assert (source.info.height, source.info.width) == frames[0].image.shape[:2]
    assert {f.time_base for f in frames} == {source.info.time_base}
    assert source.info.pixel_aspect == 1
    assert source.info.rate is not None


def test_nothing_is_lost_in_a_whole_source(opener):
    source = opener()
    assert source.lost == {}
    assert len(list(source.frames())) == COUNT
    assert source.lost == {}


def test_capture_times_rise(opener):
    times = [f.captured_at for f in opener().frames()]
    assert times[0] > 0
    assert times == sorted(times)


def test_each_frame_owns_its_picture(opener):
    frames = list(opener().frames())
    before = [f.image.copy() for f in frames]
    frames[0].image[:] = 7
    assert all(np.array_equal(f.image, b) for f, b in zip(frames[1:], before[1:], strict=True))


def test_max_frames_ends_it_early_and_is_what_info_expects(opener):
    source = opener(max_frames=2)
    assert source.info.frames == 2
    assert [read_number(f.image) for f in source.frames()] == [0, 1]


def test_it_has_a_name_and_is_not_live_and_has_no_audio(opener):
    source = opener()
    assert source.name
    assert source.live is False
    assert source.tap_audio() is None
    source.close()


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc to see open files")
def test_closing_midway_frees_every_file(opener, tmp_path):
    source = opener()
    frames = source.frames()
    next(frames)
    frames.close()
    assert held_open(tmp_path) == []


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc to see open files")
def test_a_source_that_is_opened_but_never_read_can_be_closed(tmp_path):
    source = video(tmp_path)
    assert isinstance(source, FileSource)
    assert held_open(tmp_path) == ["clip.mp4"]
    source.close()
    assert held_open(tmp_path) == []


def held_open(folder):
    names = []
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            target = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        except OSError:
            continue
        if target.parent == folder:
            names.append(target.name)
    return names
