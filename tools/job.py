"""A run's work on one source: opening it, streaming it, and telling how that went."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engines.engine import Engine
from engines.model import Model
from engines.refine import NONE
from pipeline.api import stages_for
from pipeline.errors import PipelineError
from pipeline.runner import Pipeline
from pipeline.sinks import Output, StatisticsSink, VideoSink, open_mask, open_output
from pipeline.sinks.destination import check_file
from pipeline.sinks.flicker import FlickerSink
from pipeline.sources import AnySource, ImageSource, open_source
from pipeline.stages import Controls, pace
from pipeline.trace import Recorder
from tools import STARTED_AT
from tools.config import RunConfig
from tools.live import check_live, live_notes, live_options
from tools.progress import Printer
from tools.report import make_report
from tools.tracing import save_trace, tracing
from tools.viewing import is_paced


@dataclass
class Job:
    """One source, its sinks, and the pipeline between them."""

    ask: RunConfig
    """What was asked for, with this source alone."""
    say: Printer
    source: AnySource
    sinks: list[Any] = field(default_factory=list)
    pipeline: Pipeline | None = None
    """From `connect` on."""
    trace: Recorder | None = None
    error: Exception | None = None
    """What went wrong first."""

    @property
    def outputs(self) -> list[Output]:
        return [sink.output for sink in self.sinks if sink.output is not None]

    @property
    def flicker(self) -> FlickerSink | None:
        return next((sink for sink in self.sinks if isinstance(sink, FlickerSink)), None)

    @property
    def is_still(self) -> bool:
        """Whether all that will come is one picture."""
        return self.source.info.frames == 1


@contextmanager
def open_job(ask: RunConfig, model: Model, say: Printer) -> Iterator[Job]:
    """Opens the source and makes the sinks that were asked for; nothing is written yet.

    Raises PipelineError.
    """
    (name,) = ask.source
    source = open_source(
        name,
        start_s=ask.start,
        duration_s=ask.duration,
        max_frames=ask.max_frames,
        fps=ask.fps,
        live=live_options(ask),
        decode_on=_gpu(ask),
        say=say.note,
    )
    check_live(ask, source)
    with closing(source):
        if ask.every > 1 and isinstance(source, ImageSource):
            raise PipelineError(f"--every is for video: the pictures of {source.name} do not move")
        yield Job(ask, say, source, _sinks(ask, source, model, say))


def connect(job: Job, engine: Engine, controls: Controls) -> Pipeline:
    """Makes the job's pipeline, ready to run."""
    ask = job.ask
    stay = stays_on_card(job.sinks, controls)
    stages = stages_for(
        engine,
        controls,
        ask.smooth,
        ask.every,
        live=job.source.live,
        labels=any(getattr(sink, "reads_labels", True) for sink in job.sinks),
        stay=stay,
        say=job.say.note,
    )
    on_lane = stages[0].name == "infer"
    if getattr(job.source, "gpu", None) is not None and job.sinks and not (stay and on_lane):
        job.say.note(
            "note: pictures come down from the GPU; they stay there for an engine on it and one "
            "video (-o) by NVIDIA's encoder, beside masks and statistics, without --legend"
        )
    if is_paced(job.source, job.sinks):
        stages.insert(0, pace())
    job.trace = tracing(engine) if ask.trace is not None else None
    job.pipeline = Pipeline(
        job.source,
        stages,
        job.sinks,
        trace=job.trace,
        max_latency_s=None if ask.max_latency is None else ask.max_latency / 1000,
    )
    return job.pipeline


def stays_on_card(sinks: list[Any], controls: Controls) -> bool:
    """Whether nobody needs painted pictures on the host. Two encoders would each give them times of
    its own, and a legend is drawn there.
    """
    encoders = sum(isinstance(sink, VideoSink) for sink in sinks)
    takers = all(getattr(sink, "takes_card_pictures", False) for sink in sinks)
    return encoders == 1 and takers and not controls.look.legend


def drive(job: Job, tick: Callable[[], None] = lambda: None) -> None:
    """Runs the pipeline to its end, whatever that is, and tells what was out of order."""
    pipeline, source, say = job.pipeline, job.source, job.say
    assert pipeline is not None
    try:
        pipeline.run(lambda frame: tick())
    except Exception as caught:  # whatever it is, what was written is told and the report made
        job.error = caught
    for sink in job.sinks:
        job.error = job.error or getattr(sink, "failure", None)
        for note in sink.notes:
            say.note(note)
    for cause, count in pipeline.ledger.lost.items():
        say.note(f"warning: {count} frames of {source.name} are lost: {cause}")
    for note in live_notes(job.ask, source, pipeline):
        say.note(note)


def finish(job: Job, engine: Engine) -> dict[str, Any]:
    """Prints the summary and writes the trace; returns the report."""
    pipeline, flicker = job.pipeline, job.flicker
    assert pipeline is not None
    job.say.summary(pipeline, job.outputs)
    if flicker is not None:
        job.say.note(f"flicker {flicker}")
    if job.trace is not None and job.ask.trace is not None:
        try:
            save_trace(job.trace, Path(job.ask.trace), job.source.name, engine, job.say)
        except PipelineError as caught:
            job.error = job.error or caught
    first = pipeline.first_frame_at
    return make_report(
        source=job.source.name,
        engine=engine,
        pipeline=pipeline,
        outputs=job.outputs,
        every=job.ask.every,
        flicker=None if flicker is None else flicker.as_dict(),
        first_frame_s=None if first is None else first - STARTED_AT,
        error=job.error,
    )


def announce_source(job: Job) -> None:
    """A line about what is read."""
    info = job.source.info
    rate = f", {float(info.rate):.2f} fps" if info.rate and info.frames != 1 else ""
    count = f", {info.frames} frames" if info.frames and info.frames != 1 else ""
    size = f"{info.width}x{info.height}"
    gpu = getattr(job.source, "gpu", None)
    where = "" if gpu is None else f", decoded on GPU {gpu}"
    job.say.note(f"source  {job.source.name}: {size} {info.codec}{rate}{count}{where}")


def announce_engine(say: Printer, engine: Engine) -> None:
    """What computes."""
    runs, card = engine.info, engine.card
    say.note(
        f"model   {card.name}: {card.input.height}x{card.input.width}, {len(card.classes)} classes"
    )
    say.note(f"engine  {runs.name} {runs.version}, {runs.precision} on {runs.device} ({runs.why})")
    if runs.refine != NONE:
        say.note(f"refine  {runs.refine}")


def announce_outputs(job: Job) -> None:
    """A line for each place where frames go."""
    for sink in job.sinks:
        if sink.output is not None:
            job.say.note(f"output  {sink.output.where} ({sink.output.codec})")
        elif url := getattr(sink, "url", ""):
            job.say.note(f"output  {url}")
    if is_paced(job.source, job.sinks):
        job.say.note("pace    the video's own, for those who watch")
    if not job.sinks:
        job.say.note("output  none: this only measures; -o writes a video")


def _gpu(ask: RunConfig) -> int | None:
    """CUDA's number of the GPU that is to decode; None: the processor is."""
    if ask.decoder == "cpu":
        return None
    return int(ask.device) if ask.device is not None and ask.device.isdecimal() else 0


def _sinks(ask: RunConfig, source: AnySource, model: Model, say: Printer) -> list[Any]:
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
    if ask.trace is not None:
        check_file(Path(ask.trace), ask.force)
    if ask.smooth and ask.report is not None and source.info.frames != 1:
        sinks.append(FlickerSink())
    return sinks
