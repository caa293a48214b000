"""What happens to a frame between its source and its sinks."""

from pipeline.stages.colorize import colorize
from pipeline.stages.infer import infer
from pipeline.stages.look import Controls, Look
from pipeline.stages.pace import pace
from pipeline.stages.preprocess import preprocess

__all__ = ["Controls", "Look", "colorize", "infer", "pace", "preprocess"]
