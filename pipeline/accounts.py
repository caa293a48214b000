"""What a run's books say at its end: where every frame went, and what each stage did and waited."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.channel import Channel
from pipeline.frame import Frame
from pipeline.ledger import Ledger
from pipeline.roles import Sink, Stage
from pipeline.stats import Meter, StageStats


@dataclass
class Branch:
    """A sink's side of the fan-out."""

    sink: Sink
    channel: Channel[Frame]
    meter: Meter
    written: int = 0
    exhausted: bool = False
    """Whether its input has come to its end; if so, the sink must have written every frame."""
    failed: bool = False


@dataclass
class Lane:
    """A stage's side of the main path: the stage, its clock and the channel behind it."""

    stage: Stage
    channel: Channel[Frame]
    meter: Meter
    exhausted: bool = False
    """Whether its input has come to its end."""
    completed: bool = False
    """Whether it then came to its own end, and so must have passed on every frame."""
    failed: bool = False
    """Whether the run's first error was its."""


def account(
    ledger: Ledger,
    lanes: Sequence[Lane],
    branches: Sequence[Branch],
    *,
    captured: int,
    handed_out: int,
    delivered: int,
) -> None:
    """Draws up the ledger once every thread has ended, and lets go of frames left in channels.

    `captured` frames came from the source, `handed_out` left the last stage, `delivered` reached
    every file sink, or the caller where there is none.
    """
    ledger.captured = taken = captured
    for lane in lanes:
        channel = lane.channel
        held = max(0, taken - channel.accepted)  # less: a doubled frame, for `check` to find
        if lane.failed:
            ledger.failed += held
        elif not lane.completed:
            ledger.drop("stopped", held)
        # else: a stage that came to its end holds nothing; if it does, the balance shows it.
        ledger.drop("stale", channel.dropped)
        ledger.drop("late", channel.late)
        ledger.drop("stopped", len(channel))
        channel.clear()  # whoever keeps the pipeline for its ledger shall not keep pictures
        taken = channel.taken
    ledger.delivered = delivered
    rest = max(0, handed_out - delivered)
    blocking = [b for b in branches if b.channel.policy == "block"]
    whole = [b.exhausted and b.channel.taken == handed_out for b in blocking]
    if any(b.failed for b in blocking):
        ledger.failed += rest
    elif not whole or not all(whole):
        ledger.drop("stopped", rest)
    # else: the sinks got every frame; if they have not written all, the balance shows it.
    for branch in branches:
        if branch.channel.policy != "block":
            # What gave way to newer frames, what was left, and what it took and could not show.
            unseen = branch.channel.accepted - branch.written
            branch.channel.clear()
            # What only takes samples has nothing to show, and leaves frames out on purpose.
            if unseen and not getattr(branch.sink, "samples", False):
                before = ledger.skipped.get(branch.sink.name, 0)
                ledger.skipped[branch.sink.name] = before + unseen


def measure(
    lanes: Sequence[Lane],
    branches: Sequence[Branch],
    cpu_s: float,
    *,
    live: bool,
    others_core_wait_s: float | None = None,
) -> list[StageStats]:
    """A row for each stage and sink, in order; `cpu_s` is what the whole process has used, and
    `others_core_wait_s` for how long its threads that are not a stage's waited for a core.

    Who reads a `live` source waits for the world to go on, which is no work: there the capture is
    busy for as long as it used a processor.
    """
    rows: list[StageStats] = []
    wait_in = 0.0
    for lane in lanes:
        meter, channel, stage = lane.meter, lane.channel, lane.stage
        if live and lane is lanes[0]:
            wait_in = max(0.0, meter.wall_s - meter.cpu_s - channel.put_wait_s)
        wait_in += meter.engine_wait_s
        busy = meter.wall_s - wait_in - channel.put_wait_s
        rows.append(
            StageStats(
                name=stage.name,
                frames=channel.accepted,
                busy_s=max(0.0, busy) if stage.busy_s is None else stage.busy_s(),
                cpu_s=meter.cpu_s,
                wait_in_s=wait_in,
                wait_out_s=channel.put_wait_s,
                advice=stage.advice,
                core_wait_s=meter.core_wait_s if stage.busy_s is None else others_core_wait_s,
                elsewhere=stage.busy_s is not None,
            )
        )
        wait_in = channel.get_wait_s
    for branch in branches:
        waited = branch.channel.get_wait_s
        rows.append(
            StageStats(
                name=branch.sink.name,
                frames=branch.written,
                busy_s=max(0.0, branch.meter.wall_s - waited),
                cpu_s=branch.meter.cpu_s,
                wait_in_s=waited,
                wait_out_s=0.0,
                advice=branch.sink.advice,
                core_wait_s=branch.meter.core_wait_s,
            )
        )
    # What no stage's own thread has used was used on behalf of the stage that works elsewhere.
    unclaimed = max(0.0, cpu_s - sum(s.cpu_s for s in rows))
    for i, lane in enumerate(lanes):
        if lane.stage.busy_s is not None:
            rows[i] = replace(rows[i], cpu_s=rows[i].cpu_s + unclaimed)
            unclaimed = 0.0
    return rows
