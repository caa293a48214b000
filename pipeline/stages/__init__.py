"""What happens to a frame between its source and its sinks."""

from pipeline.stages.colorize import Look, colorize
from pipeline.stages.infer import infer
from pipeline.stages.preprocess import preprocess

__all__ = ["Look", "colorize", "infer", "preprocess"]
