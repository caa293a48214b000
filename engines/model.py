"""A model at rest: an ONNX file and its card, shipped with the package, made from a library's
network, or the user's own; or a plan that TensorRT made of one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from engines.card import Card, check_sha256, read_card
from engines.errors import CardError, ModelError

SHIPPED = Path(__file__).parent / "models"

DEFAULT = "voc"

# What `streamseg build` writes for TensorRT; its passport, which holds the card, stands beside it.
PLAN_SUFFIX = ".plan"

# What a path must end in to be one of a model.
MODEL_FILES = (".onnx", PLAN_SUFFIX)


@dataclass(frozen=True)
class Model:
    """Where a network is and what it takes."""

    card: Card
    file: Path
    """The ONNX network, or a plan that TensorRT made of one (PLAN_SUFFIX)."""
    module: Callable[[], Any] | None = field(default=None, compare=False, repr=False)
    """Makes the same network as a torch.nn.Module; None where there is only the file."""


def shipped_models() -> dict[str, Path]:
    """Name -> card of every model in the package."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}


def find_model(
    name: str | Path,
    card: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
    *,
    weights: str | None = None,
    size: tuple[int, int] | None = None,
    export: bool = True,
) -> Model:
    """A shipped model or a library's network by name, an ONNX file with the card beside it (or at
    `card`), or a plan.

    `say` gets a line when a network has to be made first. `weights` are for a library's network:
    official, random or the path of a state dict. `size` is (H, W) in place of the card's. Without
    `export` a library's network is not written as ONNX: its `file` may not be there, for engines
    that run its `module`. Raises ModelError for an unknown name or missing file, CardError for a
    missing or wrong card, PlanError for a plan without its passport.
    """
    # Not at the top: these modules make Models.
    from engines.zoo.named import is_named, named_model
    from engines.zoo.shipped import make_shipped

    text, path = str(name), Path(name)
    if is_named(text):
        given = None if card is None else read_card(card)
        return named_model(text, weights, size, given, say, export=export)
    shipped = shipped_models()
    if weights is not None and (text in shipped or path.suffix.lower() in MODEL_FILES):
        raise ModelError(
            f"{text} has its own weights; --weights goes with torchvision's networks "
            "(fcn_resnet50) and segmentation-models-pytorch's (unet/resnet34)"
        )
    if text in shipped:
        if card is not None:
            raise CardError(f"model {text!r} brings its own card; --card goes with an ONNX file")
        at = shipped[text]
        its_card, file = read_card(at), at.with_suffix(".onnx")
        make = None if its_card.is_int8 else partial(make_shipped, text, file, its_card)
        found = Model(its_card, file, make)
    elif path.suffix.lower() not in MODEL_FILES:
        raise ModelError(_unknown(text, path))
    elif not path.is_file():
        raise ModelError(f"no model file at {path}")
    elif path.suffix == PLAN_SUFFIX:
        from engines.tensorrt.passport import read_passport

        if card is not None:
            raise CardError("a plan's card is in its passport; --card goes with an ONNX file")
        if size is not None:
            raise ModelError(f"{path} is built for one size; build it again with another --size")
        return Model(read_passport(path).card, path)
    else:
        found = Model(read_card(card or path.with_suffix(".yaml")), path)
    check_sha256(found.card, found.file)
    if size is None:
        return found
    height, width = size
    resized = found.card.input.model_copy(update={"height": height, "width": width})
    # The card's sum is the file's, and the file is the same.
    return replace(found, card=found.card.model_copy(update={"input": resized}))


def _unknown(name: str, path: Path) -> str:
    """What to say of a name that is neither of ours nor an ONNX file's or a plan's."""
    from engines.zoo.smp import ARCHITECTURES
    from engines.zoo.torchvision import NETWORKS

    if path.is_file():
        return (
            f"model {name!r} is a file, but neither .onnx nor .plan; a file of torch weights goes "
            "with its network's name: --model unet/resnet34 --weights FILE"
        )
    pairs = (
        f"ARCHITECTURE/ENCODER with {', '.join(each.lower() for each in ARCHITECTURES)} and an "
        "encoder of segmentation-models-pytorch (such as unet/resnet34)"
    )
    path_of = "or the path of an .onnx file with its card"
    if "/" in name:
        return f"model {name!r} is neither a file nor a network; allowed: {pairs}, {path_of}"
    names = ", ".join([*shipped_models(), *NETWORKS])
    return f"model {name!r} is unknown; allowed: {names}, {pairs}, {path_of}"
