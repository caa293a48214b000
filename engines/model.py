"""A model at rest: an ONNX file and its card, shipped with the package or the user's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engines.card import Card, check_sha256, read_card
from engines.errors import CardError, ModelError

SHIPPED = Path(__file__).parent / "models"

DEFAULT = "voc"


@dataclass(frozen=True)
class Model:
    """Where a network is and what it takes."""

    card: Card
    onnx: Path


def shipped_models() -> dict[str, Path]:
    """Name -> card of every model in the package."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}


def find_model(name: str | Path, card: Path | None = None) -> Model:
    """A shipped model by name, or an ONNX file with the card beside it (or at `card`).

    Raises ModelError for an unknown name or missing file, CardError for a missing or wrong card.
    """
    shipped = shipped_models()
    if str(name) in shipped:
        if card is not None:
            raise CardError(f"model {name!r} brings its own card; --card goes with an ONNX file")
        at = shipped[str(name)]
        found = Model(read_card(at), at.with_suffix(".onnx"))
    else:
        path = Path(name)
        if path.suffix.lower() != ".onnx":
            raise ModelError(
                f"model {str(name)!r} is unknown; allowed: {', '.join(shipped)}, "
                "or the path of an .onnx file with its card"
            )
        if not path.is_file():
            raise ModelError(f"no model file at {path}")
        found = Model(read_card(card or path.with_suffix(".yaml")), path)
    check_sha256(found.card, found.onnx)
    return found
