"""A model at rest: an ONNX file and its card, shipped with the package, made by torchvision, or the
user's own; or a plan that TensorRT made of one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engines.card import Card, check_sha256, read_card
from engines.errors import CardError, ModelError

SHIPPED = Path(__file__).parent / "models"

DEFAULT = "voc"

# What `streamseg build` writes for TensorRT; its passport, which holds the card, stands beside it.
PLAN_SUFFIX = ".plan"


@dataclass(frozen=True)
class Model:
    """Where a network is and what it takes."""

    card: Card
    file: Path
    """The ONNX network, or a plan that TensorRT made of one (PLAN_SUFFIX)."""


def shipped_models() -> dict[str, Path]:
    """Name -> card of every model in the package."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}


def find_model(
    name: str | Path, card: Path | None = None, say: Callable[[str], None] = lambda line: None
) -> Model:
    """A shipped model or a torchvision network by name, an ONNX file with the card beside it (or at
    `card`), or a plan.

    `say` gets a line when a network has to be made first. Raises ModelError for an unknown name or
    missing file, CardError for a missing or wrong card, PlanError for a plan without its passport.
    """
    from engines.zoo.torchvision import NETWORKS, torchvision_model

    shipped = shipped_models()
    path = Path(name)
    if str(name) in shipped or str(name) in NETWORKS:
        if card is not None:
            raise CardError(f"model {name!r} brings its own card; --card goes with an ONNX file")
        if str(name) in NETWORKS:
            return torchvision_model(str(name), say=say)
        at = shipped[str(name)]
        found = Model(read_card(at), at.with_suffix(".onnx"))
    elif path.suffix.lower() not in (".onnx", PLAN_SUFFIX):
        raise ModelError(
            f"model {str(name)!r} is unknown; allowed: {', '.join([*shipped, *NETWORKS])}, "
            "or the path of an .onnx file with its card"
        )
    elif not path.is_file():
        raise ModelError(f"no model file at {path}")
    elif path.suffix == PLAN_SUFFIX:
        from engines.tensorrt.passport import read_passport

        if card is not None:
            raise CardError("a plan's card is in its passport; --card goes with an ONNX file")
        return Model(read_passport(path).card, path)
    else:
        found = Model(read_card(card or path.with_suffix(".yaml")), path)
    check_sha256(found.card, found.file)
    return found
