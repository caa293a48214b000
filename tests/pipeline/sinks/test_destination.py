"""A file appears under its final name only when it is whole, and whatever happens plays."""

import errno
import os

import pytest

from pipeline.errors import SinkError
from pipeline.sinks import MaskVideoSink, StatisticsSink, VideoSink
from pipeline.sinks.destination import Output, disk_errors, playable_frames, whole_file
from pipeline.sources import open_source
from pipeline.sources.synthetic import read_number
from tests.clips import numbered
from tests.pipeline.sinks.hand_made import drive, info, masks


def video(path, **more):
    return VideoSink(path, info(), **more)


def mask(path, **more):
    return MaskVideoSink(path, info(), **more)


def statistics(path, **more):
    return StatisticsSink(path, [f"class{i}" for i in range(256)], **more)


SINKS = [
    (video, "out.mp4"),
    (video, "out.mov"),
    (video, "out.mkv"),
    (video, "out.webm"),
    (video, "out.ts"),
    (mask, "out.mkv"),
    (statistics, "out.jsonl"),
]


@pytest.fixture(params=SINKS, ids=[f"{make.__name__}-{name}" for make, name in SINKS])
def sink_at(request, tmp_path):
    """Makes the sink, for a path of its kind in `tmp_path`."""
    make, name = request.param
    return lambda folder=tmp_path, **more: make(folder / name, **more)


def given(count=12):
    return masks([numbered(i)[..., 0] for i in range(count)])


def breaking(after, error):
    yield from given(after)
    raise error


def entries(path):
    """What a file holds, as the numbers of its frames or lines."""
    if path.suffix == ".jsonl":
        lines = path.read_text().splitlines()
        return list(range(len(lines)))
    return [read_number(f.image) for f in open_source(path).frames()]


def test_the_final_name_appears_at_the_good_end_only(sink_at, tmp_path):
    sink = sink_at()
    path = sink.output.path
    seen = []
    for _ in sink.run(given()):
        seen.append(path.exists())
    assert not any(seen)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert entries(path) == list(range(12))
    assert sink.output.complete
    assert sink.output.frames == 12


@pytest.mark.parametrize("error", [RuntimeError("stage failed"), KeyboardInterrupt()])
def test_after_an_error_what_was_written_plays_under_the_partial_name(sink_at, tmp_path, error):
    sink = sink_at()
    final = sink.output.path
    with pytest.raises(type(error)) as caught:
        drive(sink, breaking(7, error))
    assert caught.value is error
    assert not final.exists()
    assert sink.output.path.name == f"out.partial{final.suffix}"
    assert not sink.output.complete
    assert sink.output.frames == 7
    assert entries(sink.output.path) == list(range(7))


def test_closing_the_sink_midway_leaves_a_partial_file(sink_at):
    sink = sink_at()
    running = sink.run(given())
    for _ in range(5):
        next(running)
    running.close()
    assert ".partial" in sink.output.path.name
    assert entries(sink.output.path) == list(range(5))


def test_nothing_is_left_when_nothing_was_written(sink_at, tmp_path):
    with pytest.raises(RuntimeError):
        drive(sink_at(), breaking(0, RuntimeError("at once")))
    assert list(tmp_path.iterdir()) == []


def test_no_frames_at_all_leave_nothing_either(sink_at, tmp_path):
    sink = sink_at()
    assert drive(sink, []) == []
    assert list(tmp_path.iterdir()) == []
    assert not sink.output.complete


def test_an_existing_file_needs_force(sink_at):
    path = sink_at().output.path
    path.write_text("precious")
    with pytest.raises(SinkError, match="exists; --force overwrites it") as caught:
        sink_at()
    assert str(path) in str(caught.value)
    assert path.read_text() == "precious"


def test_with_force_the_old_file_stays_until_the_new_one_is_whole(sink_at):
    path = sink_at().output.path
    path.write_text("precious")
    sink = sink_at(force=True)
    for _ in sink.run(given()):
        assert path.read_text() == "precious"
    assert entries(path) == list(range(12))


def test_with_force_the_old_file_survives_a_failure(sink_at):
    path = sink_at().output.path
    path.write_text("precious")
    with pytest.raises(RuntimeError):
        drive(sink_at(force=True), breaking(3, RuntimeError("no")))
    assert path.read_text() == "precious"


def test_a_partial_file_of_an_earlier_run_is_no_obstacle_and_stays(sink_at, tmp_path):
    earlier = sink_at()
    with pytest.raises(RuntimeError):
        drive(earlier, breaking(7, RuntimeError("no")))
    sink = sink_at()
    drive(sink, given())
    assert set(tmp_path.iterdir()) == {earlier.output.path, sink.output.path}
    assert entries(earlier.output.path) == list(range(7))


def test_a_missing_folder_is_said_before_the_run(sink_at, tmp_path):
    with pytest.raises(SinkError, match=r"there is no folder .*nowhere; make it first"):
        sink_at(tmp_path / "nowhere")


def test_a_folder_in_the_files_place_is_said(sink_at):
    sink_at().output.path.mkdir()
    with pytest.raises(SinkError, match="is a folder; name a file in it"):
        sink_at()


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere"
)
@pytest.mark.parametrize(
    ("mode", "words"), [(0o500, "locked is not writable"), (0, "permission denied|not writable")]
)
def test_a_folder_that_is_not_writable_is_said(sink_at, tmp_path, mode, words):
    locked = tmp_path / "locked"
    locked.mkdir(mode=mode)
    with pytest.raises(SinkError, match=words):
        sink_at(locked)


def test_a_folder_that_vanishes_during_the_run_is_one_line(tmp_path):
    folder = tmp_path / "gone"
    folder.mkdir()
    sink = video(folder / "out.mp4")
    folder.rmdir()
    with pytest.raises(SinkError, match=r"out\.mp4 cannot be written: ") as caught:
        drive(sink, given())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EFBIG, "may not grow further"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission denied"),
        (errno.EIO, os.strerror(errno.EIO)),
    ],
)
def test_errors_of_the_disk_are_one_line_with_the_path(tmp_path, number, words):
    with pytest.raises(SinkError, match=words) as caught, disk_errors(tmp_path / "out.mp4"):
        raise OSError(number, os.strerror(number))
    assert "out.mp4" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_sink_error_passes_as_it_is(tmp_path):
    original = SinkError("said already")
    with pytest.raises(SinkError) as caught, disk_errors(tmp_path):
        raise original
    assert caught.value is original


def test_the_reports_row_says_where_and_how_much(tmp_path):
    output = Output(tmp_path / "a.mp4", "libx264")
    with whole_file(output, playable_frames) as path:
        path.write_bytes(b"x")
        output.frames = 3
    assert output.as_dict() == {
        "path": str(tmp_path / "a.mp4"),
        "frames": 3,
        "codec": "libx264",
        "complete": True,
    }


def break_off(output):
    with whole_file(output, lambda path: 5) as path:
        output.frames = 5
        path.write_bytes(b"x")
        raise SinkError("broken")


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
def test_what_is_no_file_is_not_replaced_even_by_force(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(SinkError, match="is not a regular file"):
        VideoSink(tmp_path / "pipe.mp4", info(), force=True)


def test_a_link_is_followed(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "a.jsonl").symlink_to(tmp_path / "there" / "b.jsonl")
    output = Output(tmp_path / "a.jsonl", "jsonl")
    with whole_file(output, playable_frames) as path:
        path.write_bytes(b"x")
        output.frames = 1
    assert (tmp_path / "a.jsonl").is_symlink()
    assert (tmp_path / "there" / "b.jsonl").read_bytes() == b"x"


def test_a_partial_file_that_is_there_is_left_alone(tmp_path):
    """It may be what an earlier run has kept, or the very source of this one."""
    earlier = tmp_path / "a.partial.mp4"
    earlier.write_bytes(b"precious")
    output = Output(tmp_path / "a.mp4", "libx264")
    with pytest.raises(SinkError):
        break_off(output)
    assert earlier.read_bytes() == b"precious"
    assert output.path == tmp_path / "a.partial-2.mp4"
    assert output.path.read_bytes() == b"x"
