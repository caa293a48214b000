"""Where frames come from: `open_source` finds the right kind for what a user names."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.sources.file import FileSource
    from pipeline.sources.images import ImageSource
    from pipeline.sources.info import AudioTap, SourceInfo
    from pipeline.sources.live.options import LiveOptions
    from pipeline.sources.live.source import LiveSource
    from pipeline.sources.open import open_recorded, open_source
    from pipeline.sources.synthetic import SyntheticSource

    AnySource = FileSource | ImageSource | LiveSource | SyntheticSource

__all__ = [
    "AnySource",
    "AudioTap",
    "FileSource",
    "ImageSource",
    "LiveOptions",
    "LiveSource",
    "SourceInfo",
    "SyntheticSource",
    "open_recorded",
    "open_source",
]

# Imported on first use: the process that reads a live source lies in this package, and the time
# that it takes to start is part of every reconnection.
_WHERE = {
    "AudioTap": "pipeline.sources.info",
    "FileSource": "pipeline.sources.file",
    "ImageSource": "pipeline.sources.images",
    "LiveOptions": "pipeline.sources.live.options",
    "LiveSource": "pipeline.sources.live.source",
    "SourceInfo": "pipeline.sources.info",
    "SyntheticSource": "pipeline.sources.synthetic",
    "open_recorded": "pipeline.sources.open",
    "open_source": "pipeline.sources.open",
}


def __getattr__(name: str) -> Any:
    if name == "AnySource":
        from pipeline.sources.file import FileSource
        from pipeline.sources.images import ImageSource
        from pipeline.sources.live.source import LiveSource
        from pipeline.sources.synthetic import SyntheticSource

        return FileSource | ImageSource | LiveSource | SyntheticSource
    if name not in _WHERE:
        raise AttributeError(f"module 'pipeline.sources' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)
