"""Holds a file's frames back to the times at which they are to be seen."""

from __future__ import annotations

import threading
import time

from pipeline.roles import Frames, Stage

# What has been lost by being late for longer than this is not made up: whoever watches a stream is
# not to see its frames rush by.
_LATE_S = 0.25

# A longer gap between two timestamps is damage, not a picture to be looked at for so long.
_GAP_S = 60.0


def pace() -> Stage:
    """Passes frames on by their timestamps; each counts as captured when it is due, as a camera's.

    To be the first stage, and never behind a live source, which has a pace already.
    """
    over = threading.Event()

    def run(frames: Frames) -> Frames:
        shift_s: float | None = None  # from a frame's own time to the clock's
        for frame in frames:
            now = time.perf_counter()
            if shift_s is None or not -_LATE_S <= frame.time_s + shift_s - now <= _GAP_S:
                shift_s = now - frame.time_s
            over.wait(max(0.0, frame.time_s + shift_s - now))
            frame.captured_at = time.perf_counter()
            yield frame

    return Stage(
        "pace",
        run,
        "the video's own rate is the limit, which a stream out or a window alone keeps to",
        ahead=1,
        interrupt=over.set,
    )
