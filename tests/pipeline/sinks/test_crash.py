"""A full disk, and a process that is killed: what was written by then plays."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.sources import open_source
from pipeline.sources.synthetic import read_number

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.skipif(os.name != "posix", reason="limits and signals of POSIX")

# Noise, so that files grow: argv are the path, a limit in bytes or 0, and the seconds a frame.
WRITER = """
import signal, sys, time
from pathlib import Path
import numpy as np
from pipeline.errors import SinkError
from pipeline.sinks import MaskVideoSink, StatisticsSink, VideoSink
from pipeline.sources.synthetic import draw_number
from tests.pipeline.sinks.hand_made import frames, info

path, limit, pace = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
if limit:
    import resource
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
noise = np.random.default_rng(1)

def given():
    for frame in frames(100_000):
        frame.picture[:] = noise.integers(60, 160, frame.picture.shape, np.uint8)
        draw_number(frame.picture, frame.index % 60_000)
        frame.labels = frame.picture[..., 0]
        time.sleep(pace)
        yield frame

if path.suffix == ".jsonl":
    sink = StatisticsSink(path, [str(i) for i in range(256)], rle=True)
elif "mask" in path.name:
    sink = MaskVideoSink(path, info())
else:
    sink = VideoSink(path, info(), quality=5)
try:
    for frame in sink.run(given()):
        print(frame.index, flush=True)
except SinkError as error:
    print(error, file=sys.stderr)
    print(sink.output.path, sink.output.frames, file=sys.stderr)
    sys.exit(1)
"""


@pytest.fixture
def start():
    """Starts the writer; it ends with the test, whatever happens."""
    running = []

    def begin(path, limit=0, pace=0.0):
        paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(limit), str(pace)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": paths},
            cwd=ROOT,
        )
        running.append(process)
        return process

    yield begin
    for process in running:
        with process:
            process.kill()


def finish(process):
    out, err = process.communicate(timeout=60)
    return [int(line) for line in out.split()], err.splitlines()


def plays(path):
    return [read_number(f.image) for f in open_source(path).frames()]


@pytest.mark.parametrize("name", ["out.mp4", "out.mov", "out.mkv", "out.webm", "out.ts"])
def test_a_full_disk_is_one_line_and_leaves_a_video_that_plays(tmp_path, start, name):
    process = start(tmp_path / name, limit=1_500_000)
    done, (message, where) = finish(process)
    assert process.returncode == 1
    assert message.startswith(f"{tmp_path / name} cannot be written: ")
    assert "may not grow further" in message
    partial, count = where.rsplit(" ", 1)
    assert Path(partial).name.startswith("out.partial.")
    assert [p.name for p in tmp_path.iterdir()] == [Path(partial).name]
    numbers = plays(partial)
    assert int(count) - 1 <= len(numbers) <= int(count), "it says how many are in the file"
    assert numbers[:-1] == list(range(len(numbers) - 1))  # the last may be cut in two
    # Buffers, and the part of an MP4 that was being written, a second, may be missing.
    assert len(numbers) >= len(done) - 60
    assert len(numbers) > 10


@pytest.mark.parametrize("name", ["mask.mkv", "stats.jsonl"])
def test_a_full_disk_is_one_line_for_every_sink(tmp_path, start, name):
    process = start(tmp_path / name, limit=500_000)
    done, lines = finish(process)
    assert process.returncode == 1
    assert len(lines) == 2
    assert "may not grow further" in lines[0]
    assert done
    assert not (tmp_path / name).exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mounts of Linux")
@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_a_small_disk_that_runs_full_leaves_a_video_that_plays(tmp_path, start, name):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        process = start(disk / name)
        done, (message, where) = finish(process)
        assert process.returncode == 1
        assert "the disk is full" in message
        numbers = plays(where.rsplit(" ", 1)[0])
        assert numbers[:-1] == list(range(len(numbers) - 1))
        assert len(numbers) >= len(done) - 60
        assert len(numbers) > 10
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("name", ["out.mp4", "out.mov", "out.mkv", "out.webm", "out.ts"])
def test_a_killed_process_leaves_a_partial_video_that_plays(tmp_path, start, name):
    process = start(tmp_path / name, pace=0.002)
    lines = iter(process.stdout.readline, "")
    deadline = time.monotonic() + 60
    # Six seconds of video: whole fragments, clusters and buffers must be on the disk by then.
    assert any(int(line) >= 150 or time.monotonic() > deadline for line in lines)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    (partial,) = tmp_path.iterdir()
    assert partial.name == f"out.partial{Path(name).suffix}"
    numbers = plays(partial)
    assert numbers[:-1] == list(range(len(numbers) - 1))  # the last may be cut in two
    assert len(numbers) >= 150 - 2 * 25 - 25  # two fragments of a second, and what x264 holds back
