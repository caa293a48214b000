"""Real-time segmentation of video, from Python.

    from pipeline import segment

    with segment("street.mp4") as frames:
        for frame in frames:
            print(frame.time_s, frame.labels.shape)   # uint8 (H, W) class ids

`segment` is the short way. The parts it is made of (open a source, load an engine, chain stages,
attach sinks, run) are public too; docs/api.md walks through them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.api import segment
    from pipeline.errors import PipelineError, SinkError, SourceError
    from pipeline.frame import Frame
    from pipeline.roles import Stage, chain
    from pipeline.runner import Pipeline
    from pipeline.sources import open_source

# Imported on first use: `import pipeline` must not cost what OpenCV, FFmpeg and OpenVINO cost.
_WHERE = {
    "Frame": "pipeline.frame",
    "Pipeline": "pipeline.runner",
    "PipelineError": "pipeline.errors",
    "SinkError": "pipeline.errors",
    "SourceError": "pipeline.errors",
    "Stage": "pipeline.runner",
    "chain": "pipeline.runner",
    "open_source": "pipeline.sources",
    "segment": "pipeline.api",
}

__all__ = [
    "Frame",
    "Pipeline",
    "PipelineError",
    "SinkError",
    "SourceError",
    "Stage",
    "chain",
    "open_source",
    "segment",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)
