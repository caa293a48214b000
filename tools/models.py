"""`streamseg models`: what can be run by name."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print cards as JSON.")] = False,
) -> None:
    """List the models that `run --model` knows by name."""
    from engines.card import read_card
    from engines.model import DEFAULT, shipped_models
    from engines.zoo.torchvision import NETWORKS, torchvision_card

    cards = {name: read_card(path) for name, path in shipped_models().items()}
    cards |= {name: torchvision_card(name) for name in NETWORKS}
    if as_json:
        rows = [
            {**card.model_dump(mode="json"), "default": n == DEFAULT} for n, card in cards.items()
        ]
        print(json.dumps(rows, indent=2))
        return
    for name, card in cards.items():
        default = " (default)" if name == DEFAULT else ""
        print(f"{name}{default}: {card.description}")
        print(f"  input    {card.input.height}x{card.input.width} {card.input.color}")
        print(f"  classes  {len(card.classes)}: {', '.join(card.classes)}")
        if (parameters := card.metrics.get("parameters")) is not None:
            print(f"  size     {float(parameters) / 1e6:.2f} M parameters")
        print(f"  license  {card.license}")
        print(f"  source   {card.source}")
    print("torchvision's are made on first use, with torch: pip install 'streamseg[models]'")
    print("Any ONNX segmentation network runs with a card: --model my.onnx --card my.yaml")
