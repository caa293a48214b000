"""The process that shows numbers for a camera: `python -m pipeline.codescreen FD`.

Over the file descriptor FD goes (number, when it was shown) for each, seconds of the clock that all
processes share, until the other side hangs up; None says that the user has closed the window.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from multiprocessing.connection import Connection

os.environ.setdefault("QT_LOGGING_RULES", "default.warning=false")

import cv2

from pipeline.timecode import HEIGHT, WIDTH, draw_code

# What most screens show in a second. Faster would be read no better, and cost time.
_RATE = 60
_TITLE = "streamseg latency: point the camera here"


def main() -> None:
    """Counts until nobody wants to know."""
    connection = Connection(int(sys.argv[1]))
    cv2.namedWindow(_TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
    cv2.resizeWindow(_TITLE, WIDTH, HEIGHT)
    number, due = 0, time.perf_counter()
    with suppress(OSError):
        while True:
            cv2.imshow(_TITLE, draw_code(number))
            key = cv2.waitKey(1) & 0xFF
            connection.send((number, time.perf_counter()))
            if key in (27, ord("q")) or cv2.getWindowProperty(_TITLE, cv2.WND_PROP_VISIBLE) < 1:
                connection.send(None)
                return
            number += 1
            due = max(due + 1 / _RATE, time.perf_counter())
            time.sleep(max(0.0, due - time.perf_counter()))


if __name__ == "__main__":
    main()
