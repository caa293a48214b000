"""`streamseg latency`: how late the picture is, and how much of that is ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = """Examples:

streamseg latency 0

streamseg latency rtsp://cam.local/stream --model street --seconds 20 --json latency.json
"""

Opt = typer.Option


def latency(
    source: Annotated[
        str, typer.Argument(help="A camera's number or /dev path, or a live stream's URL.")
    ],
    seconds: Annotated[
        float, Opt(min=1, max=60, help="How long to film, without and then with the network.")
    ] = 8.0,
    model: Annotated[str, Opt(help="As in `streamseg run`. Default: voc.")] = "voc",
    engine: Annotated[str, Opt(help="As in `streamseg run`. Default: auto.")] = "auto",
    precision: Annotated[str, Opt(help="As in `streamseg run`. Default: auto.")] = "auto",
    json: Annotated[Path | None, Opt(help="Write the figures as JSON.")] = None,
    force: Annotated[bool, Opt("--force", help="Overwrite outputs that exist.")] = False,
    debug: Annotated[bool, Opt("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Show a changing code on the screen, film it, and say how late the picture is."""
    # Imported here: --help must not wait for OpenCV and OpenVINO.
    from tools.glass import measure_camera

    code = measure_camera(
        source,
        seconds=seconds,
        model=model,
        engine=engine,
        precision=precision,
        json=json,
        force=force,
    )
    if code:
        raise typer.Exit(code)
