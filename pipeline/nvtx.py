"""Each stage's work as NVTX ranges, which Nsight Systems shows above what the GPU does."""

# mypy: disable-error-code="import-not-found, unused-ignore"

from __future__ import annotations

import threading
from importlib import import_module
from typing import Any


class NvtxRanges:
    """Opens and closes one range a thread. `nvtx` is the module of that name."""

    def __init__(self, nvtx: Any) -> None:
        self._nvtx = nvtx
        self._open = threading.local()

    def enter(self, name: str) -> None:
        """The calling thread is at work on a frame; it may be already."""
        if not getattr(self._open, "name", None):
            self._nvtx.push_range(name)
            self._open.name = name

    def leave(self, name: str) -> None:
        """The calling thread is no longer at work; it may not have been."""
        if getattr(self._open, "name", None):
            self._nvtx.pop_range()
            self._open.name = None


def nvtx_ranges(gpu: bool) -> NvtxRanges | None:
    """Ranges where there is a GPU to see beside them and `nvtx` is installed; elsewhere None."""
    if not gpu:
        return None
    try:
        return NvtxRanges(import_module("nvtx"))
    except ImportError:
        return None
