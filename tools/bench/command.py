"""`streamseg bench`: the options, and `compare`, the command in it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

EXAMPLES = """Examples:

streamseg bench

streamseg bench street.mp4 --json now.json --html now.html

streamseg bench --model voc --size 289x513,193x321 --only engine,synthetic

streamseg bench --batch 1,4,16 --precision fp32,bf16 --only engine

streamseg bench compare before.json after.json
"""

COMPARE_EXAMPLE = """Example:

streamseg bench compare before.json after.json --fail-on-regression 5
"""

Opt = typer.Option


class _Group(TyperGroup):
    """Words that do not begin with a command's name are the options of `run`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] not in self.commands:
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_Group,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command("run", epilog=EXAMPLES)
def run(
    source: Annotated[
        str | None,
        typer.Argument(help="A video to measure a pipeline from a file with. Default: none."),
    ] = None,
    model: Annotated[
        list[str] | None,
        Opt(help="Names or .onnx files, separated by commas, or repeated. Default: voc."),
    ] = None,
    size: Annotated[
        list[str] | None,
        Opt(help="Height x width of the network's input: 360x480,720x960. Default: the card's."),
    ] = None,
    batch: Annotated[
        list[str] | None, Opt(help="Pictures a submission: 1,4. Above 1 only the engine is run.")
    ] = None,
    precision: Annotated[
        list[str] | None, Opt(help="auto, fp32, bf16, fp16, int8. Default: auto.")
    ] = None,
    engine: Annotated[
        list[str] | None, Opt(help="auto, tensorrt, openvino, onnxruntime, torch. Default: auto.")
    ] = None,
    card: Annotated[
        Path | None, Opt(help="The .onnx file's card, if it is not the .yaml beside it.")
    ] = None,
    weights: Annotated[
        str | None,
        Opt(help="As in `streamseg run`; random ones are as fast, and need no download."),
    ] = None,
    device: Annotated[str | None, Opt(help="As in `streamseg run`.")] = None,
    only: Annotated[
        list[str] | None, Opt(help="Measure only these: engine, synthetic, file, live, peak.")
    ] = None,
    rates: Annotated[
        list[str] | None, Opt(help="Frames a second of the live source. Default: 10,30,60.")
    ] = None,
    picture: Annotated[
        str | None,
        Opt(help="Height x width of synthetic pictures. Default: the SOURCE's, else 720x1280."),
    ] = None,
    seconds: Annotated[
        float, Opt(min=0.1, max=3600, help="How long each measurement of a round lasts.")
    ] = 3.0,
    warmup: Annotated[
        float, Opt(min=0, max=600, help="Seconds before each that do not count.")
    ] = 0.5,
    rounds: Annotated[int, Opt(min=1, max=1000, help="Rounds, each of every measurement.")] = 3,
    json: Annotated[Path | None, Opt(help="Write the figures as JSON (docs/bench.md).")] = None,
    markdown: Annotated[Path | None, Opt(help="Write the tables as Markdown.")] = None,
    html: Annotated[Path | None, Opt(help="Write a page with charts, in one file.")] = None,
    trace: Annotated[
        Path | None, Opt(help="Write a traced run of the first combination, for ui.perfetto.dev.")
    ] = None,
    force: Annotated[bool, Opt("--force", help="Overwrite outputs that exist.")] = False,
    quiet: Annotated[bool, Opt("--quiet", "-q", help="Print errors only.")] = False,
    debug: Annotated[bool, Opt("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Measure frames a second, latency and missed frames; `bench compare A B` compares two."""
    # Imported here: --help must not wait for OpenCV, FFmpeg and OpenVINO.
    from tools.bench.plan import make_cases, parse_parts, parse_rates
    from tools.config import size_option

    cases = make_cases(model or [], size or [], batch or [], engine or [], precision or [])
    parts = parse_parts(only or [])
    if source is None and only and "file" in parts:
        raise typer.BadParameter("--only file measures a pipeline from a file; name a SOURCE")
    if source is not None and picture is not None:
        raise typer.BadParameter("--picture is for measuring without a SOURCE, which has its size")
    fixed = parse_rates(rates if rates else ["10,30,60"])
    if "live" in parts and not fixed:
        raise typer.BadParameter("--rates names no rate; leave --rates out for 10,30,60")
    if not any(case.batch == 1 for case in cases) and not {"engine"} & set(parts):
        raise typer.BadParameter("pipelines run with --batch 1; above it only the engine is run")
    if trace is not None and not any(case.batch == 1 for case in cases):
        raise typer.BadParameter("--trace runs a pipeline, which needs --batch 1 among the batches")
    pixels = size_option(picture, "--picture") or (720, 1280)

    from tools.bench.rounds import Ask
    from tools.bench.session import bench

    code = bench(
        Ask(
            cases=cases,
            source=source,
            picture=pixels,
            card=card,
            weights=weights,
            device=device,
            seconds=seconds,
            warmup=warmup,
            rounds=rounds,
            rates=fixed,
            parts=parts,
            json=json,
            markdown=markdown,
            html=html,
            trace=trace,
            force=force,
            quiet=quiet,
        )
    )
    if code:
        raise typer.Exit(code)


@app.command("compare", epilog=COMPARE_EXAMPLE)
def compare(
    before: Annotated[Path, typer.Argument(metavar="A.json", help="The benchmark before.")],
    after: Annotated[Path, typer.Argument(metavar="B.json", help="The benchmark after.")],
    fail_on_regression: Annotated[
        float | None,
        Opt(min=0, help="Exit with 1 if a figure is worse, and by more than so many percent."),
    ] = None,
    debug: Annotated[bool, Opt("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Say what changed between two benchmarks beyond noise."""
    from tools.bench.compare import compare as find_changes
    from tools.bench.compare import to_text
    from tools.bench.result import read_result
    from tools.errors import ToolError

    found = find_changes(read_result(before), read_result(after))
    print(to_text(found))
    if fail_on_regression is not None:
        worse = found.regressions(fail_on_regression)
        if worse:
            raise ToolError(
                f"{len(worse)} figures are worse by more than {fail_on_regression:g}%, first "
                f"{worse[0].name} of {worse[0].row}: {worse[0].percent:+.1f}"
                f"{' points' if worse[0].points else '%'}"
            )
