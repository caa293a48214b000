"""The commands of the `streamseg` program, as Typer has them."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from tools import build, doctor, latency, models, run
from tools.bench import command as bench
from tools.evaluate import command as evaluate
from tools.train import command as train
from tools.web import RunCommand

app = typer.Typer(
    name="streamseg",
    help="Real-time semantic segmentation of video.",
    epilog="Example: streamseg run street.mp4 -o segmented.mp4 --legend",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run", epilog=run.EXAMPLES, cls=RunCommand)(run.run)
app.command("build", epilog=build.EXAMPLES)(build.build)
app.add_typer(bench.app, name="bench", help="Measure speed and latency, and compare two results.")
app.command("evaluate", epilog=evaluate.EXAMPLES)(evaluate.evaluate)
app.command("train", epilog=train.EXAMPLES)(train.train)
app.command("latency", epilog=latency.EXAMPLES)(latency.latency)
app.command("models", epilog=models.EXAMPLES)(models.models)
app.command("doctor", epilog="Example: streamseg doctor")(doctor.doctor)


def _print_version(wanted: bool) -> None:
    if wanted:
        try:
            print(f"streamseg {version('streamseg')}")
        except PackageNotFoundError:
            print("streamseg (not installed)")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print and exit."),
    ] = False,
) -> None:
    pass
