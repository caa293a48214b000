"""The process that has the window: `python -m pipeline.screen FD TITLE`.

A window wants the main thread, Qt ends the process that cannot reach a display, and its X libraries
hang when PyAV's copies of them were loaded first. Here none of that concerns the run, and keys are
heard however busy it is.

Over the file descriptor FD come (height, width) and the pixels of each picture, then None. Back go
`OPEN` once there is a window, `SHOWN` or `PASSED` for each picture, and the letters of keys.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from multiprocessing.connection import Connection

# Qt complains, in every window, that OpenCV's wheel brings no fonts.
os.environ.setdefault("QT_LOGGING_RULES", "default.warning=false")

import cv2
import numpy as np

from pipeline.frame import Image
from pipeline.stages.draw import draw_lines

OPEN, SHOWN, PASSED = "open", "shown", "passed"
QUIT, PAUSE, HELP = "q", " ", "h"

# Seconds that a look for pictures may take: keys are looked for after it.
_TURN_S = 0.005

# What a window is opened with at most, pixels; it can be resized.
_FIRST_SIZE = (1280, 800)

_HELP_S = 4.0
_ESCAPE = 27
_HELP = (
    "q, Esc   quit",
    "space    pause the view",
    "+ -      strength of the colours",
    "l        legend",
    "c        contours",
    "s        save this picture",
    "h        this help",
)


class Screen:
    """One window, and what it shows."""

    def __init__(self, connection: Connection, title: str) -> None:
        self._connection, self._title = connection, title
        self._picture: Image | None = None
        self._paused = False
        self._help_until = 0.0
        cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
        waiting = np.full((270, 480, 3), 32, np.uint8)
        draw_lines(waiting, ("loading the network",))
        cv2.imshow(title, waiting)
        cv2.waitKey(50)
        connection.send(OPEN)

    def run(self) -> None:
        """Shows what comes until there is no more, or nobody who wants it."""
        while True:
            if self._connection.poll(_TURN_S):
                size = self._connection.recv()
                if size is None:
                    return
                picture = np.frombuffer(self._connection.recv_bytes(), np.uint8)
                self._take(picture.reshape(*size, 3))
            key = cv2.waitKey(1)
            if key != -1:
                self._press(key & 0xFF)
            elif cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) < 1:
                self._connection.send(QUIT)
                return
            if self._help_until and time.perf_counter() > self._help_until:
                self._help_until = 0.0
                self._refresh()

    def _take(self, picture: Image) -> None:
        if self._paused:
            self._connection.send(PASSED)
            return
        if self._picture is None:
            height, width = picture.shape[:2]
            scale = min(1.0, _FIRST_SIZE[0] / width, _FIRST_SIZE[1] / height)
            size = max(160, round(width * scale)), max(90, round(height * scale))
            cv2.resizeWindow(self._title, *size)
        self._picture = picture
        self._refresh()
        self._connection.send(SHOWN)

    def _refresh(self) -> None:
        if self._picture is None:
            return
        bgr = np.asarray(cv2.cvtColor(self._picture, cv2.COLOR_RGB2BGR), np.uint8)
        if self._help_until:
            draw_lines(bgr, _HELP)
        elif self._paused:
            draw_lines(bgr, ("paused",))
        cv2.imshow(self._title, bgr)

    def _press(self, key: int) -> None:
        letter = QUIT if key == _ESCAPE else chr(key).lower()
        if letter == PAUSE:
            self._paused = not self._paused
            self._refresh()
        elif letter == HELP:
            self._help_until = 0.0 if self._help_until else time.perf_counter() + _HELP_S
            self._refresh()
        else:
            self._connection.send(letter)


def main() -> None:
    """Serves one connection and ends."""
    connection = Connection(int(sys.argv[1]))
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the caller has gone
        Screen(connection, sys.argv[2]).run()


if __name__ == "__main__":
    main()
