"""Glass to glass: from a number on the screen to the moment at which we have its picture."""

from __future__ import annotations

import bisect
import json as json_module
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from engines.choose import load_engine
from pipeline.api import stages_for
from pipeline.errors import SinkError
from pipeline.frame import Frame, Image
from pipeline.roles import Source
from pipeline.runner import Pipeline
from pipeline.sinks.destination import check_file, disk_errors
from pipeline.sinks.images import write_whole
from pipeline.sinks.window import check_environment, explain_failure
from pipeline.sources import open_source
from pipeline.timecode import COUNT, read_code
from tools.errors import ToolError
from tools.interrupt import interruptible
from tools.progress import Printer

# Frames that are kept of each filming, for they are read only afterwards: reading costs time.
_KEPT = 150
_SIDE = 960  # of what is kept, pixels at most
_LEAST = 10  # frames that must show the code
_OPEN_S = 30.0
_OLDEST_S = 20.0  # no picture is later than this; numbers come again after a minute


class Shown:
    """Which number was on the screen from when on; one thread adds, others ask."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._numbers: list[int] = []
        self.closed = threading.Event()
        """Set when the user has closed the window."""

    def add(self, number: int, at: float) -> None:
        self._numbers.append(number)
        self._times.append(at)

    def when(self, code: int, seen_at: float) -> float | None:
        """When the number of which only `code` is known was shown, at `seen_at` or before; None if
        it was not, so that it must be misread.
        """
        last = bisect.bisect_right(self._times, seen_at) - 1
        while last >= 0 and seen_at - self._times[last] < _OLDEST_S:
            if self._numbers[last] % COUNT == code:
                return self._times[last]
            last -= 1
        return None


@dataclass
class Filmed:
    """What was seen of the screen."""

    frames: int = 0
    """Pictures that were looked at."""
    delays_s: list[float] = field(default_factory=list)
    """From the number's showing to its picture, of those pictures in which it could be read."""

    def percentile_ms(self, percent: float) -> float:
        return 1000 * float(np.percentile(self.delays_s, percent))


def film(
    source: Source, stages: Sequence[Any], shown: Shown, seconds: float, stopping: threading.Event
) -> Filmed:
    """Runs the source through the stages for some seconds, and reads the code afterwards."""
    kept: list[tuple[Image, float]] = []
    pipeline = Pipeline(source, stages)
    end: float | None = None
    step_s, next_at = seconds / _KEPT, 0.0
    with pipeline:
        for frame in pipeline:
            now = time.perf_counter()
            if end is None:  # connecting and warming up are no part of it
                end = now + seconds
            if now >= next_at:
                next_at = now + step_s
                kept.append((_small(frame), now))
            if now > end or stopping.is_set() or shown.closed.is_set():
                break
        pipeline.stop()
    filmed = Filmed(len(kept))
    for picture, at in kept:
        code = read_code(picture)
        when = None if code is None else shown.when(code, at)
        if when is not None:
            filmed.delays_s.append(at - when)
    return filmed


def _small(frame: Frame) -> Image:
    """The source's picture in gray, uint8 (h, w)."""
    image = frame.image
    scale = min(1.0, _SIDE / max(image.shape[:2]))
    if scale < 1:
        image = np.asarray(
            cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8
        )
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)


def compare(floor: Filmed, ours: Filmed) -> dict[str, Any]:
    """The figures, milliseconds. Raises ToolError where too few pictures showed the code."""
    for filmed, what in ((floor, "without"), (ours, "with")):
        if len(filmed.delays_s) < _LEAST:
            raise ToolError(
                f"the code could be read in {len(filmed.delays_s)} of {filmed.frames} pictures "
                f"{what} the network, and {_LEAST} are needed: point the camera at the window so "
                "that it fills a good part of the picture, sharp and without glare"
            )
    middle = floor.percentile_ms(50)
    return {
        "schema": 1,
        "floor_ms": {"p50": round(middle, 1), "p90": round(floor.percentile_ms(90), 1)},
        "total_ms": {
            "p50": round(ours.percentile_ms(50), 1),
            "p90": round(ours.percentile_ms(90), 1),
        },
        "added_ms": {
            "p50": round(ours.percentile_ms(50) - middle, 1),
            "p90": round(ours.percentile_ms(90) - middle, 1),
        },
        "pictures": {"floor": len(floor.delays_s), "total": len(ours.delays_s)},
    }


def measure_camera(
    spec: str,
    *,
    seconds: float,
    model: str,
    engine: str,
    precision: str,
    json: Path | None,
    force: bool,
) -> int:
    """Films, prints and writes; returns the exit code."""
    cv2.setNumThreads(1)
    say = Printer()
    stopping = threading.Event()
    if json is not None:
        check_file(json, force)
    with interruptible(say.note) as interrupt:
        with closing(open_source(spec)) as source:
            if not source.live:
                raise ToolError(f"{spec} is no camera; what it shows was filmed before")
            name = source.name
        with load_engine(model, engine=engine, precision=precision, say=say.note) as loaded:
            with interrupt.stopping(stopping.set), code_window() as shown:
                filmed = []
                for what, stages in (("camera alone", []), ("network", stages_for(loaded))):
                    say.note(f"filming {name} for {seconds:g} s: {what}")
                    with closing(open_source(spec, say=say.note)) as source:
                        filmed.append(film(source, stages, shown, seconds, stopping))
                    if stopping.is_set() or shown.closed.is_set():
                        say.note("stopped; nothing was measured")
                        return 130
            figures = {"source": name, "model": loaded.card.name, **compare(*filmed)}
    for line in describe(figures):
        print(line)
    if json is not None:
        with disk_errors(json):
            write_whole(json, (json_module.dumps(figures, indent=2) + "\n").encode())
    return 0


def describe(figures: dict[str, Any]) -> Iterator[str]:
    """The figures for people."""
    floor, total, added = (figures[f"{name}_ms"] for name in ("floor", "total", "added"))
    count = figures["pictures"]
    yield f"floor  {floor['p50']:.0f} ms (median), {floor['p90']:.0f} ms (90%): screen and camera"
    yield f"added  {added['p50']:.0f} ms (median), {added['p90']:.0f} ms (90%): segmentation"
    yield (
        f"total  {total['p50']:.0f} ms (median), {total['p90']:.0f} ms (90%), "
        f"over {count['total']} pictures; the floor is of {count['floor']}"
    )


@contextmanager
def code_window() -> Iterator[Shown]:
    """Shows the code in a process of its own. Raises SinkError where there can be no window."""
    check_environment("streamseg latency")
    ours, theirs = Pipe()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.codescreen", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    shown = Shown()
    begun = threading.Event()
    thread = threading.Thread(target=_follow, args=(ours.recv, shown, begun), name="code")
    thread.start()
    try:
        if not begun.wait(_OPEN_S) or shown.closed.is_set():
            process.kill()
            said = process.communicate()[1].decode(errors="replace")
            raise SinkError(explain_failure(said, "streamseg latency"))
        yield shown
    finally:
        process.kill()
        thread.join()
        process.communicate()
        ours.close()


def _follow(receive: Callable[[], Any], shown: Shown, begun: threading.Event) -> None:
    """Takes down what is shown until the window is gone."""
    with suppress(EOFError, OSError):
        while (news := receive()) is not None:
            shown.add(*news)
            begun.set()
    shown.closed.set()
    begun.set()
