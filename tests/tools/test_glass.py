"""`streamseg latency` with a camera that is simulated: its delay is known and must be found."""

from __future__ import annotations

import bisect
import json
import threading
import time
from fractions import Fraction

import cv2
import numpy as np
import pytest

from pipeline.frame import Frame
from pipeline.roles import Stage
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


def bits():
    """What each bit changes in a camera's picture: (rows, columns, difference)."""
    empty = draw_code(0)
    parts = []
    for bit in range(12):
        number = (1 << bit + 1) - 1  # its Gray code is that bit alone
        change = camera(draw_code(number), noise=0).astype(np.int16) - camera(empty, noise=0)
        x, y, w, h = cv2.boundingRect((change != 0).astype(np.uint8))
        part = np.s_[y : y + h, x : x + w]
        parts.append((part, change[part]))
    return parts


class SimulatedCamera(SyntheticSource):
    """Films the screen `delay_s` late, at 30 frames a second."""

    def __init__(self, shown, delay_s):
        super().__init__(480, 640, fps=30)
        self.live = True
        self.name = "simulated camera"
        self._shown, self._delay_s = shown, delay_s
        self._empty, self._bits = camera(draw_code(0)).astype(np.int16), bits()

    def frames(self):
        begun = time.perf_counter()
        for index in range(10_000):
            time.sleep(max(0.0, begun + index / 30 - time.perf_counter()))
            now = time.perf_counter()
            number = self._shown.number_at(now - self._delay_s)
            if number is None:
                continue
            gray, code = self._empty.copy(), number ^ number >> 1
            for bit, (part, change) in enumerate(self._bits):
                if code >> bit & 1:
                    gray[part] += change
            image = cv2.merge([np.clip(gray, 0, 255).astype(np.uint8)] * 3)
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
        last = bisect.bisect_right(self._times, at) - 1
        return None if last < 0 else self._numbers[last]

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
    frame_s = 1 / 60  # a number is shown so long, and its picture is up to that much older
    never = threading.Event()
    for _ in range(3):
        with Screen() as screen:
            floor = film(SimulatedCamera(screen, delay_s), [], screen, 1.2, never)
            total = film(SimulatedCamera(screen, delay_s), [late(ours_s)], screen, 1.2, never)
        assert min(floor.delays_s) >= delay_s
        assert min(total.delays_s) >= delay_s + ours_s
        assert len(floor.delays_s) >= 0.9 * floor.frames
        figures = compare(floor, total)
        found, added = figures["floor_ms"]["p50"], figures["added_ms"]["p50"]
        # A busy machine wakes everybody late, but not always.
        quick, slow = np.percentile(floor.delays_s, 10), np.percentile(total.delays_s, 10)
        if quick <= delay_s + frame_s and abs(slow - quick - ours_s) <= frame_s:
            break
    else:
        pytest.fail(f"found {figures}, and at best {quick:.3f} and {slow:.3f} s")
    assert figures["total_ms"]["p50"] == pytest.approx(found + added, abs=0.2)
    assert found <= figures["floor_ms"]["p90"]
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
