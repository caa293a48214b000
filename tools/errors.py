"""What can go wrong in the commands themselves, as one tree: `ToolError` catches all of it."""

from __future__ import annotations


class ToolError(Exception):
    """A command cannot do what was asked; the message says what is wrong, and what to do."""


class DataError(ToolError):
    """Labelled pictures are missing, unreadable, or do not fit their description."""


class TrainError(ToolError):
    """A training cannot start, go on or end well."""
