"""How many threads each part gets, planned together and not each for itself.

The network takes most of the processor and brings its own threads. Decoder, encoder and OpenCV
are given few, so that they do not fight it for the cores; on a machine with two, one each.
"""

from __future__ import annotations

from dataclasses import dataclass

from engines.cores import available_cores


@dataclass(frozen=True)
class ThreadPlan:
    """Threads for each video decoder and for each encoder."""

    decode: int
    encode: int


_side_by_side = 1


def expect_pipelines(count: int) -> None:
    """How many pipelines this process will run side by side, which share the cores; a program says
    so before it opens sources and sinks.
    """
    global _side_by_side
    _side_by_side = count


def plan_threads(cores: int | None = None) -> ThreadPlan:
    """A quarter of a pipeline's cores to decode and to encode, at least one and at most eight."""
    cores = (cores or available_cores()) // _side_by_side
    share = min(8, max(1, cores // 4))
    return ThreadPlan(decode=share, encode=share)
