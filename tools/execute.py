"""One run, from opening the source to the last line of the summary."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import cv2

from engines.choose import load_engine
from engines.engine import Engine
from engines.errors import EngineError
from engines.model import Model, find_model
from pipeline.errors import PipelineError
from pipeline.runner import Pipeline
from pipeline.sinks import StatisticsSink, open_mask, open_output
from pipeline.sinks.destination import check_file
from pipeline.sources import AnySource, open_source
from pipeline.stages import Look, colorize, infer, preprocess
from tools import STARTED_AT
from tools.config import RunConfig
from tools.interrupt import interruptible
from tools.progress import Printer
from tools.report import make_report, write_report


def execute(ask: RunConfig) -> int:
    """Runs and returns the exit code; raises PipelineError or EngineError once it has printed what
    there is to keep.
    """
    # The network has the cores; OpenCV's own threads would only fight it for them.
    cv2.setNumThreads(1)
    say = Printer(quiet=ask.quiet)
    with interruptible(say.note) as interrupt:
        # Whatever is wrong with the request shows before the network is loaded.
        model = find_model(ask.model, Path(ask.card) if ask.card else None)
        look = _look(ask, model)
        source = open_source(
            ask.source,
            start_s=ask.start,
            duration_s=ask.duration,
            max_frames=ask.max_frames,
            fps=ask.fps,
        )
        with closing(source):
            sinks = _sinks(ask, source, model)
            with load_engine(
                model,
                engine=ask.engine,
                precision=ask.precision,
                device=ask.device,
                say=say.note,
            ) as engine:
                _announce(say, source, engine, sinks)
                stages = [preprocess(engine.card), infer(engine), colorize(engine.card, look)]
                pipeline = Pipeline(source, stages, sinks)
                return _stream(ask, say, interrupt, source, engine, pipeline, sinks)


def _stream(
    ask: RunConfig,
    say: Printer,
    interrupt: Any,
    source: AnySource,
    engine: Engine,
    pipeline: Pipeline,
    sinks: list[Any],
) -> int:
    error: Exception | None = None
    try:
        with interrupt.stopping(pipeline.stop), say.progress(source.info.frames, pipeline) as tick:
            pipeline.run(lambda frame: tick())
    except (PipelineError, EngineError) as caught:
        error = caught
    for sink in sinks:
        for note in sink.notes:
            say.note(note)
    outputs = [sink.output for sink in sinks]
    say.summary(pipeline, outputs)
    if ask.report is not None:
        first = pipeline.first_frame_at
        report = make_report(
            source=source,
            engine=engine,
            pipeline=pipeline,
            outputs=outputs,
            first_frame_s=None if first is None else first - STARTED_AT,
            error=error,
        )
        write_report(Path(ask.report), report)
    if error is not None:
        raise error
    return 130 if pipeline.interrupted else 0


def _look(ask: RunConfig, model: Model) -> Look:
    chosen = None if ask.classes is None else tuple(model.card.class_ids(ask.classes))
    return Look(overlay=ask.overlay, classes=chosen, legend=ask.legend, contours=ask.contours)


def _sinks(ask: RunConfig, source: AnySource, model: Model) -> list[Any]:
    targets = [*ask.output, *(t for t in (ask.mask, ask.stats, ask.report) if t is not None)]
    for target in targets:
        if targets.count(target) > 1:
            raise PipelineError(f"{target} is named twice as an output; each needs its own")
        if Path(target).exists() and Path(target).resolve() == Path(source.name).resolve():
            raise PipelineError(f"{target} is the source itself; name another output")
    sinks: list[Any] = [
        open_output(path, source, encoder=ask.encoder, quality=ask.quality, force=ask.force)
        for path in ask.output
    ]
    if ask.mask is not None:
        sinks.append(open_mask(ask.mask, source, model.card, force=ask.force))
    if ask.stats is not None:
        path = Path(ask.stats)
        sinks.append(StatisticsSink(path, model.card.classes, rle=ask.rle, force=ask.force))
    elif ask.rle:
        raise PipelineError("--rle adds masks to statistics; name their file with --stats")
    if ask.report is not None:
        check_file(Path(ask.report), ask.force)
    return sinks


def _announce(say: Printer, source: AnySource, engine: Engine, sinks: list[Any]) -> None:
    info, runs = source.info, engine.info
    rate = f", {float(info.rate):.2f} fps" if info.rate else ""
    count = f", {info.frames} frames" if info.frames else ""
    say.note(f"source  {source.name}: {info.width}x{info.height} {info.codec}{rate}{count}")
    card = engine.card
    say.note(
        f"model   {card.name}: {card.input.height}x{card.input.width}, {len(card.classes)} classes"
    )
    say.note(f"engine  {runs.name} {runs.version}, {runs.precision} on {runs.device} ({runs.why})")
    for sink in sinks:
        say.note(f"output  {sink.output.path} ({sink.output.codec})")
    if not sinks:
        say.note("output  none: this only measures; -o writes a video")
