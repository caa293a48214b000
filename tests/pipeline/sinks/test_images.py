"""Images that are written: their names, their pixels, and what needs force."""

import os
import sys

import cv2
import numpy as np
import pytest

from pipeline.errors import SinkError
from pipeline.sinks import ImageSink, open_output
from pipeline.sinks.images import PICTURE_SUFFIXES, encode_picture, write_whole
from pipeline.sources import SyntheticSource, open_source
from tests.clips import corners, numbered, quadrants
from tests.pipeline.sinks.hand_made import drive, frames

LOSSLESS = (".png", ".bmp", ".tif", ".tiff")


def sink(path, count=3, **more):
    return open_output(path, SyntheticSource(count=count), **more)


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def stored(path):
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


@pytest.mark.parametrize("suffix", PICTURE_SUFFIXES)
def test_a_pattern_numbers_its_files_by_the_frames_index(tmp_path, suffix):
    given = sink(tmp_path / f"out_%04d{suffix}")
    assert len(drive(given, frames(pictures=[quadrants()] * 3))) == 3
    assert names(tmp_path) == [f"out_{i:04d}{suffix}" for i in range(3)]
    image = stored(tmp_path / f"out_0001{suffix}")
    if suffix in LOSSLESS:
        assert np.array_equal(image, quadrants())
    else:
        assert corners(image) == corners(quadrants())
    assert given.output.frames == 3
    assert given.output.complete


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("%d.png", "7.png"), ("%06d.png", "000007.png"), ("a%2db.png", "a 7b.png")],
)
def test_a_gap_in_the_frames_is_a_gap_in_the_names(tmp_path, pattern, expected):
    given = list(frames(1))
    given[0].index = 7
    drive(sink(tmp_path / pattern), given)
    assert names(tmp_path) == [expected]


def test_a_folder_is_made_and_filled_with_numbered_pngs(tmp_path):
    drive(sink(tmp_path / "out"), frames(3))
    assert names(tmp_path / "out") == ["000000.png", "000001.png", "000002.png"]


def test_a_folder_takes_the_names_of_the_sources_images(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("cat", "dog"):
        cv2.imwrite(str(tmp_path / "in" / f"{name}.jpg"), numbered(1))
    source = open_source(tmp_path / "in")
    given = list(source.frames())
    for frame in given:
        frame.picture = frame.image
    drive(open_output(tmp_path / "out", source), given)
    assert names(tmp_path / "out") == ["cat.png", "dog.png"]


def test_images_of_one_name_and_different_suffix_do_not_overwrite_each_other(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a.jpg", "a.png"):
        cv2.imwrite(str(tmp_path / "in" / name), numbered(1))
    source = open_source(tmp_path / "in")
    given = list(source.frames())
    for frame in given:
        frame.picture = frame.image
    drive(open_output(tmp_path / "out", source), given)
    assert names(tmp_path / "out") == ["a.png", "a_000001.png"]


def test_a_single_image_goes_into_a_single_file(tmp_path):
    given = sink(tmp_path / "one.png", count=1)
    drive(given, frames(pictures=[quadrants()]))
    assert names(tmp_path) == ["one.png"]
    assert np.array_equal(stored(tmp_path / "one.png"), quadrants())
    assert given.output.complete


def test_many_frames_do_not_go_into_one_image(tmp_path):
    with pytest.raises(SinkError, match=r"the source has 3 frames; .* such as one_%06d\.png"):
        sink(tmp_path / "one.png", count=3)


def test_an_unknown_number_of_frames_does_not_go_into_one_image(tmp_path):
    with pytest.raises(SinkError, match="has many frames"):
        ImageSink(tmp_path / "one.png", encode_picture, name="images", frames=None)


@pytest.mark.parametrize("name", ["%d_%d.png", "out_%s.png", "out_%f.png", "100%.png", "%0x.png"])
def test_a_pattern_that_numbers_nothing_is_refused(tmp_path, name):
    with pytest.raises(SinkError, match="a pattern numbers its files by one %d or %06d"):
        sink(tmp_path / name)


def test_a_single_image_that_exists_needs_force(tmp_path):
    (tmp_path / "one.png").write_text("precious")
    with pytest.raises(SinkError, match="exists; --force overwrites it"):
        sink(tmp_path / "one.png", count=1)
    drive(sink(tmp_path / "one.png", count=1, force=True), frames(pictures=[quadrants()]))
    assert np.array_equal(stored(tmp_path / "one.png"), quadrants())


@pytest.mark.parametrize("target", ["", "%06d.png"])
def test_a_folder_that_is_not_empty_needs_force(tmp_path, target):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "old.txt").write_text("precious")
    path = folder / target if target else folder
    with pytest.raises(SinkError, match="out is not empty; --force writes into it all the same"):
        sink(path)
    drive(sink(path, force=True), frames(2))
    assert names(folder) == ["000000.png", "000001.png", "old.txt"]


def test_a_file_in_the_folders_place_is_said(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(SinkError, match="out is a file; name a folder"):
        sink(tmp_path / "out")


def test_a_missing_parent_is_said(tmp_path):
    with pytest.raises(SinkError, match=r"there is no folder .*nowhere; make it first"):
        sink(tmp_path / "nowhere" / "out")


def test_a_suffix_that_is_no_image_is_refused(tmp_path):
    with pytest.raises(SinkError, match=r"\.xyz is not written; allowed: "):
        sink(tmp_path / "%06d.xyz")


def test_rows_that_are_padded_are_written_as_they_look(tmp_path):
    wide = np.zeros((96, 160, 3), np.uint8)
    wide[:, :128] = quadrants()
    drive(sink(tmp_path / "%d.png"), frames(pictures=[wide[:, :128], quadrants()[::-1]]))
    assert np.array_equal(stored(tmp_path / "0.png"), quadrants())
    assert np.array_equal(stored(tmp_path / "1.png"), quadrants()[::-1])


def test_no_half_written_image_is_ever_seen(tmp_path):
    for _ in sink(tmp_path / "%d.png").run(frames(3)):
        for path in tmp_path.iterdir():
            assert path.suffix == ".png"
            assert cv2.imread(str(path)) is not None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/dev/full is Linux's")
def test_a_full_disk_is_one_line_and_leaves_no_partial_image(tmp_path):
    partial = tmp_path / f".0.png.{os.getpid()}.partial"
    partial.symlink_to("/dev/full")
    with pytest.raises(SinkError, match=r"0\.png cannot be written: the disk is full"):
        drive(sink(tmp_path / "%d.png", force=True), frames(1))
    assert names(tmp_path) == []


def test_write_whole_replaces_what_was_there(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    write_whole(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert names(tmp_path) == ["a"]
