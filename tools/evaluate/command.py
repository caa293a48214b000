"""`streamseg evaluate`: the options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

EXAMPLES = """Examples:

streamseg evaluate VOCdevkit --layout voc --split val --json voc.json

streamseg evaluate labelled/ --layout pairs --split val --model my.onnx --figures figures/

streamseg evaluate street.mp4 --labels labels/ --every 30 --model my.onnx

streamseg evaluate street.mp4 --flicker --smooth --model my.onnx
"""

Opt = typer.Option


def evaluate(
    data: Annotated[
        str, typer.Argument(help="A data set's folder, or a video with --labels or --flicker.")
    ],
    layout: Annotated[
        Literal["pairs", "voc", "cityscapes", "camvid"] | None,
        Opt(help="How the data set is laid out; docs/evaluate.md shows each."),
    ] = None,
    split: Annotated[str | None, Opt(help="Which part of the data set, for example val.")] = None,
    labels: Annotated[
        Path | None, Opt(help="Folder of masks for a video's frames 0, every, 2 every, ...")
    ] = None,
    every: Annotated[int, Opt(min=1, help="With --labels: each how-manieth frame has one.")] = 1,
    flicker: Annotated[
        bool, Opt("--flicker", help="Of a video: how much labels change without motion.")
    ] = False,
    smooth: Annotated[
        bool, Opt("--smooth", help="Of a video: with labels smoothed as `streamseg run` does.")
    ] = False,
    model: Annotated[
        str, Opt(help="A name from `streamseg models`, or an .onnx file. Default: voc.")
    ] = "voc",
    card: Annotated[
        Path | None, Opt(help="The .onnx file's card, if it is not the .yaml beside it.")
    ] = None,
    weights: Annotated[str | None, Opt(help="As in `streamseg run`.")] = None,
    size: Annotated[str | None, Opt(help="As in `streamseg run`. Default: the card's.")] = None,
    engine: Annotated[str, Opt(help="As in `streamseg run`. Default: auto.")] = "auto",
    precision: Annotated[str, Opt(help="As in `streamseg run`. Default: auto.")] = "auto",
    device: Annotated[str | None, Opt(help="As in `streamseg run`.")] = None,
    refine: Annotated[str, Opt(help="As in `streamseg run`. Default: none.")] = "none",
    void: Annotated[
        Literal["ignore", "error"],
        Opt(help="What pixels without a true class are: left out, or errors if labelled."),
    ] = "ignore",
    json: Annotated[Path | None, Opt(help="Write the figures as JSON.")] = None,
    figures: Annotated[
        Path | None,
        Opt(help="Folder for confusion.png, confusion.csv and the worst pictures, worst.png."),
    ] = None,
    force: Annotated[bool, Opt("--force", help="Overwrite outputs that exist.")] = False,
    quiet: Annotated[bool, Opt("--quiet", "-q", help="Print errors only.")] = False,
    debug: Annotated[bool, Opt("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Measure how well a model's labels agree with the truth."""
    given = dict(locals())
    given.pop("debug")
    # Imported here: --help must not wait for OpenCV and OpenVINO.
    from tools.config import size_option
    from tools.evaluate.session import Ask
    from tools.evaluate.session import evaluate as run

    given["size"] = size_option(size)
    code = run(Ask(**given))
    if code:
        raise typer.Exit(code)
