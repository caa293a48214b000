"""`streamseg models`: what can be run by name, what it costs, and whether it is here."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from engines.zoo.catalog import Entry

EXAMPLES = """Examples:

streamseg models

streamseg models unet/mobilenet_v2

streamseg models my.onnx --json
"""

_COLUMNS = "{:<31}{:>8}  {:>9}  {:>9}  {:>10}  {}"


def models(
    name: Annotated[
        str | None,
        typer.Argument(help="One model: a name, ARCHITECTURE/ENCODER, or an .onnx file."),
    ] = None,
    card: Annotated[
        Path | None, typer.Option(help="The .onnx file's card, if it is not the .yaml beside it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """List the models that `run --model` knows by name, or show one of them."""
    from engines.zoo.catalog import entries

    if name is not None:
        entry = _one(name, card)
        _print_json(entry) if as_json else _print_one(entry)
        return
    if card is not None:
        raise typer.BadParameter("--card goes with an .onnx file")
    found = entries()
    if as_json:
        _print_json(found)
        return
    print(_COLUMNS.format("name", "classes", "input", "M params", "G madds", "here now"))
    for entry in found:
        if entry.library != _SMP:
            _print_row(entry)
            print(f"    licence {entry.license}")
            print(f"    weights {entry.weights}")
    family = [entry for entry in found if entry.library == _SMP]
    print()
    print("segmentation-models-pytorch, each by ARCHITECTURE/ENCODER with any of its encoders or")
    print("tu- and a name of timm's; figures are of these examples, with 21 classes:")
    for entry in family:
        _print_row(entry)
    print(f"    licence {family[0].license}")
    print(f"    weights {family[0].weights}")
    print()
    print("G madds: billions of multiply-adds for one picture at the input's size.")
    print("Any ONNX segmentation network runs with a card: --model my.onnx --card my.yaml")


_SMP = "segmentation-models-pytorch"


def _one(name: str, card: Path | None) -> Entry:
    from engines.model import find_model, shipped_models
    from engines.zoo.catalog import describe, describe_file
    from engines.zoo.named import is_named

    if is_named(name) or name in shipped_models():
        if card is not None:
            raise typer.BadParameter("--card goes with an .onnx file")
        return describe(name)
    if name.endswith(".plan"):
        raise typer.BadParameter(f"{name} is a plan; its passport {name[:-5]}.json describes it")
    return describe_file(find_model(name, card))


def _print_json(found: Entry | list[Entry]) -> None:
    rows = [asdict(entry) for entry in found] if isinstance(found, list) else asdict(found)
    print(json.dumps(rows, indent=2))


def _print_row(entry: Entry) -> None:
    size = f"{entry.input['height']}x{entry.input['width']}"
    classes = "any" if entry.classes is None else len(entry.classes)
    name = f"{entry.name}{' (default)' if entry.default else ''}"
    millions, billions = _figures(entry)
    print(_COLUMNS.format(name, classes, size, millions, billions, entry.here))


def _figures(entry: Entry) -> tuple[str, str]:
    """Millions of parameters and billions of multiply-adds, `-` where nobody counted."""
    millions = "-" if entry.parameters is None else f"{entry.parameters / 1e6:.2f}"
    return millions, "-" if entry.gmacs is None else f"{entry.gmacs:.2f}"


def _print_one(entry: Entry) -> None:
    want = entry.input
    names = "as many as the weights have" if entry.classes is None else ", ".join(entry.classes)
    count = "" if entry.classes is None else f"{len(entry.classes)}: "
    millions, billions = _figures(entry)
    about = f": {entry.description}" if entry.description else ""
    print(f"{entry.name}{' (default)' if entry.default else ''}{about}")
    print(f"  input    {want['height']}x{want['width']} {want['color']}")
    print(f"  classes  {count}{names}")
    print(f"  size     {millions} M parameters, {billions} G multiply-adds a picture")
    print(f"  licence  {entry.license}")
    print(f"  weights  {entry.weights}")
    print(f"  here     {entry.here}")
