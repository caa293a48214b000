"""Several runs' newest pictures in one: a viewer to each run, a live source to window and page."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import cv2
import numpy as np

from pipeline.channel import Policy
from pipeline.frame import Frame, Image
from pipeline.roles import Frames
from pipeline.stages.draw import draw_lines

NO_CLASS = 255
"""The label of what lies between the pictures."""

_WIDTH = 1280  # pixels, of the whole; what a browser's decoder surely takes
_MAX_FPS = 30
# A source without a picture for so long is shown to be without one, seconds.
_STILL_S = 2.0
_TIME_BASE = Fraction(1, 1000)


@dataclass
class _Cell:
    """A source's place in the grid."""

    name: str
    top: int
    left: int
    newest: Frame | None = None
    """What it shows, or will show next; None before the first."""
    since: float = 0.0
    """When that came (time.perf_counter)."""
    over: bool = False
    """Whether the source's run has ended."""

    def state(self, now: float) -> str:
        """What is to be said of it; empty while pictures come."""
        if self.over:
            return "ended"
        if self.newest is None:
            return "no picture yet"
        still_s = now - self.since
        return f"no picture for {still_s:.0f} s" if still_s >= _STILL_S else ""


class Tile:
    """The sink by which one run feeds its cell; takes no time."""

    policy: Policy = "drop_oldest"
    name = "mosaic"
    advice = "the mosaic shows the newest and holds nobody back"
    output = None

    def __init__(self, mosaic: Mosaic, number: int) -> None:
        self.notes: list[str] = []
        self._mosaic, self._number = mosaic, number

    def run(self, frames: Frames) -> Frames:
        """Leaves each frame where the mosaic finds it."""
        for frame in frames:
            self._mosaic.take(self._number, frame)
            yield frame


class Mosaic:
    """A live source whose picture is a grid of others', with their names.

    A picture is made when any of them has changed, 30 a second at most; one whose pictures have
    ceased is dimmed and says for how long. `labels` is a grid as well, NO_CLASS between its cells.
    `end` is the end of the stream.
    """

    live = True
    name = "mosaic"

    def __init__(self, names: Sequence[str]) -> None:
        columns = math.ceil(math.sqrt(len(names)))
        rows = -(-len(names) // columns)
        self._cell_w = _WIDTH // columns // 2 * 2
        self._cell_h = self._cell_w * 9 // 16 // 2 * 2
        self._shape = rows * self._cell_h, columns * self._cell_w
        self._cells = [
            _Cell(name, i // columns * self._cell_h, i % columns * self._cell_w)
            for i, name in enumerate(names)
        ]
        self.tiles = [Tile(self, i) for i in range(len(names))]
        """A sink for each source, in the order of the names."""
        self.lost: dict[str, int] = {}
        self._changed = threading.Condition()
        self._news: set[int] = set(range(len(names)))
        self._over = False

    def take(self, number: int, frame: Frame) -> None:
        """A source's newest frame; any thread."""
        with self._changed:
            cell = self._cells[number]
            cell.newest, cell.since = frame, time.perf_counter()
            self._news.add(number)
            self._changed.notify()

    def leave(self, number: int) -> None:
        """No more will come of this source."""
        with self._changed:
            self._cells[number].over = True
            self._news.add(number)
            self._changed.notify()

    def end(self) -> None:
        """Shows what has come, and ends."""
        with self._changed:
            self._over = True
            self._changed.notify()

    interrupt = end

    def frames(self) -> Frames:
        """Pictures until `end`."""
        picture = np.full((*self._shape, 3), 16, np.uint8)
        labels = np.full(self._shape, NO_CLASS, np.uint8)
        begun, index = time.perf_counter(), 0
        while True:
            at = time.perf_counter()
            numbers, over = self._wait(at)
            if numbers:
                newest = [self._paint(self._cells[i], picture, labels) for i in numbers]
                shown = picture.copy()  # whoever has the last one still looks at it
                yield Frame(
                    index=index,
                    pts=round((at - begun) / _TIME_BASE),
                    time_base=_TIME_BASE,
                    image=shown,
                    captured_at=max(newest) or at,
                    labels=labels.copy(),
                    picture=shown,
                )
                index += 1
            if over:
                return
            with self._changed:
                rest_s = at + 1 / _MAX_FPS - time.perf_counter()
                self._changed.wait_for(lambda: self._over, max(0.0, rest_s))

    def _wait(self, now: float) -> tuple[list[int], bool]:
        """The cells to be painted, and whether it is for the last time."""
        with self._changed:
            # Who says for how many seconds there was nothing, says it anew every second.
            self._changed.wait_for(lambda: self._news or self._over, 1.0)
            still = {
                i
                for i, cell in enumerate(self._cells)
                if cell.newest and not cell.over and now - cell.since >= _STILL_S
            }
            numbers, self._news = sorted(self._news | still), set()
            return numbers, self._over

    def _paint(self, cell: _Cell, picture: Image, labels: Image) -> float:
        """Paints one cell into the whole; returns when its frame was captured, 0 without one."""
        here = np.s_[cell.top : cell.top + self._cell_h, cell.left : cell.left + self._cell_w]
        out, ids = picture[here], labels[here]
        frame, state = cell.newest, cell.state(time.perf_counter())
        out[:], ids[:] = 16, NO_CLASS
        if frame is not None:
            image = frame.picture
            assert image is not None
            h, w = image.shape[:2]
            scale = min(self._cell_h / h, self._cell_w / w)
            height, width = max(1, round(h * scale)), max(1, round(w * scale))
            top, left = (self._cell_h - height) // 2, (self._cell_w - width) // 2
            inner = np.s_[top : top + height, left : left + width]
            how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
            out[inner] = cv2.resize(image, (width, height), interpolation=how)
            if frame.labels is not None:
                ids[inner] = cv2.resize(
                    frame.labels, (width, height), interpolation=cv2.INTER_NEAREST
                )
        if state:
            out[:] = out // 3
        text = f"{cell.name}: {state}" if state else cell.name
        draw_lines(out, (text.encode("ascii", "replace").decode(),))
        return 0.0 if frame is None else frame.captured_at
