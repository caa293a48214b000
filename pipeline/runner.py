"""Runs a source, stages and sinks, a thread each, until the end, a stop or the first error."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Protocol

from typing_extensions import Self

from pipeline.channel import Channel, Policy
from pipeline.errors import PipelineError, StoppedError
from pipeline.frame import Frame
from pipeline.ledger import Ledger
from pipeline.stats import Bottleneck, Histogram, Meter, StageStats, find_bottleneck

Frames = Iterator[Frame]


@dataclass(frozen=True)
class Stage:
    """A named generator function, frames in, frames out, one for one and in order.

    Set-up and clean-up are `with` blocks inside `run`; they open and close in the stage's own
    thread, whatever ends the run.
    """

    name: str
    run: Callable[[Frames], Frames]
    advice: str = ""
    """What to do when this stage is the bottleneck."""
    ahead: int = 4
    """Frames that may wait behind this stage."""
    busy_s: Callable[[], float] | None = None
    """Seconds at work so far, for a stage whose work happens in other threads or devices."""


class Source(Protocol):
    """Where frames come from. `frames` may be called once."""

    @property
    def name(self) -> str: ...
    @property
    def live(self) -> bool: ...
    @property
    def lost(self) -> dict[str, int]:
        """Frames that could not be captured so far, by cause."""
        ...

    def frames(self) -> Frames: ...


class Sink(Protocol):
    """Where frames go. `run` yields each frame once it is safely out, or shown."""

    @property
    def name(self) -> str: ...
    @property
    def advice(self) -> str: ...
    @property
    def policy(self) -> Policy:
        """`block` for what must get every frame, `drop_oldest` for viewers."""
        ...

    def run(self, frames: Frames) -> Frames: ...


def chain(source: Source, stages: Sequence[Stage]) -> Frames:
    """The same frames without threads: the reference that a pipeline is compared with."""
    frames = source.frames()
    for stage in stages:
        frames = stage.run(frames)
    return frames


@dataclass
class _Branch:
    """A sink's side of the fan-out."""

    sink: Sink
    channel: Channel[Frame]
    meter: Meter
    written: int = 0
    exhausted: bool = False
    """Whether its input has come to its end; if so, the sink must have written every frame."""
    failed: bool = False


class Pipeline:
    """Frames from `source` through `stages`, to `sinks` and to whoever iterates.

        with Pipeline(source, stages, sinks) as pipeline:
            for frame in pipeline:
                ...

    Leaving the block stops and closes everything. The first error of any thread stops all the
    others and is raised here. `stop` may be called from any thread; what the sinks have been
    given by then is still written.
    """

    def __init__(
        self, source: Source, stages: Sequence[Stage], sinks: Sequence[Sink] = (), ahead: int = 4
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
        self._stages = [capture, *stages]
        policy: Policy = "drop_oldest" if source.live else "block"
        self._channels: list[Channel[Frame]] = [
            Channel(s.ahead, policy if i == 0 else "block") for i, s in enumerate(self._stages)
        ]
        self._meters = [Meter(s.name) for s in self._stages]
        self._branches = [_Branch(s, Channel(ahead, s.policy), Meter(s.name)) for s in sinks]
        self._blocking = [b for b in self._branches if b.channel.policy == "block"]
        self._exhausted = [False] * len(self._stages)
        """Whose input has come to its end."""
        self._completed = [False] * len(self._stages)
        """Which stages then came to their own end, and so must have passed on every frame."""
        self._failed_stage: int | None = None
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

    def __enter__(self) -> Self:
        if self._started_at:
            raise RuntimeError("a pipeline runs once; make a new one")
        self._started_at, self._cpu_at = time.perf_counter(), time.process_time()
        try:
            for i, stage in enumerate(self._stages):
                self._spawn(stage.name, self._run_stage, i)
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
            for frame in self._channels[-1]:
                self._handed_out += 1
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

    def _hand_over(self, frame: Frame, branch: _Branch) -> None:
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
        for channel in self._channels:
            channel.stop()

    @property
    def delivered(self) -> int:
        """Frames delivered so far."""
        return min((b.written for b in self._blocking), default=self._received)

    @property
    def dropped(self) -> int:
        """Frames of a live source that have given way to newer ones so far."""
        return sum(channel.dropped for channel in self._channels)

    def _spawn(self, name: str, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, name=name)
        thread.start()
        self._threads.append(thread)

    def _run_stage(self, i: int) -> None:
        outbound = self._channels[i]
        inbound = self._channels[i - 1] if i else None
        inputs = self._count_inputs(i)
        with self._meters[i].running():
            try:
                with closing(self._stages[i].run(inputs)) as frames:  # type: ignore[type-var]
                    for frame in frames:
                        if inbound is None:
                            self._captured += 1
                            frame.captured_at = frame.captured_at or time.perf_counter()
                        outbound.put(frame)
            except StoppedError:
                outbound.stop()
            except BaseException as error:
                self._fail(error, i)
            else:
                self._completed[i] = self._exhausted[i]
                outbound.end()
            finally:
                # A stage that ends before its input does leaves a producer that would wait for
                # ever; after the input's end this changes nothing.
                if inbound is not None:
                    inbound.stop()

    def _count_inputs(self, i: int) -> Frames:
        if i:
            yield from self._channels[i - 1]
        self._exhausted[i] = True

    @staticmethod
    def _sink_inputs(branch: _Branch) -> Frames:
        yield from branch.channel
        branch.exhausted = True

    def _run_sink(self, branch: _Branch) -> None:
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

    def _fail(self, error: BaseException, stage: int | None = None) -> None:
        with self._lock:
            if not self._failed:
                self._failed = True
                self._error, self._failed_stage = error, stage
        for channel in self._channels:
            channel.stop()
        for branch in self._branches:
            branch.channel.stop()

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
        for channel in self._channels:
            channel.stop()
        for branch in self._branches:
            # What the sinks were given is still written; after an error they are stopped already.
            branch.channel.end()
        for thread in self._threads:
            thread.join()
        self.wall_s = time.perf_counter() - self._started_at
        self._account()
        self._measure()

    def _account(self) -> None:
        ledger = self.ledger
        ledger.captured = taken = self._captured
        for i, channel in enumerate(self._channels):
            held = max(0, taken - channel.accepted)  # less: a doubled frame, for `check` to find
            if i == self._failed_stage:
                ledger.failed += held
            elif not self._completed[i]:
                ledger.drop("stopped", held)
            # else: a stage that came to its end holds nothing; if it does, the balance shows it.
            ledger.drop("stale", channel.dropped)
            ledger.drop("stopped", len(channel))
            channel.clear()  # whoever keeps the pipeline for its ledger shall not keep pictures
            taken = channel.taken
        ledger.delivered = self.delivered
        rest = max(0, self._handed_out - ledger.delivered)
        whole = [b.exhausted and b.channel.taken == self._handed_out for b in self._blocking]
        if any(b.failed for b in self._blocking):
            ledger.failed += rest
        elif not whole or not all(whole):
            ledger.drop("stopped", rest)
        # else: the sinks got every frame; if they have not written all, the balance shows it.
        for branch in self._branches:
            if branch.channel.policy != "block":
                unseen = branch.channel.dropped + len(branch.channel)
                branch.channel.clear()
                if unseen:
                    before = ledger.skipped.get(branch.sink.name, 0)
                    ledger.skipped[branch.sink.name] = before + unseen
        for cause, count in self._source.lost.items():
            ledger.lose(cause, count)

    def _measure(self) -> None:
        cpu_s = time.process_time() - self._cpu_at
        wait_in = 0.0
        for stage, meter, channel in zip(self._stages, self._meters, self._channels, strict=True):
            wait_in += meter.engine_wait_s
            busy = meter.wall_s - wait_in - channel.put_wait_s
            self.stage_stats.append(
                StageStats(
                    name=stage.name,
                    frames=channel.accepted,
                    busy_s=max(0.0, busy) if stage.busy_s is None else stage.busy_s(),
                    cpu_s=meter.cpu_s,
                    wait_in_s=wait_in,
                    wait_out_s=channel.put_wait_s,
                    advice=stage.advice,
                )
            )
            wait_in = channel.get_wait_s
        for branch in self._branches:
            waited = branch.channel.get_wait_s
            self.stage_stats.append(
                StageStats(
                    name=branch.sink.name,
                    frames=branch.written,
                    busy_s=max(0.0, branch.meter.wall_s - waited),
                    cpu_s=branch.meter.cpu_s,
                    wait_in_s=waited,
                    wait_out_s=0.0,
                    advice=branch.sink.advice,
                )
            )
        # What no stage's own thread has used was used on behalf of the stage that works elsewhere.
        unclaimed = max(0.0, cpu_s - sum(s.cpu_s for s in self.stage_stats))
        for i, stage in enumerate(self._stages):
            if stage.busy_s is not None:
                own = self.stage_stats[i]
                self.stage_stats[i] = replace(own, cpu_s=own.cpu_s + unclaimed)
                unclaimed = 0.0
        self.bottleneck = find_bottleneck(self.stage_stats, wall_s=self.wall_s, cpu_s=cpu_s)


_CAPTURE_ADVICE = (
    "reading and decoding is the limit: a smaller or less compressed source is read faster"
)
