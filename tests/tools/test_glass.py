"""`streamseg latency` with a camera that is simulated: its delay is known and must be found."""

from __future__ import annotations

import json
import threading
import time
from fractions import Fraction

import cv2
import numpy as np
import pytest

from pipeline.frame import Frame
from pipeline.runner import Stage
from pipeline.sources.synthetic import SyntheticSource
from pipeline.timecode import COUNT, HEIGHT, WIDTH, draw_code, read_code
from tools.errors import ToolError
from tools.glass import Filmed, Shown, compare, describe, film

pytestmark = pytest.mark.timeout(60)

# A screen seen from the side, pixels of a camera's 640x480 picture.
SEEN = np.array([[90, 60], [560, 110], [530, 400], [70, 430]], np.float32)
FLAT = np.array([[0, 0], [WIDTH, 0], [WIDTH, HEIGHT], [0, HEIGHT]], np.float32)
ASKEW = cv2.getPerspectiveTransform(FLAT, SEEN)


def camera(code, seed=0, blur=1.2, noise=8.0):
    """What a camera makes of a picture: perspective, a gray room, little contrast, blur, noise."""
    room = np.full((480, 640), 70, np.uint8)
    cv2.warpPerspective(code, ASKEW, (640, 480), room, borderMode=cv2.BORDER_TRANSPARENT)
    seen = cv2.GaussianBlur(room, (0, 0), blur).astype(float) * 0.6 + 30
    seen += np.random.default_rng(seed).normal(0, noise, seen.shape)
    return np.clip(seen, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("number", [0, 1, 2, 1023, 2048, 2730, COUNT - 1, COUNT + 5])
def test_numbers_are_read_askew_blurred_and_noisy(number):
    assert read_code(camera(draw_code(number), number)) == number % COUNT


@pytest.mark.parametrize("turned", [cv2.ROTATE_180, cv2.ROTATE_90_CLOCKWISE])
def test_a_camera_may_stand_on_its_head(turned):
    assert read_code(cv2.rotate(camera(draw_code(1234)), turned)) == 1234


def test_between_two_numbers_one_of_them_is_read():
    for number in (7, 63, 127, 2047):
        both = cv2.addWeighted(draw_code(number), 0.5, draw_code(number + 1), 0.5, 0)
        assert read_code(camera(both, number)) in (number, number + 1)


def test_what_is_no_code_is_none():
    room = np.random.default_rng(0).integers(0, 256, (480, 640)).astype(np.uint8)
    assert read_code(room) is None
    assert read_code(np.zeros((480, 640), np.uint8)) is None
    one = draw_code(9)
    one[:, : WIDTH // 2] = 255  # half of it is out of the picture
    assert read_code(one) is None


def test_a_number_stands_for_its_latest_showing_before_it_was_seen():
    shown = Shown()
    for i in range(COUNT + 100):
        shown.add(i, i / 1000)
    assert shown.when(50, 4.2) == pytest.approx((COUNT + 50) / 1000)
    assert shown.when(50, 4.1) == pytest.approx(0.050)
    assert shown.when(150, 4.1) == pytest.approx(0.150)
    assert shown.when(3000, 2.0) is None


class SimulatedCamera(SyntheticSource):
    """Films the screen `delay_s` late, at 30 frames a second."""

    def __init__(self, shown, delay_s):
        super().__init__(480, 640, count=10_000, fps=30)
        self.live = True
        self.name = "simulated camera"
        self._shown, self._delay_s = shown, delay_s
        self._seen = {}

    def frames(self):
        begun = time.perf_counter()
        for index in range(10_000):
            due = begun + index / 30
            time.sleep(max(0.0, due - time.perf_counter()))
            now = time.perf_counter()
            number = self._shown.number_at(now - self._delay_s)
            if number is None:
                continue
            if number % 16 not in self._seen:  # noise enough, and time for the rest
                self._seen[number % 16] = np.random.default_rng(number).normal(0, 6, (480, 640))
            gray = camera(draw_code(number), noise=0.0) + self._seen[number % 16]
            image = np.repeat(np.clip(gray, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
            yield Frame(index, index, Fraction(1, 30), image, captured_at=now)


class Screen(Shown):
    """Numbers at 60 a second, without a display."""

    def __init__(self):
        super().__init__()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._count)

    def _count(self):
        number = 0
        while not self._over.wait(1 / 60):
            self.add(number, time.perf_counter())
            number += 1

    def number_at(self, at):
        for number, since in zip(reversed(self._numbers[:]), reversed(self._times[:]), strict=True):
            if since <= at:
                return number
        return None

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._over.set()
        self._thread.join()


def late(seconds):
    """A stage that takes its time."""

    def run(frames):
        for frame in frames:
            time.sleep(seconds)
            yield frame

    return Stage("late", run)


def test_the_known_delay_is_found_and_ours_beside_it():
    delay_s, ours_s = 0.150, 0.080
    never = threading.Event()
    with Screen() as screen:
        floor = film(SimulatedCamera(screen, delay_s), [], screen, 2.0, never)
        total = film(SimulatedCamera(screen, delay_s), [late(ours_s)], screen, 2.0, never)
    figures = compare(floor, total)
    # A number is shown for a sixtieth of a second, so its picture is up to that much older; the
    # rest is what a busy machine adds to waking up.
    frame_ms = 1000 / 60
    assert 150 - 1 <= figures["floor_ms"]["p50"] <= 150 + 2 * frame_ms
    assert 80 - frame_ms <= figures["added_ms"]["p50"] <= 80 + 3 * frame_ms
    assert figures["total_ms"]["p50"] == pytest.approx(
        figures["floor_ms"]["p50"] + figures["added_ms"]["p50"], abs=0.2
    )
    assert figures["floor_ms"]["p50"] <= figures["floor_ms"]["p90"]
    json.dumps(figures)
    lines = list(describe(figures))
    assert [line.split()[0] for line in lines] == ["floor", "added", "total"]


def test_a_camera_that_does_not_see_the_code_is_told():
    with pytest.raises(ToolError, match="read in 3 of 90 pictures without the network"):
        compare(Filmed(90, [0.1] * 3), Filmed(90, [0.1] * 90))


def test_a_file_is_no_camera(streamseg, clip):
    done = streamseg("latency", clip)
    assert done.code == 1
    assert done.err.splitlines()[-1] == (
        f"error: {clip} is no camera; what it shows was filmed before"
    )
