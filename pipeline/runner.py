"""Runs a source, stages and sinks, a thread each, until the end, a stop or the first error."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING

from typing_extensions import Self

from pipeline.accounts import Branch, Lane, account, measure
from pipeline.channel import Channel
from pipeline.cores import OthersCoreWait
from pipeline.errors import PipelineError, StoppedError
from pipeline.frame import Frame
from pipeline.freshness import channels_behind
from pipeline.ledger import Ledger
from pipeline.roles import Frames, Sink, Source, Stage
from pipeline.stats import Bottleneck, Histogram, Meter, StageStats, find_bottleneck

if TYPE_CHECKING:  # who does not trace does not load it
    from pipeline.trace import Recorder


class Pipeline:
    """Frames from `source` through `stages`, to `sinks` and to whoever iterates.

        with Pipeline(source, stages, sinks) as pipeline:
            for frame in pipeline:
                ...

    Leaving the block stops and closes everything. The first error of any thread stops all the
    others and is raised here. `stop` may be called from any thread; what the sinks have been
    given by then is still written. A `trace` takes down what every frame goes through.

    Of a live source only the newest frame waits (pipeline/freshness.py), and with `max_latency_s`
    none goes to the network, the sinks or the caller that is older; those are counted as `late`.
    """

    def __init__(
        self,
        source: Source,
        stages: Sequence[Stage],
        sinks: Sequence[Sink] = (),
        ahead: int = 4,
        trace: Recorder | None = None,
        max_latency_s: float | None = None,
    ) -> None:
        self.ledger = Ledger()
        self.latency = Histogram()
        """Capture to delivery, seconds."""
        self.stage_stats: list[StageStats] = []
        self.bottleneck: Bottleneck | None = None
        self.interrupted = False
        self.wall_s = 0.0
        self.first_frame_at: float | None = None
        """When the first frame was delivered (time.perf_counter), None before that."""
        self._source = source
        capture = Stage("capture", lambda _: source.frames(), _CAPTURE_ADVICE, ahead)
        path = [capture, *stages]
        behind = channels_behind(path, live=source.live, max_latency_s=max_latency_s)
        self._lanes = [
            Lane(stage, channel, Meter(stage.name))
            for stage, channel in zip(path, behind, strict=True)
        ]
        # A viewer is shown the newest frame; what it would have to wait for is old by then.
        self._branches = [
            Branch(s, Channel(ahead if s.policy == "block" else 1, s.policy), Meter(s.name))
            for s in sinks
        ]
        self._blocking = [b for b in self._branches if b.channel.policy == "block"]
        if trace is not None:
            trace.attach(self._lanes, self._branches)
        self._captured = 0
        self._handed_out = 0
        """Frames that have left the last stage, for the sinks and the caller."""
        self._received = 0
        """Those of them that every sink has been given, and so the caller."""
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._failed = False
        self._error: BaseException | None = None
        """The first error, until it is raised."""
        self._closed = False
        self._started_at = 0.0
        self._cpu_at = 0.0
        self._core_wait: OthersCoreWait | None = None

    def __enter__(self) -> Self:
        if self._started_at:
            raise RuntimeError("a pipeline runs once; make a new one")
        self._started_at, self._cpu_at = time.perf_counter(), time.process_time()
        self._core_wait = OthersCoreWait()
        try:
            for i, lane in enumerate(self._lanes):
                self._spawn(lane.stage.name, self._run_stage, i)
            for branch in self._branches:
                self._spawn(branch.sink.name, self._run_sink, branch)
        except BaseException as error:  # out of threads, or Ctrl-C: those that run must end
            self._fail(error)
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None and not isinstance(error, GeneratorExit):
            self._fail(error)
        self._close()
        if error is None:
            self._raise()
            if not self._failed:
                self.ledger.check()

    def __iter__(self) -> Frames:
        if not self._threads:
            raise RuntimeError("a pipeline runs inside its `with` block; iterate over it there")
        try:
            for frame in self._lanes[-1].channel:
                self._handed_out += 1
                frame.shared = True
                for branch in self._branches:
                    self._hand_over(frame, branch)
                self._received += 1
                if not self._blocking:
                    self._delivered(frame)
                yield frame
        except StoppedError:
            pass
        self._close()
        self._raise()

    def _hand_over(self, frame: Frame, branch: Branch) -> None:
        """Gives a sink its share of a frame. A viewer that has gone away is passed over."""
        try:
            branch.channel.put(frame)
        except StoppedError:
            if branch.channel.policy == "block" or self._failed or self.interrupted:
                raise

    def run(self, on_frame: Callable[[Frame], None] = lambda frame: None) -> None:
        """Runs to the end; `on_frame` sees each frame as it is handed to the sinks."""
        with self:
            for frame in self:
                on_frame(frame)

    def stop(self) -> None:
        """Ends the run early, from any thread but not from a signal handler (it takes locks)."""
        with self._lock:
            self.interrupted = True
        self._stop_lanes()
        self._interrupt_others()

    @property
    def delivered(self) -> int:
        """Frames delivered so far."""
        return min((b.written for b in self._blocking), default=self._received)

    @property
    def dropped(self) -> int:
        """Frames of a live source that have given way to newer ones, or were late, so far."""
        return sum(lane.channel.dropped + lane.channel.late for lane in self._lanes)

    @property
    def drops(self) -> dict[str, int]:
        """`dropped`, by cause."""
        channels = [lane.channel for lane in self._lanes]
        return {"stale": sum(c.dropped for c in channels), "late": sum(c.late for c in channels)}

    @property
    def lost(self) -> dict[str, int]:
        """Frames that could not be captured so far, by cause."""
        return self._source.lost

    def _spawn(self, name: str, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, name=name)
        thread.start()
        self._threads.append(thread)

    def _run_stage(self, i: int) -> None:
        lane = self._lanes[i]
        outbound = lane.channel
        inbound = self._lanes[i - 1].channel if i else None
        inputs = self._lane_inputs(lane, inbound)
        with lane.meter.running():
            try:
                with closing(lane.stage.run(inputs)) as frames:  # type: ignore[type-var]
                    for frame in frames:
                        if inbound is None:
                            self._captured += 1
                            frame.captured_at = frame.captured_at or time.perf_counter()
                        outbound.put(frame)
            except StoppedError:
                outbound.stop()
            except BaseException as error:
                self._fail(error, lane)
            else:
                lane.completed = lane.exhausted
                outbound.end()
            finally:
                # A stage that ends before its input does leaves a producer that would wait for
                # ever; after the input's end this changes nothing.
                if inbound is not None:
                    inbound.stop()

    @staticmethod
    def _lane_inputs(lane: Lane, inbound: Channel[Frame] | None) -> Frames:
        if inbound is not None:
            yield from inbound
        lane.exhausted = True

    @staticmethod
    def _sink_inputs(branch: Branch) -> Frames:
        yield from branch.channel
        branch.exhausted = True

    def _run_sink(self, branch: Branch) -> None:
        with branch.meter.running():
            try:
                with closing(branch.sink.run(self._sink_inputs(branch))) as done:  # type: ignore[type-var]
                    for frame in done:
                        branch.written += 1
                        if self._blocking and branch is self._blocking[0]:
                            self._delivered(frame)
            except StoppedError:
                pass
            except BaseException as error:
                branch.failed = True
                self._fail(error)
            else:
                if not branch.exhausted and branch.channel.policy == "block":
                    branch.failed = True
                    name, count = branch.sink.name, branch.written
                    self._fail(PipelineError(f"{name} ended by itself after {count} frames"))
            finally:
                # What had not reached the sink's file when that was cut short is not delivered.
                output = getattr(branch.sink, "output", None)
                if output is not None and not output.complete:
                    branch.written = min(branch.written, output.frames)
                branch.channel.stop()

    def _delivered(self, frame: Frame) -> None:
        now = time.perf_counter()
        if self.first_frame_at is None:
            self.first_frame_at = now
        self.latency.add(now - frame.captured_at)

    def _fail(self, error: BaseException, lane: Lane | None = None) -> None:
        with self._lock:
            if not self._failed:
                self._failed = True
                self._error = error
                if lane is not None:
                    lane.failed = True
        self._stop_lanes()
        for branch in self._branches:
            branch.channel.stop()
        self._interrupt_others()

    def _interrupt_others(self) -> None:
        """Wakes the source and sinks that wait for somebody, and not at a channel."""
        for waiting in (self._source, *(branch.sink for branch in self._branches)):
            _interrupt(waiting)

    def _stop_lanes(self) -> None:
        for lane in self._lanes:
            lane.channel.stop()
            if lane.stage.interrupt is not None:
                lane.stage.interrupt()

    def _raise(self) -> None:
        """Raises the first error, once, and lets go of it: its traceback holds this pipeline, and a
        circle of the two would keep every picture in it until the garbage collector comes.
        """
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error

    def _close(self) -> None:
        """Stops what still runs, waits for every thread and draws up the accounts, once."""
        if self._closed:
            return
        self._closed = True
        self._stop_lanes()
        _interrupt(self._source)  # not the sinks: one may wait for its user to have seen the end
        for branch in self._branches:
            # What the sinks were given is still written; after an error they are stopped already.
            branch.channel.end()
        for thread in self._threads:
            thread.join()
        self.wall_s = time.perf_counter() - self._started_at
        self._account(time.process_time() - self._cpu_at)

    def _account(self, cpu_s: float) -> None:
        account(
            self.ledger,
            self._lanes,
            self._branches,
            captured=self._captured,
            handed_out=self._handed_out,
            delivered=self.delivered,
        )
        self.ledger.outages = getattr(self._source, "outages", None)
        for cause, count in self._source.lost.items():
            self.ledger.lose(cause, count)
        self.stage_stats = self._measure(cpu_s)
        self.bottleneck = find_bottleneck(self.stage_stats, wall_s=self.wall_s, cpu_s=cpu_s)

    def _measure(self, cpu_s: float) -> list[StageStats]:
        waited = None if self._core_wait is None else self._core_wait.so_far_s
        live = self._source.live
        return measure(self._lanes, self._branches, cpu_s, live=live, others_core_wait_s=waited)

    @property
    def threads_cpu_s(self) -> float:
        """Processor time that this pipeline's own threads have used, once it has ended."""
        meters = [lane.meter for lane in self._lanes] + [b.meter for b in self._branches]
        return sum(meter.cpu_s for meter in meters)

    @property
    def engine_busy_s(self) -> float:
        """Seconds for which the engine was at work for this pipeline."""
        return sum(lane.stage.busy_s() for lane in self._lanes if lane.stage.busy_s is not None)

    def settle(self, *, cpu_s: float, cores: float, engine_busy_s: float) -> None:
        """Draws up the stages' times anew, for a pipeline that was not alone in its process.

        `cpu_s` is what was used on its behalf, `cores` its part of them, and `engine_busy_s` how
        long the engine was at work meanwhile, for whomever: that is what may hold it back.
        """
        self.stage_stats = self._measure(cpu_s)
        rows = list(self.stage_stats)
        for i, lane in enumerate(self._lanes):
            if lane.stage.busy_s is not None:
                rows[i] = replace(rows[i], busy_s=engine_busy_s)
        self.bottleneck = find_bottleneck(rows, wall_s=self.wall_s, cpu_s=cpu_s, cores=cores)


def _interrupt(waiting: object) -> None:
    """Wakes a source or sink that can be woken."""
    interrupt = getattr(waiting, "interrupt", None)
    if interrupt is not None:
        interrupt()


_CAPTURE_ADVICE = (
    "reading and decoding is the limit: a smaller or less compressed source is read faster"
)
