"""What can go wrong with frames in motion, as one tree: `PipelineError` catches all of it."""

from __future__ import annotations


class PipelineError(Exception):
    """Something in the pipeline failed; the message says what, and what to do."""


class SourceError(PipelineError):
    """A source cannot be opened or read."""


class SinkError(PipelineError):
    """A destination cannot be opened or written."""


class LedgerError(PipelineError):
    """Frames were lost without a cause: a bug in a stage, never a user's mistake."""


class StoppedError(PipelineError):
    """The pipeline is stopping. Raised inside stages so that their `with` blocks close.

    A stage lets it pass; it never reaches the caller of a pipeline.
    """
