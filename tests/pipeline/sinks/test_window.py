"""The window on a real (virtual) screen: what is seen on it, and what keys do."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.errors import SinkError
from pipeline.roles import Stage
from pipeline.runner import Pipeline
from pipeline.sinks.window import WindowSink
from pipeline.sources.synthetic import SyntheticSource, read_number
from pipeline.stages import Controls, pace

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(
        not (shutil.which("Xvfb") and shutil.which("xdotool")), reason="needs Xvfb and xdotool"
    ),
]
SIZE = (240, 320)


class Display:
    """A virtual X server whose pixels lie in a file, and a hand for its keyboard."""

    def __init__(self, folder):
        read, write = os.pipe()
        self.process = subprocess.Popen(
            # Without -noreset it begins anew, its pointer elsewhere, when its last client leaves.
            [*f"Xvfb -noreset -displayfd {write} -screen 0 640x480x24".split(), "-fbdir", folder],
            pass_fds=[write],
            stderr=subprocess.DEVNULL,
        )
        os.close(write)
        with os.fdopen(read) as file:
            self.name = f":{file.readline().strip()}"
        self.file = folder / "Xvfb_screen0"

    def pixels(self):
        """uint8 (H, W, 3) RGB of the screen, from its file (X11/XWDFile.h)."""
        data = self.file.read_bytes()
        head = struct.unpack(">25I", data[:100])
        size, width, height, line, colours = head[0], head[4], head[5], head[12], head[19]
        raw = np.frombuffer(data, np.uint8, height * line, size + 12 * colours)
        return raw.reshape(height, line)[:, : 4 * width].reshape(height, width, 4)[..., 2::-1]

    def do(self, *words):
        env = {**os.environ, "DISPLAY": self.name}
        done = subprocess.run(
            ["xdotool", *words], env=env, capture_output=True, text=True, check=True, timeout=20
        )
        return done.stdout

    def press(self, key, until):
        """Presses a key and waits for what it brings about."""
        self.do("key", key)
        wait(until)


def wait(until, seconds=30, seen=lambda: ""):
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, seen()
        time.sleep(0.02)


@pytest.fixture(scope="module")
def display():
    # In memory: a disk that is busy writing holds up whoever writes into a file that is mapped.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        display = Display(Path(folder))
        # Without a window manager keys go where the pointer is.
        display.do("mousemove", "100", "100")
        yield display
        display.process.terminate()
        display.process.wait()


@pytest.fixture
def on_screen(display, monkeypatch, tmp_path):
    monkeypatch.setenv("DISPLAY", display.name)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.chdir(tmp_path)
    return display


class Keeper:
    policy = "block"
    name = "keeper"
    advice = ""

    def __init__(self):
        self.seen = []

    def run(self, frames):
        for frame in frames:
            self.seen.append(frame.index)
            yield frame


class Shown:
    """A run in a thread with its window."""

    def __init__(self, count=3000, fps=50, **options):
        self.said, self.keeper, self.controls = [], Keeper(), Controls()
        self.window = WindowSink("clips/my clip.mp4", self.controls, say=self.said.append)
        for name, value in options.items():
            setattr(self.window, name, value)
        source = SyntheticSource(*SIZE, count=count, fps=fps)
        sinks = [self.keeper, self.window]
        self.pipeline = Pipeline(source, [pace(), Stage("paint", self._paint)], sinks)
        self.window.on_quit = self.pipeline.stop
        self.thread = threading.Thread(target=self.pipeline.run)

    def _paint(self, frames):
        for frame in frames:
            frame.picture = frame.image
            frame.picture[100:] = round(100 * self.controls.look.overlay)
            yield frame

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.pipeline.stop()
        self.thread.join(20)
        assert not self.thread.is_alive()
        assert self.pipeline.ledger.unaccounted == 0

    def number(self, display):
        return read_number(display.pixels()[: SIZE[0], : SIZE[1]])


def test_keys_change_the_picture_and_the_run_goes_on(on_screen, tmp_path):
    with Shown() as run:
        wait(
            lambda: run.keeper.seen and 5 < run.number(on_screen) <= run.keeper.seen[-1],
            seen=lambda: (run.number(on_screen), run.keeper.seen[-1:], run.said),
        )
        assert on_screen.pixels()[200, 100].tolist() == [50] * 3
        on_screen.press("plus", lambda: on_screen.pixels()[200, 100].tolist() == [60] * 3)
        on_screen.press("minus", lambda: on_screen.pixels()[200, 100].tolist() == [50] * 3)
        on_screen.press("l", lambda: run.controls.look.legend)
        on_screen.press("c", lambda: run.controls.look.contours)

        on_screen.press("h", lambda: on_screen.pixels()[170:230, :160].max() > 200)
        on_screen.press("h", lambda: on_screen.pixels()[170:230, :160].max() < 60)

        on_screen.press("space", lambda: on_screen.pixels()[200:240, :60].max() > 200)
        frozen, passed = run.number(on_screen), run.keeper.seen[-1]
        wait(lambda: run.keeper.seen[-1] > passed + 25)
        assert run.number(on_screen) == frozen
        on_screen.press("s", lambda: run.said)
        (saved,) = tmp_path.glob("*.png")
        assert saved.name == f"my_clip_{frozen:06d}.png"
        assert run.said == [f"saved   {saved.name}"]
        assert read_number(cv2.imread(str(saved))) == frozen
        on_screen.press("space", lambda: run.number(on_screen) > frozen)

        on_screen.do("key", "q")
        run.thread.join(20)
        assert not run.thread.is_alive()
    assert run.window.quit
    assert run.pipeline.ledger.skipped["window"] >= 25
    assert run.keeper.seen == list(range(len(run.keeper.seen)))


def test_a_still_stays_until_the_user_has_seen_it(on_screen):
    with Shown(count=1, stay=True) as run:
        wait(lambda: run.keeper.seen)
        time.sleep(1.0)
        assert run.thread.is_alive()
        on_screen.do("key", "Escape")
        run.thread.join(20)
        assert not run.thread.is_alive()
    assert run.window.quit
    with Shown(count=1, stay=True) as run:
        wait(lambda: run.keeper.seen)  # stopping takes it away, too


def test_a_window_that_is_lost_does_not_end_the_run(on_screen):
    with Shown() as run:
        wait(lambda: len(run.keeper.seen) > 10)
        (window,) = on_screen.do("search", "--name", "my clip").split()
        on_screen.do("windowkill", window)
        wait(lambda: run.said)
        seen = len(run.keeper.seen)
        wait(lambda: len(run.keeper.seen) > seen + 25)
    assert "the run goes on without it" in run.said[0]
    assert len(run.said) == 1
    assert not run.window.quit


@pytest.mark.parametrize(
    ("name", "part"),
    [("", "neither DISPLAY nor WAYLAND_DISPLAY is set"), (":4711", "could not connect to display")],
)
def test_no_display_is_one_clear_error(monkeypatch, name, part):
    monkeypatch.setenv("DISPLAY", name)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(SinkError, match=part) as caught:
        WindowSink("x", Controls())
    assert "--show" in str(caught.value)
    assert "\n" not in str(caught.value)
