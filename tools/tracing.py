"""`--trace`: recording a run for the commands that have the option."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from engines.engine import Engine
from pipeline.nvtx import nvtx_ranges
from pipeline.perfetto import write_trace
from pipeline.trace import Recorder
from tools.progress import Printer


def tracing(engine: Engine) -> Recorder:
    """A recorder for one pipeline with this engine; NVTX ranges too where that is on a GPU."""
    return Recorder(nvtx_ranges(gpu=engine.info.name == "tensorrt"))


def save_trace(trace: Recorder, path: Path, source: str, engine: Engine, say: Printer) -> None:
    """Writes what a run that has ended was recorded as; raises SinkError if that cannot be."""
    about = {"source": source, "model": engine.card.name, "engine": asdict(engine.info)}
    events = write_trace(trace, path, about)
    say.note(f"trace   {path} ({events} events; ui.perfetto.dev opens it)")
