"""One run, from opening the source to the last line of the summary."""

from __future__ import annotations

import glob
import re
from contextlib import ExitStack, closing, nullcontext
from pathlib import Path
from typing import Any

import cv2

from engines.choose import load_engine
from engines.engine import Engine
from engines.model import Model, find_model
from engines.refine import NONE
from pipeline.api import stages_for
from pipeline.errors import PipelineError
from pipeline.runner import Pipeline
from pipeline.sinks import StatisticsSink, is_stream, open_mask, open_output
from pipeline.sinks.destination import check_file
from pipeline.sinks.flicker import FlickerSink
from pipeline.sinks.window import WindowSink
from pipeline.sources import AnySource, ImageSource, open_source
from pipeline.stages import Controls, Look, pace
from pipeline.trace import Recorder
from tools import STARTED_AT
from tools.config import RunConfig
from tools.interrupt import interruptible
from tools.live import check_live, live_notes, live_options
from tools.progress import Printer
from tools.report import make_report, write_report
from tools.tracing import save_trace, tracing
from tools.viewing import is_paced, window_for
from tools.web import open_page


def execute(ask: RunConfig) -> int:
    """Runs and returns the exit code; raises PipelineError or EngineError once it has printed what
    there is to keep.
    """
    # The network has the cores; OpenCV's own threads would only fight it for them.
    cv2.setNumThreads(1)
    # Its log would stand beside our own line about the same picture.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    say = Printer(quiet=ask.quiet)
    with interruptible(say.note) as interrupt:
        # Whatever is wrong with the request shows before the network is loaded.
        card = Path(ask.card) if ask.card else None
        model = find_model(ask.model, card, say.note, weights=ask.weights, size=ask.size)
        controls = Controls(_look(ask, model))
        source = open_source(
            ask.source,
            start_s=ask.start,
            duration_s=ask.duration,
            max_frames=ask.max_frames,
            fps=ask.fps,
            live=live_options(ask),
            say=say.note,
        )
        check_live(ask, source)
        with closing(source), ExitStack() as opened:
            sinks = _sinks(ask, source, model, say)
            web = open_page(ask, model.card, controls, say.note)
            if web is not None:
                sinks.append(opened.enter_context(closing(web)))
            window = opened.enter_context(window_for(ask.show, source, controls, say.note))
            if window is not None:
                sinks.append(window)
            with say.building() as watch:
                loaded = load_engine(
                    model,
                    engine=ask.engine,
                    precision=ask.precision,
                    device=ask.device,
                    refine=ask.refine,
                    say=say.note,
                    watch=watch,
                )
            with loaded as engine:
                _announce(say, source, engine, sinks)
                with tracing(engine) if ask.trace is not None else nullcontext() as trace:
                    stages = stages_for(engine, controls, ask.smooth)
                    if is_paced(source, sinks):
                        stages.insert(0, pace())
                    pipeline = Pipeline(
                        source,
                        stages,
                        sinks,
                        trace=trace,
                        max_latency_s=None if ask.max_latency is None else ask.max_latency / 1000,
                    )
                    if web is not None:
                        web.pipeline = pipeline
                    return _stream(ask, say, interrupt, source, engine, pipeline, sinks, trace)


def _stream(
    ask: RunConfig,
    say: Printer,
    interrupt: Any,
    source: AnySource,
    engine: Engine,
    pipeline: Pipeline,
    sinks: list[Any],
    trace: Recorder | None,
) -> int:
    error: Exception | None = None
    window = next((sink for sink in sinks if isinstance(sink, WindowSink)), None)
    if window is not None:
        window.on_quit = pipeline.stop
    try:
        with interrupt.stopping(pipeline.stop), say.progress(source.info.frames, pipeline) as tick:
            pipeline.run(lambda frame: tick())
    except Exception as caught:  # whatever it is, what was written is told and the report made
        error = caught
    for sink in sinks:
        error = error or getattr(sink, "failure", None)
        for note in sink.notes:
            say.note(note)
    for cause, count in pipeline.ledger.lost.items():
        say.note(f"warning: {count} frames of {source.name} are lost: {cause}")
    for note in live_notes(ask, source, pipeline):
        say.note(note)
    outputs = [sink.output for sink in sinks if sink.output is not None]
    say.summary(pipeline, outputs)
    flicker = next((sink for sink in sinks if isinstance(sink, FlickerSink)), None)
    if flicker is not None:
        say.note(f"flicker {flicker}")
    if trace is not None and ask.trace is not None:
        try:
            save_trace(trace, Path(ask.trace), source.name, engine, say)
        except PipelineError as caught:
            error = error or caught
    if ask.report is not None:
        first = pipeline.first_frame_at
        report = make_report(
            source=source,
            engine=engine,
            pipeline=pipeline,
            outputs=outputs,
            flicker=None if flicker is None else flicker.as_dict(),
            first_frame_s=None if first is None else first - STARTED_AT,
            error=error,
        )
        write_report(Path(ask.report), report)
    if error is not None:
        raise error
    quit_by_key = window is not None and window.quit
    return 130 if pipeline.interrupted and not quit_by_key else 0


def _look(ask: RunConfig, model: Model) -> Look:
    chosen = None if ask.classes is None else tuple(model.card.class_ids(ask.classes))
    return Look(overlay=ask.overlay, classes=chosen, legend=ask.legend, contours=ask.contours)


def _check_targets(ask: RunConfig, source: AnySource, model: Model) -> None:
    """Refuses two outputs in one place, and what would be written over the source."""
    path = Path(source.name)
    found = path.iterdir() if path.is_dir() else [path]
    if not path.exists():
        found = (Path(name) for name in glob.glob(source.name, recursive=True))
    sources = {file.resolve() for file in found}
    inputs = {Path(name).resolve() for name in (model.file, ask.card, ask.weights) if name}
    names = sorted(file.stem for file in sources) if isinstance(source, ImageSource) else []
    taken: set[Path] = set()
    others = (ask.mask, ask.stats, ask.report, ask.trace)
    for target in [*ask.output, *(t for t in others if t is not None)]:
        files = {Path(target)} if is_stream(target) else _written(target, names)
        if not files.isdisjoint(taken):
            raise PipelineError(f"{target} is named twice as an output; each needs its own")
        if not files.isdisjoint(sources):
            raise PipelineError(f"{target} is the source itself; name another output")
        if not files.isdisjoint(inputs):
            raise PipelineError(f"{target} is the model or its card; name another output")
        taken |= files


def _written(target: str, names: list[str]) -> set[Path]:
    """The files that an output makes of images with these names; of a video, the first."""
    path = Path(target).resolve()
    if number := re.search(r"%0?\d*d", path.name):
        numbered = [number[0] % i for i in range(max(1, len(names)))]
        return {path.with_name(path.name.replace(number[0], n)) for n in numbered}
    if path.is_dir() or target.endswith(("/", "\\")) or not path.suffix:
        return {path / f"{name}.png" for name in names or ["000000"]}
    return {path}


def _sinks(ask: RunConfig, source: AnySource, model: Model, say: Printer) -> list[Any]:
    _check_targets(ask, source, model)
    sinks: list[Any] = [
        open_output(
            path,
            source,
            encoder=ask.encoder,
            quality=ask.quality,
            force=ask.force,
            say=say.note,
        )
        for path in ask.output
    ]
    if ask.mask is not None:
        sinks.append(open_mask(ask.mask, source, model.card, force=ask.force))
    if ask.stats is not None:
        path = Path(ask.stats)
        sinks.append(StatisticsSink(path, model.card.classes, rle=ask.rle, force=ask.force))
    for target in (ask.report, ask.trace):
        if target is not None:
            check_file(Path(target), ask.force)
    if ask.smooth and ask.report is not None and source.info.frames != 1:
        sinks.append(FlickerSink())
    return sinks


def _announce(say: Printer, source: AnySource, engine: Engine, sinks: list[Any]) -> None:
    info, runs = source.info, engine.info
    rate = f", {float(info.rate):.2f} fps" if info.rate and info.frames != 1 else ""
    count = f", {info.frames} frames" if info.frames and info.frames != 1 else ""
    say.note(f"source  {source.name}: {info.width}x{info.height} {info.codec}{rate}{count}")
    card = engine.card
    say.note(
        f"model   {card.name}: {card.input.height}x{card.input.width}, {len(card.classes)} classes"
    )
    say.note(f"engine  {runs.name} {runs.version}, {runs.precision} on {runs.device} ({runs.why})")
    if runs.refine != NONE:
        say.note(f"refine  {runs.refine}")
    for sink in sinks:
        if sink.output is not None:
            say.note(f"output  {sink.output.where} ({sink.output.codec})")
        elif not isinstance(sink, FlickerSink):
            say.note(f"output  {sink.url}")
    if is_paced(source, sinks):
        say.note("pace    the video's own, for those who watch")
    if not sinks:
        say.note("output  none: this only measures; -o writes a video")
