"""Ctrl-C and SIGTERM at any moment, to a real process: outputs closed and playable, code 130."""

import json
import re
import signal
import sys
import time

import pytest

from tests.tools.program import Process, count_frames, read_video

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")

INTERRUPTED = 130
# Where nothing else runs the program ends within a second; test machines are shared.
ENDS_WITHIN_S = 5.0
# Until Python has read its own start-up files no program of Python's can take a signal.
PYTHON_STARTS_S = 0.15


@pytest.fixture
def start(env, media, tmp_path):
    """Starts a run that would take long: the default network, about a minute of frames."""
    processes = []

    def begin(*words, source="long.mp4"):
        process = Process(["run", media / source, *words], env, tmp_path)
        processes.append(process)
        return process

    yield begin
    for process in processes:
        process.__exit__(None, None, None)


def assert_quiet(done):
    """No traceback, no failure, nothing from a library."""
    rest = [line for line in done.rest if not line.startswith("stopping; ")]
    assert not rest, done.err


def assert_interrupted(process, done):
    assert done.code == INTERRUPTED, done
    assert process.ending_s < ENDS_WITHIN_S
    assert_quiet(done)


def assert_outputs_agree(done, folder, name="o.mp4"):
    """What lies under the final name plays and is as long as the summary says."""
    assert not list(folder.glob("*.partial*"))
    said = re.search(rf"wrote  {re.escape(name)} \((\d+) frames?, ", done.out)
    if not (folder / name).exists():
        assert not said, done.out
        return 0
    assert said, done.out
    frames = count_frames(folder / name)
    assert frames == int(said[1]) > 0
    return frames


BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)


@BOTH
def test_while_python_and_libraries_are_loaded(start, tmp_path, number):
    """From the first moment that the program itself can know of, every 100 ms."""
    for step in range(8):
        process = start("-o", f"{step}.mp4")
        time.sleep(PYTHON_STARTS_S + 0.1 * step)
        done = process.send(number)
        assert_interrupted(process, done)
        written = assert_outputs_agree(done, tmp_path, f"{step}.mp4")
        assert written == 0 or "output  " in done.err


@BOTH
def test_in_the_first_frames(start, tmp_path, number):
    for delay_ms in (0, 20, 100):
        process = start("-o", f"{delay_ms}.mp4")
        process.wait_for("output  ")
        time.sleep(delay_ms / 1000)
        done = process.send(number)
        assert_interrupted(process, done)
        assert_outputs_agree(done, tmp_path, f"{delay_ms}.mp4")


@BOTH
def test_midway(start, tmp_path, number):
    process = start("-o", "o.mp4", "-o", "folder/", "--mask", "m.mkv", "--stats", "s.jsonl",
                    "--report", "r.json")  # fmt: skip
    process.wait_for("output  s.jsonl")
    time.sleep(1.5)
    done = process.send(number)
    assert_interrupted(process, done)
    assert "stopping; outputs are being closed" in done.err
    frames = assert_outputs_agree(done, tmp_path)
    assert frames > 0
    ledger = done.ledger()
    assert ledger["delivered"] == frames
    assert ledger["failed"] == 0
    assert ledger["captured"] > frames
    assert "stopped)" in done.out
    # What the sinks were given they all wrote to the end.
    assert len(read_video(tmp_path / "m.mkv", "gray").pictures) == frames
    assert len((tmp_path / "s.jsonl").read_text().splitlines()) == frames
    assert len(list((tmp_path / "folder").glob("*.png"))) == frames
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["interrupted"]
    assert report["error"] is None
    assert report["frames"]["delivered"] == frames
    assert all(row["complete"] and row["frames"] == frames for row in report["outputs"])


def test_with_sound(start, tmp_path, media, colours):
    """Audio ends with the pictures, not with the source."""
    process = start("-o", "o.mp4", source="sound.mp4")
    process.wait_for("output  ")
    time.sleep(0.7)
    done = process.send(signal.SIGINT)
    if done.code == 0:
        pytest.skip("the clip was over before the signal came")
    assert_interrupted(process, done)
    frames = assert_outputs_agree(done, tmp_path)
    if frames:
        with_sound = read_video(tmp_path / "o.mp4")
        packets_a_frame = 48000 / 1024 / 25
        assert with_sound.audio_packets <= packets_a_frame * frames + 3


@BOTH
def test_at_the_end(start, tmp_path, number, colours):
    """A short run meets the signal anywhere, also after its last frame and while Python ends."""
    for step in range(5):
        name = f"{step}.mp4"
        process = start("-o", name, "--model", colours, source="numbered.mp4")
        process.wait_for("output  ")
        time.sleep(0.04 * step)
        done = process.send(number)
        assert done.code in (0, INTERRUPTED), done
        assert process.ending_s < ENDS_WITHIN_S
        assert_quiet(done)
        frames = assert_outputs_agree(done, tmp_path, name)
        if done.code == 0:
            assert frames == 25
            assert done.ledger()["delivered"] == 25


@pytest.mark.parametrize(
    "numbers",
    [
        (signal.SIGINT, signal.SIGINT),
        (signal.SIGTERM, signal.SIGTERM),
        (signal.SIGTERM, signal.SIGINT),
    ],
    ids=lambda numbers: "-".join(n.name for n in numbers),
)
def test_twice_is_at_once(start, tmp_path, numbers):
    process = start("-o", "o.mp4")
    process.wait_for("output  ")
    time.sleep(1.0)
    done = process.send(*numbers, pause_s=0.01)
    assert done.code == INTERRUPTED, done
    assert process.ending_s < ENDS_WITHIN_S
    assert "Traceback" not in done.err
    # Either the orderly end was over by then, or only the partial file is there; it plays.
    if (tmp_path / "o.mp4").exists():
        assert count_frames(tmp_path / "o.mp4") > 0


def test_quiet_says_nothing(start, tmp_path):
    process = start("-o", "o.mp4", "--quiet", "--stats", "s.jsonl")
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("s.partial.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.5)
    done = process.send(signal.SIGINT)
    assert (done.code, done.out, done.err) == (INTERRUPTED, "", "")
    assert count_frames(tmp_path / "o.mp4") == len((tmp_path / "s.jsonl").read_text().splitlines())


def test_without_outputs(start, tmp_path):
    process = start()
    process.wait_for("output  none")
    time.sleep(0.5)
    done = process.send(signal.SIGINT)
    assert_interrupted(process, done)
    done.ledger()
    assert not list(tmp_path.iterdir())


def test_cold_start(env, media, tmp_path):
    """While the network is prepared and compiled for the first time; the next start must work."""
    for step in range(3):
        cold = {**env, "STREAMSEG_CACHE": str(tmp_path / f"cache{step}")}
        words = ["run", media / "long.mp4", "-o", f"{step}.mp4"]
        with Process(words, cold, tmp_path) as process:
            process.wait_for("preparing")
            time.sleep(0.3 * step)
            done = process.send(signal.SIGINT)
        assert_interrupted(process, done)
        assert_outputs_agree(done, tmp_path, f"{step}.mp4")
        with Process(["run", media / "long.mp4", "--max-frames", "1"], cold, tmp_path) as process:
            assert process.send().code == 0
