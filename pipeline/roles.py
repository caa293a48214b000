"""What takes part in a run: a source, stages and sinks, each a generator of frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.channel import Policy
from pipeline.frame import Frame

Frames = Iterator[Frame]


@dataclass(frozen=True)
class Stage:
    """A named generator function, frames in, frames out, one for one and in order.

    Set-up and clean-up are `with` blocks inside `run`; they open and close in the stage's own
    thread, whatever ends the run.
    """

    name: str
    run: Callable[[Frames], Frames]
    advice: str = ""
    """What to do when this stage is the bottleneck."""
    ahead: int = 4
    """Frames that may wait behind this stage."""
    busy_s: Callable[[], float] | None = None
    """Seconds at work so far, for a stage whose work happens in other threads or devices."""
    interrupt: Callable[[], None] | None = None
    """Wakes the stage where it waits by itself; called from another thread when the run stops."""


class Source(Protocol):
    """Where frames come from. `frames` may be called once.

    A source whose reads may wait for ever also has `interrupt()`: called by any thread, any number
    of times, it makes them raise StoppedError from then on. A live one may have `outages`.
    """

    @property
    def name(self) -> str: ...
    @property
    def live(self) -> bool: ...
    @property
    def lost(self) -> dict[str, int]:
        """Frames that could not be captured so far, by cause."""
        ...

    def frames(self) -> Frames: ...


class Sink(Protocol):
    """Where frames go. `run` yields each frame once it is safely out, or shown.

    One with `reads_labels = False` takes frames that have none; one with `takes_card_pictures` has
    no need of `picture` on the host.
    """

    @property
    def name(self) -> str: ...
    @property
    def advice(self) -> str: ...
    @property
    def policy(self) -> Policy:
        """`block` for what must get every frame, `drop_oldest` for viewers."""
        ...

    def run(self, frames: Frames) -> Frames: ...


def chain(source: Source, stages: Sequence[Stage]) -> Frames:
    """The same frames without threads: the reference that a pipeline is compared with."""
    frames = source.frames()
    for stage in stages:
        frames = stage.run(frames)
    return frames
