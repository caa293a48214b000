"""What `streamseg run` does for live sources alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from pipeline.errors import PipelineError
from pipeline.runner import Pipeline
from pipeline.sources import AnySource, LiveOptions, LiveSource
from tools.config import RunConfig


def live_options(ask: RunConfig) -> LiveOptions:
    """How a live source is to be read."""
    return LiveOptions(
        reconnect=ask.reconnect,
        open_timeout_s=ask.open_timeout,
        stall_timeout_s=ask.stall_timeout,
        rtsp_transport=ask.rtsp_transport,
        camera_size=ask.camera_size,
        camera_fps=ask.camera_fps,
    )


def check_live(ask: RunConfig, source: AnySource) -> None:
    """Refuses what only a live source can do; closes the source then."""
    if ask.max_latency is not None and not source.live:
        with suppress(Exception):
            source.close()
        raise PipelineError(
            f"--max-latency is for live sources; of {source.name} every frame is read"
        )


def live_notes(ask: RunConfig, source: AnySource, pipeline: Pipeline) -> Iterator[str]:
    """What else is to be said after a run."""
    if isinstance(source, LiveSource) and source.damaged:
        yield f"warning: {source.damaged} frames of {source.name} were damaged on their way"
    ledger = pipeline.ledger
    if ledger.captured and ledger.dropped.get("late", 0) > ledger.captured // 2:
        yield (
            f"warning: most frames were older than --max-latency {ask.max_latency:g}; allow more, "
            "or take a smaller model"
        )
