"""Hands pictures to the engine, several at a time."""

from __future__ import annotations

from engines.engine import Engine
from pipeline.roles import Frames, Stage
from pipeline.stages.carry import Turns


def infer(engine: Engine, *, keep_input: bool = False, every: int = 1) -> Stage:
    """Fills in `pending` from `tensor` and passes the frame on at once.

    Of `every` so many frames the network sees the first, and the first after a cut, a gap or a
    change of size; the others get no `pending`.

    Who asks for the result is the next stage; the channel between them, one frame in each of
    their hands and the engine's own limit bound what is in flight to `engine.depth`. With
    `keep_input` that stage gets `tensor`, too, and lets go of it.
    """
    begun = engine.busy_s

    def run(frames: Frames) -> Frames:
        seen = Turns(every)
        for frame in frames:
            assert frame.tensor is not None
            if every == 1 or seen.due(frame, frame.tensor[0]):
                frame.pending = engine.submit(frame.tensor)
            if not keep_input:
                frame.tensor = None  # the submission keeps it for as long as the engine reads it
            yield frame

    return Stage(
        "infer",
        run,
        "the network is the limit: a smaller model or input, a lower precision or faster "
        "hardware raises the rate",
        ahead=max(1, engine.depth - 2),
        busy_s=lambda: engine.busy_s - begun,
    )
