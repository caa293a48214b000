"""How frames of live sources are kept fresh: what waits between the stages, and for how long."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from pipeline.channel import Channel
from pipeline.frame import Frame

if TYPE_CHECKING:  # the runner imports this module
    from pipeline.roles import Stage


def channels_behind(
    stages: Sequence[Stage], *, live: bool, max_latency_s: float | None = None
) -> list[Channel[Frame]]:
    """The channel behind each stage, the first of which is the capture.

    A file's frames queue, and none is lost. Of a live source's only the newest waits: up to the
    engine it gives way to a newer one, so that what goes in is never older than one pass through
    the stages before; behind it no more wait than the engine needs to be kept busy. With
    `max_latency_s` a frame that is older is not handed on, to the engine or to the sinks.
    """
    if not live:
        return [Channel(stage.ahead) for stage in stages]
    engine_at = next((i for i, stage in enumerate(stages) if stage.busy_s is not None), 1)
    channels: list[Channel[Frame]] = []
    for i, stage in enumerate(stages):
        # What the engine has, it finishes; its own queue must be full, or it is not as fast.
        engine = stage.busy_s is not None
        channel: Channel[Frame] = Channel(
            stage.ahead if engine else 1, "drop_oldest" if i < engine_at else "block"
        )
        if max_latency_s is not None and not engine:
            channel.is_late = partial(_is_older, max_latency_s)
        channels.append(channel)
    return channels


def _is_older(limit_s: float, frame: Frame) -> bool:
    return time.perf_counter() - frame.captured_at > limit_s
