"""What can go wrong in the commands themselves, as one tree: `ToolError` catches all of it."""

from __future__ import annotations


class ToolError(Exception):
    """A command cannot do what was asked; the message says what is wrong, and what to do."""


def error_line(error: Exception) -> str:
    """What a user is told of an error, in one line; what nobody foresaw is called a bug."""
    from engines.errors import EngineError
    from pipeline.errors import PipelineError

    line = " ".join(str(error).split())
    if isinstance(error, (EngineError, PipelineError, ToolError)):
        return line
    return f"{type(error).__name__}: {line} (a bug in streamseg: --debug shows where)"


class DataError(ToolError):
    """Labelled pictures are missing, unreadable, or do not fit their description."""


class TrainError(ToolError):
    """A training cannot start, go on or end well."""
