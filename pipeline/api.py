"""The short way: a source and a model in, segmented frames out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from engines.choose import load_engine
from engines.cuda.network import DeviceEngine
from engines.engine import Engine
from engines.errors import EngineUnavailableError
from engines.model import DEFAULT
from pipeline.roles import Frames, Stage
from pipeline.runner import Pipeline
from pipeline.sources import LiveOptions, open_source
from pipeline.stages import Controls, Look, colorize, infer, preprocess
from pipeline.stages.lane import lane_stages


@contextmanager
def segment(
    source: str | Path,
    model: str | Path | Engine = DEFAULT,
    *,
    look: Look | Controls | None = None,
    smooth: bool = False,
    every: int = 1,
    start_s: float = 0.0,
    duration_s: float | None = None,
    max_frames: int | None = None,
    live: LiveOptions | None = None,
    max_latency_s: float | None = None,
    say: Callable[[str], None] = lambda line: None,
    **engine_options: Any,
) -> Iterator[Frames]:
    """Frames of `source` with `labels` (uint8 (H, W) class ids) and `picture` (uint8 (H, W, 3)
    RGB), in order, computed ahead in threads of their own.

    With `smooth` labels hold still where the picture does; of `every` so many frames the network
    sees one, and the others get its labels, moved as the picture.
    `model` is a name, an .onnx file with its card, or an engine that the caller keeps;
    `engine_options` go to `engines.choose.load_engine`. `live`, `max_latency_s` (seconds) and `say`
    are for streams and cameras: how they are read, how old a frame may be, and who is told when the
    link is lost and back. Leaving the block stops everything.
    Raises PipelineError or EngineError, whatever a thread met first.
    """
    opened = open_source(
        source,
        start_s=start_s,
        duration_s=duration_s,
        max_frames=max_frames,
        live=live,
        say=say,
    )
    with closing(opened), ExitStack() as ours:
        if isinstance(model, (str, Path)):
            engine = ours.enter_context(load_engine(model, **engine_options))
        elif engine_options:
            raise TypeError(f"an engine is loaded already: {', '.join(engine_options)}")
        else:
            engine = model  # the caller closes it
        stages = stages_for(engine, look, smooth, every, live=opened.live, say=say)
        with Pipeline(opened, stages, max_latency_s=max_latency_s) as pipeline:
            yield iter(pipeline)


def stages_for(
    engine: Engine,
    look: Look | Controls | None = None,
    smooth: bool = False,
    every: int = 1,
    *,
    live: bool = False,
    labels: bool = True,
    stay: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> list[Stage]:
    """The stages between source and sinks for an engine and its card.

    An engine on an NVIDIA GPU resizes and paints there, too. Then frames have `labels` only if
    these are wanted, and no frame of a `live` source waits for others to make up a batch. With
    `stay` pictures that were decoded there are painted in place and stay there. `say` is told where
    the processor does it all the same, and why.
    """
    controls = look if isinstance(look, Controls) else Controls(look)
    if isinstance(engine, DeviceEngine):
        why = "--smooth works there" if smooth else "--every works there" if every > 1 else ""
        if not why:
            try:
                return lane_stages(
                    engine,
                    controls,
                    batch=1 if live else engine.batch,
                    labels=labels,
                    stay=stay,
                    say=say,
                )
            except EngineUnavailableError as error:
                why = str(error)
        say(f"note: pictures are resized and painted on the processor: {why}")
    return [
        preprocess(engine.card),
        infer(engine, keep_input=smooth or every > 1, every=every, live=live),
        colorize(engine.card, controls, smooth=smooth, carry=every > 1),
    ]
