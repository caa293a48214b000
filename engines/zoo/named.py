"""Networks by name, from the name to an ONNX file with a card: torchvision's (`fcn_resnet50`) and
segmentation-models-pytorch's (`unet/resnet34`).

    model = named_model("unet/resnet34", "trained.pth", card=read_card(Path("mine.yaml")))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from engines.card import Card
from engines.errors import CardError, ModelError
from engines.model import MODEL_FILES, Model
from engines.zoo import smp, torchvision
from engines.zoo.kept import keep_onnx, kept_classes, kept_stem, weights_digest
from engines.zoo.weights import count_classes

# Random weights without a card: as many classes as VOC, so that speeds of networks compare.
RANDOM_CLASSES = len(torchvision.VOC_CLASSES)


def is_named(name: str) -> bool:
    """Whether it names a library's network, and not a file."""
    if name in torchvision.NETWORKS:
        return True
    path = Path(name)
    looks_so = smp.split_name(name) is not None
    return looks_so and path.suffix.lower() not in MODEL_FILES and not path.is_file()


@dataclass(frozen=True)
class Recipe:
    """What a name, its weights and a card come to, before anything is made."""

    card: Card
    stem: str
    """Of the file in the cache: all that tells one network from another."""
    make: Callable[[], Any]
    """Gives the torch.nn.Module."""
    size: tuple[int, int]
    """(H, W) that the exporter traces with."""
    dynamic: bool | Literal["batch"]
    """What stays free in the file, as export_onnx has it."""


def named_model(
    name: str,
    weights: str | None = None,
    size: tuple[int, int] | None = None,
    card: Card | None = None,
    say: Callable[[str], None] = lambda line: None,
    *,
    export: bool = True,
) -> Model:
    """The network as an ONNX file in the user's cache, made first if it is not there and `export`
    is asked for; the other arguments as for `recipe`.

    A second start needs neither torch nor the library. Raises ModelError, CardError,
    EngineUnavailableError.
    """
    found = recipe(name, weights, size, card)
    path = Path(f"{found.stem}.onnx")
    if export:
        path = keep_onnx(found.stem, found.make, size=found.size, dynamic=found.dynamic, say=say)
    return Model(found.card, path, found.make)


def recipe(
    name: str,
    weights: str | None = None,
    size: tuple[int, int] | None = None,
    card: Card | None = None,
) -> Recipe:
    """How the network of this name is made.

    weights: `official` (torchvision's, its default), `random` (seeded, for measuring speed), or the
        path of a state dict that torch saved; the number of classes is read from the file.
    size: (H, W) in pixels; without it the card's, or the library's usual one.
    card: names of classes and input for weights of one's own. Without it, classes are torchvision's
        where there are as many, `background` and `foreground` for a single output channel, else
        `class0` and so on.

    Raises ModelError, CardError.
    """
    ours = name in torchvision.NETWORKS
    if weights is None and ours:
        weights = "official"
    if weights is None or (weights == "official" and not ours):
        raise ModelError(
            f"{name} has no official weights: segmentation-models-pytorch has those of encoders "
            "only; give --weights FILE, a state dict of your training, or --weights random to "
            "measure speed"
        )
    if weights == "official" and card is not None:
        raise CardError(
            f"{name}'s official weights have a card of their own; --card goes with --weights FILE "
            "or an ONNX file"
        )
    digest = weights_digest(name, weights)
    if size is None:
        usual = torchvision.SIZE if ours else smp.SIZE
        size = usual if card is None else (card.input.height, card.input.width)
    # SMP's are written for one size each: not all have a form with a free one.
    fixed = None if ours else size
    channels = _channels(name, weights, digest, card, fixed)
    titled = weights if weights in ("official", "random") else Path(weights).name
    if card is not None:
        card = _own_card(card, channels, size, titled)
    else:
        make_card = torchvision.torchvision_card if ours else smp.smp_card
        card = make_card(name, size, titled, _class_names(channels, ours))
    if ours:
        make = partial(torchvision.make_torchvision, name, channels, weights)
    else:
        make = partial(smp.make_whole, name, channels, weights, size)
    return Recipe(
        card,
        kept_stem(name, digest, channels, fixed),
        make,
        torchvision.TRACE_SIZE if ours else size,
        True if ours else "batch",
    )


def _channels(
    name: str, weights: str, digest: str, card: Card | None, fixed: tuple[int, int] | None
) -> int:
    """How many channels the network's scores have."""
    if weights == "official":
        return len(torchvision.VOC_CLASSES)
    if weights == "random":
        return RANDOM_CLASSES if card is None else len(card.classes)
    known = kept_classes(name, digest, fixed)
    if known is not None:
        return known
    _require_torch(name)
    head = torchvision.HEAD if name in torchvision.NETWORKS else smp.HEAD
    return count_classes(Path(weights), head)


def _class_names(channels: int, ours: bool) -> tuple[str, ...]:
    if ours and channels == len(torchvision.VOC_CLASSES):
        return torchvision.VOC_CLASSES
    # A single channel is a threshold: engines/graph.py makes two classes of it.
    if channels == 1:
        return ("background", "foreground")
    if channels > 256:
        raise ModelError(f"the weights are for {channels} classes; labels are uint8, at most 256")
    return tuple(f"class{index}" for index in range(channels))


def _own_card(card: Card, channels: int, size: tuple[int, int], titled: str) -> Card:
    """The user's card at this size; its sum, if it has one, is of another file."""
    if len(card.classes) != channels and not (channels == 1 and len(card.classes) == 2):
        raise CardError(
            f"{titled} is for {channels} classes, but the card {card.name!r} names "
            f"{len(card.classes)}; correct the card's classes"
        )
    height, width = size
    taken = card.input.model_copy(update={"height": height, "width": width})
    metrics = {**card.metrics, "weights": titled}
    return card.model_copy(update={"input": taken, "sha256": None, "metrics": metrics})


def _require_torch(name: str) -> None:
    from importlib.util import find_spec

    if find_spec("torch") is None:
        raise ModelError(f"{name} is made with torch, which is not installed; {INSTALL}")


INSTALL = "pip install 'streamseg[models]'"
