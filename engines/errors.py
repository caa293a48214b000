"""What can go wrong with networks, as one tree: catch `EngineError` to catch all of it."""

from __future__ import annotations


class EngineError(Exception):
    """A network or the engine that runs it is at fault; the message says what to do."""


class CardError(EngineError):
    """A model card is missing, malformed, or does not describe its network."""


class ModelError(EngineError):
    """A model is unknown, unreadable, or not a segmentation network."""


class EngineUnavailableError(EngineError):
    """The engine, precision or device that was asked for does not work on this machine."""


class RefineError(EngineError):
    """A refinement is unknown, badly put, or needs what this model has not."""


class PictureError(EngineError):
    """What was submitted is not uint8 (N, height, width, 3) of the engine's size."""


class InferenceError(EngineError):
    """The engine failed on a picture; it remains usable for the next one."""


class CaptureError(EngineError):
    """A CUDA graph could not be captured or replayed; the same work can be done without one."""


class PlanError(EngineError):
    """A plan cannot be built, or is not good here; the message names the field that differs."""


class DriftError(PlanError):
    """A plan's masks differ too much from FP32's; the message names the classes that suffer."""


class BuildStoppedError(PlanError):
    """A build was asked to stop; nothing was kept."""


def one_line(error: BaseException, most: int = 300) -> str:
    """What somebody else's error says, without its line breaks, at most so many characters."""
    return " ".join(str(error).split())[:most]
