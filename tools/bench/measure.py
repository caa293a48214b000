"""Frames a second: of the engine alone, and of whole pipelines."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from engines.engine import Engine, Pending
from pipeline.api import stages_for
from pipeline.channel import Channel
from pipeline.errors import StoppedError
from pipeline.runner import Pipeline
from pipeline.sources import AnySource, SyntheticSource
from pipeline.stages.geometry import to_network
from pipeline.trace import Recorder
from tools.errors import ToolError

ENDLESS = 1 << 40
"""More frames than anybody waits for."""


class StoppedMeasuring(Exception):  # noqa: N818 - it is no error
    """Somebody pressed Ctrl-C; half a measurement is none."""


class Stop:
    """Ends what is being measured, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pipeline: Pipeline | None = None
        self.asked = False

    def __call__(self) -> None:
        with self._lock:
            self.asked, pipeline = True, self._pipeline
        if pipeline is not None:
            pipeline.stop()

    def check(self) -> None:
        """Raises StoppedMeasuring once asked to."""
        if self.asked:
            raise StoppedMeasuring

    @contextmanager
    def ending(self, pipeline: Pipeline) -> Iterator[Pipeline]:
        """Runs the pipeline in the block; to stop ends it, and leaves the block by an exception."""
        with self._lock:
            self._pipeline = pipeline
        try:
            self.check()
            with pipeline:
                yield pipeline
            self.check()
        finally:
            with self._lock:
                self._pipeline = None


@dataclass(frozen=True)
class Alone:
    """What one run of the engine alone came to."""

    fps: float
    cpu_ms: float
    """Milliseconds of processor time of this process a picture."""


@dataclass(frozen=True)
class Passed:
    """What one run of a pipeline came to."""

    fps: float
    cpu_ms: float
    """Milliseconds of processor time of this process a frame."""
    stages: list[dict[str, Any]]
    """Rows of the report's `stages`."""
    bottleneck: dict[str, Any] | None


def measure_engine(engine: Engine, seconds: float, warmup_s: float, stop: Stop) -> Alone:
    """Pictures a second with as many submissions under way as the engine takes, each of as many
    pictures as it takes; nothing but the engine is at work.

    One thread submits and another fetches, as in a pipeline: by one that does both, OpenVINO was
    kept 5 to 27% less busy on two contended cores.
    """
    pictures = _pictures(engine)
    flying: Channel[Pending] = Channel(max(1, engine.depth - 2))
    failed: list[Exception] = []

    def submit() -> None:
        try:
            for number in range(ENDLESS):
                flying.put(engine.submit(pictures[number % len(pictures)]))
        except StoppedError:
            pass
        except Exception as error:
            failed.append(error)
            flying.end()

    done, warm = 0, False
    begun = since = time.perf_counter()
    before, cpu = 0, time.process_time()
    thread = threading.Thread(target=submit, name="submit")
    thread.start()
    try:
        for pending in flying:
            pending.result()
            done += engine.batch
            stop.check()
            now = time.perf_counter()
            if not warm and now - begun >= warmup_s:
                warm, since, before, cpu = True, now, done, time.process_time()
            elif warm and now - since >= seconds:
                break
        lasted, cpu_s = time.perf_counter() - since, time.process_time() - cpu
    finally:
        flying.stop()
        thread.join()
    if failed:
        raise failed[0]
    return Alone(fps=(done - before) / lasted, cpu_ms=1000 * cpu_s / (done - before))


def measure_pipeline(
    source: AnySource,
    engine: Engine,
    seconds: float,
    warmup_s: float,
    stop: Stop,
    trace: Recorder | None = None,
) -> Passed:
    """Frames a second through every stage to a caller who does nothing with them, until `seconds`
    after the warm-up have passed or the source ends. Closes the source.
    """
    times: list[float] = []
    cpu: list[float] = []
    with closing(source):
        pipeline = Pipeline(source, stages_for(engine), trace=trace)
        with stop.ending(pipeline):
            for _ in pipeline:
                times.append(time.perf_counter())
                cpu.append(time.process_time())
                if times[-1] - times[0] >= warmup_s + seconds:
                    break
    found = pipeline.bottleneck
    fps, begun = rate_of(times, warmup_s, source.name), measured_from(times, warmup_s)
    return Passed(
        fps=fps,
        cpu_ms=1000 * (cpu[-1] - cpu[begun]) / (len(cpu) - 1 - begun),
        stages=[stage.as_dict() for stage in pipeline.stage_stats],
        bottleneck=None if found is None else found.as_dict(),
    )


def rate_of(times: Sequence[float], warmup_s: float, name: str) -> float:
    """Frames a second from the times, in seconds, at which frames came, the warm-up left out.

    Raises ToolError for fewer than two frames.
    """
    if len(times) < 2 or times[-1] <= times[0]:
        raise ToolError(f"{name} has too few frames to measure a rate: {len(times)}; give more")
    used = times[measured_from(times, warmup_s) :]
    return (len(used) - 1) / (used[-1] - used[0])


def measured_from(times: Sequence[float], warmup_s: float) -> int:
    """The first frame after the warm-up, where at least half of the frames come after it; a clip
    that is shorter counts from its first.
    """
    warm = sum(t - times[0] >= warmup_s for t in times)
    return len(times) - warm if 2 * warm >= len(times) and warm >= 2 else 0


def warm_up(engine: Engine) -> None:
    """Two pictures for each slot: first runs allocate, compile and wake the device."""
    pictures = _pictures(engine)
    flying = [engine.submit(pictures[i % len(pictures)]) for i in range(2 * engine.depth)]
    for pending in flying:
        pending.result()


def _pictures(engine: Engine) -> list[Any]:
    """Submissions, uint8 (batch, height, width, 3) RGB, of the synthetic source's pictures."""
    frames = list(SyntheticSource(360, 640, count=4).frames())
    return [
        np.repeat(to_network(frame.held_image, engine.card.input), engine.batch, axis=0)
        for frame in frames
    ]
