"""Hands pictures to the engine, several at a time."""

from __future__ import annotations

from collections import deque
from contextlib import suppress

from engines.engine import Engine, Pending
from engines.errors import EngineError
from pipeline.roles import Frames, Stage
from pipeline.stages.carry import Turns
from pipeline.stats import engine_wait


def infer(engine: Engine, *, keep_input: bool = False, every: int = 1, live: bool = False) -> Stage:
    """Fills in `pending` from `tensor` and passes the frame on at once.

    Of `every` so many frames the network sees the first, and the first after a cut, a gap or a
    change of size; the others get no `pending`.

    Who asks for the result is the next stage; the channel between them, one frame in each of
    their hands and the engine's own limit bound what is in flight to `engine.depth` submissions.
    With `keep_input` that stage gets `tensor`, too, and lets go of it.

    Of a `live` source only half as many are: those that an engine computes, and none that wait in
    its queue while newer ones come. A queue saves it a millisecond between two pictures; a picture
    in it ages by as much as it takes to compute one.
    """
    begun = engine.busy_s
    most = max(1, engine.depth // 2)

    def run(frames: Frames) -> Frames:
        seen = Turns(every)
        flying: deque[Pending] = deque()
        for frame in _when_free(frames, flying, most) if live else frames:
            assert frame.tensor is not None
            if every == 1 or seen.due(frame, frame.tensor[0]):
                frame.pending = engine.submit(frame.tensor)
                if live:
                    flying.append(frame.pending)
            if not keep_input:
                frame.tensor = None  # the submission keeps it for as long as the engine reads it
            yield frame

    return Stage(
        "infer",
        run,
        "the network is the limit: a smaller model or input, a lower precision or faster "
        "hardware raises the rate",
        ahead=max(1, engine.depth * (1 if live else every) - 2),
        busy_s=lambda: engine.busy_s - begun,
    )


def _when_free(frames: Frames, flying: deque[Pending], most: int) -> Frames:
    """Takes a frame only once fewer than `most` are under way: until then it may be replaced."""
    while True:
        while len(flying) >= most:
            with engine_wait(), suppress(EngineError):  # a failure is told who asks for the labels
                flying.popleft().result()
        frame = next(frames, None)
        if frame is None:
            return
        yield frame
