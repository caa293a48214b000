"""`streamseg train`: the options."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = """Examples:

streamseg train configs/train/example.yaml --out trained/

streamseg train configs/train/example.yaml --out trained/ --resume

torchrun --nproc-per-node 2 -m tools.cli train my.yaml --out trained/
"""

Opt = typer.Option


def train(
    config: Annotated[
        Path, typer.Argument(help="A YAML file; configs/train/example.yaml explains its keys.")
    ],
    out: Annotated[
        Path, Opt(help="Folder for the model, its card, the checkpoint, log and curves.")
    ],
    resume: Annotated[
        bool, Opt("--resume", help="Go on after the last epoch that is in --out.")
    ] = False,
    quiet: Annotated[bool, Opt("--quiet", "-q", help="Print errors only.")] = False,
    debug: Annotated[bool, Opt("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Train a network on labelled pictures and export it for `streamseg run`."""
    # Imported here: --help must not wait for torch, and nobody needs it who does not train.
    from tools.errors import ToolError
    from tools.progress import Printer
    from tools.train.config import read_config

    asked = read_config(config)
    try:
        # Threads of torch's that wait for work do so asleep, not turning round: where another
        # program has a core, turning round costs more than the work.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        from tools.train import session
    except ModuleNotFoundError as error:
        raise ToolError(f"training needs {error.name}; pip install 'streamseg[models]'") from None
    code = session.train(asked, out, resume=resume, quiet=quiet, say=Printer(quiet).note)
    if code:
        raise typer.Exit(code)
