"""The report of a run as JSON, schema 1."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engines.engine import Engine
from pipeline.runner import Pipeline
from pipeline.sinks import Output
from pipeline.sinks.destination import disk_errors
from pipeline.sinks.images import write_whole


def make_report(
    *,
    source: str,
    engine: Engine,
    pipeline: Pipeline,
    outputs: list[Output],
    every: int,
    flicker: dict[str, Any] | None,
    first_frame_s: float | None,
    error: Exception | None,
) -> dict[str, Any]:
    """The report's keys, which docs/report.md explains; a time's unit ends its name."""
    wall_s = pipeline.wall_s
    bottleneck = pipeline.bottleneck
    return {
        "schema": 1,
        "source": source,
        "model": engine.card.name,
        "engine": asdict(engine.info),
        "every": every,
        "frames": pipeline.ledger.as_dict(),
        "fps": round(pipeline.delivered / wall_s, 3) if wall_s else 0.0,
        "wall_s": round(wall_s, 3),
        "first_frame_s": None if first_frame_s is None else round(first_frame_s, 3),
        "latency_ms": pipeline.latency.as_dict(),
        "stages": [stage.as_dict() for stage in pipeline.stage_stats],
        "bottleneck": None if bottleneck is None else bottleneck.as_dict(),
        "flicker": flicker,
        "outputs": [output.as_dict() for output in outputs],
        "interrupted": pipeline.interrupted,
        "error": None if error is None else str(error),
    }


def write_report(path: Path, report: dict[str, Any]) -> None:
    """Writes the report, whole or not at all."""
    with disk_errors(path):
        write_whole(path, (json.dumps(report, indent=2) + "\n").encode())
