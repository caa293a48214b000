"""Figures as PNG, by matplotlib where it is installed."""

# mypy: disable-error-code="import-not-found, unused-ignore"

from __future__ import annotations

import io
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pipeline.sinks.destination import disk_errors
from pipeline.sinks.images import write_whole
from tools.errors import ToolError

_DPI = 110


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def require_plots(what: str) -> None:
    """Raises ToolError, before any work is done, where figures cannot be drawn."""
    if not can_draw():
        raise ToolError(f"{what} needs matplotlib; pip install 'streamseg[plots]'")


def figure(width: float, height: float, columns: int = 1) -> tuple[Any, list[Any]]:
    """A figure of so many inches and its axes, side by side. No window system takes part."""
    from matplotlib.figure import Figure

    made = Figure((width, height), dpi=_DPI, layout="constrained")
    return made, list(made.subplots(1, columns, squeeze=False)[0])


def save_figure(made: Any, path: Path) -> None:
    """Writes the figure as PNG, whole or not at all."""
    data = io.BytesIO()
    # Without matplotlib's own mark the same figure is the same file.
    made.savefig(data, format="png", metadata={"Software": None})
    with disk_errors(path):
        write_whole(path, data.getvalue())
