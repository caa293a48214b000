"""One run, from what was asked for to its exit code."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path

import cv2

from engines.choose import load_engine
from engines.engine import Engine
from engines.model import Model, find_model
from pipeline.sinks.destination import check_file
from pipeline.stages import Controls, Look
from tools.config import RunConfig
from tools.interrupt import Interrupt, interruptible
from tools.job import (
    announce_engine,
    announce_outputs,
    announce_source,
    connect,
    drive,
    finish,
    open_job,
)
from tools.names import ask_each
from tools.progress import Printer
from tools.report import write_report
from tools.targets import check_targets
from tools.viewing import window_for
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
        model = find_model(
            ask.model,
            card,
            say.note,
            weights=ask.weights,
            size=ask.size,
            export=ask.engine != "torch",
        )
        controls = Controls(_look(ask, model))
        asks = ask_each(ask)
        check_targets(ask, asks, model)
        if len(asks) > 1:
            from tools.several import run_several

            return run_several(ask, asks, model, controls, say, interrupt)
        return _run_one(asks[0], model, controls, say, interrupt)


def load(ask: RunConfig, model: Model, say: Printer, batch: int = 1) -> Engine:
    """The engine that was asked for; what takes long is shown."""
    with say.building() as watch:
        return load_engine(
            model,
            engine=ask.engine,
            precision=ask.precision,
            device=ask.device,
            batch=batch,
            refine=ask.refine,
            say=say.note,
            watch=watch,
        )


def _run_one(
    ask: RunConfig, model: Model, controls: Controls, say: Printer, interrupt: Interrupt
) -> int:
    with ExitStack() as opened:
        job = opened.enter_context(open_job(ask, model, say))
        if ask.report is not None:
            check_file(Path(ask.report), ask.force)
        web = open_page(ask, model.card, controls, say.note)
        if web is not None:
            job.sinks.append(opened.enter_context(closing(web)))
        window = opened.enter_context(window_for(ask.show, job.source.name, controls, say.note))
        if window is not None:
            window.stay = job.is_still
            job.sinks.append(window)
        engine = opened.enter_context(load(ask, model, say))
        announce_source(job)
        announce_engine(say, engine)
        announce_outputs(job)
        pipeline = connect(job, engine, controls)
        if web is not None:
            web.pipeline = pipeline
        if window is not None:
            window.on_quit = pipeline.stop
        total = job.source.info.frames
        with interrupt.stopping(pipeline.stop), say.progress(total, pipeline) as tick:
            drive(job, tick)
        report = finish(job, engine)
        if ask.report is not None:
            write_report(Path(ask.report), report)
        if job.error is not None:
            raise job.error
        quit_by_key = window is not None and window.quit
        return 130 if pipeline.interrupted and not quit_by_key else 0


def _look(ask: RunConfig, model: Model) -> Look:
    chosen = None if ask.classes is None else tuple(model.card.class_ids(ask.classes))
    return Look(overlay=ask.overlay, classes=chosen, legend=ask.legend, contours=ask.contours)
