"""What can be run by name: the models in the package, torchvision's networks, and one example of
each of segmentation-models-pytorch's architectures. Needs no torch.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from engines.card import Card, read_card
from engines.model import DEFAULT, Model, shipped_models
from engines.zoo import smp, torchvision
from engines.zoo.kept import kept_classes
from engines.zoo.named import INSTALL, RANDOM_CLASSES

# Parameters, and multiply-adds of one picture in millions: at torchvision.SIZE with 21 classes,
# without the auxiliary head; at smp.SIZE with RANDOM_CLASSES. Counted by `count_torch`; a test
# counts again.
FIGURES = {
    "fcn_resnet50": (32957013, 142725.8),
    "fcn_resnet101": (51949141, 222746.9),
    "deeplabv3_resnet50": (39638869, 168731.2),
    "deeplabv3_resnet101": (58630997, 248752.3),
    "deeplabv3_mobilenet_v3_large": (11025477, 10436.4),
    "lraspp_mobilenet_v3_large": (3221538, 2086.2),
    "unet/resnet34": (24439269, 32010.9),
    "unetplusplus/resnet34": (26081509, 74289.5),
    "pspnet/resnet34": (21530165, 9737.3),
    "deeplabv3/resnet34": (26012245, 109220.9),
    "deeplabv3plus/resnet34": (22442597, 31619.4),
    "fpn/resnet34": (23157973, 27462.2),
    "linknet/resnet34": (21772597, 20287.8),
    "pan/resnet34": (21481596, 29855.7),
    "manet/resnet34": (31786533, 34045.2),
    "upernet/resnet34": (29604821, 71947.3),
    "segformer/resnet34": (21881685, 26172.5),
    "dpt/tu-vit_base_patch16_224": (122419197, 232201.9),
}
# Of the weights enums of torchvision 0.29, COCO_WITH_VOC_LABELS_V1; a test compares.
_WEIGHTS_URL = "https://download.pytorch.org/models/"
_WEIGHTS_FILES = {
    "fcn_resnet50": "fcn_resnet50_coco-1167a1af.pth",
    "fcn_resnet101": "fcn_resnet101_coco-7ecb50ca.pth",
    "deeplabv3_resnet50": "deeplabv3_resnet50_coco-cd0a2569.pth",
    "deeplabv3_resnet101": "deeplabv3_resnet101_coco-586e9e4e.pth",
    "deeplabv3_mobilenet_v3_large": "deeplabv3_mobilenet_v3_large-fc3c493d.pth",
    "lraspp_mobilenet_v3_large": "lraspp_mobilenet_v3_large-d234d4ea.pth",
}


@dataclass(frozen=True)
class Entry:
    """One model that has a name, or a file."""

    name: str
    library: str
    """`streamseg`, `torchvision`, `segmentation-models-pytorch` or `file`."""
    description: str
    classes: tuple[str, ...] | None
    """None where the weights decide."""
    input: dict[str, Any]
    """The card's, as JSON has it."""
    parameters: int | None
    gmacs: float | None
    """Multiply-adds of one picture at the input's size, in billions; None if not counted."""
    license: str
    weights: str
    """Where they come from."""
    here: str
    """Whether it is on this machine, and if not, what brings it."""
    default: bool = False


def entries() -> list[Entry]:
    """All names, the shipped models first."""
    shipped = [
        _shipped(name, read_card(path), name == DEFAULT) for name, path in shipped_models().items()
    ]
    made = [_torchvision(name) for name in torchvision.NETWORKS]
    return [*shipped, *made, *(_smp(name) for name in FIGURES if smp.split_name(name))]


def describe(name: str) -> Entry:
    """One of `entries`, or any other ARCHITECTURE/ENCODER, which takes torch to count."""
    known = {entry.name: entry for entry in entries()}
    return known[name] if name in known else _smp(name)


def describe_file(model: Model) -> Entry:
    """A user's own ONNX, counted from its graph; raises ModelError where it is none."""
    from engines.cost import count
    from engines.graph import read_onnx

    card = model.card
    want = card.input
    sides = (want.height, want.width)
    taken = (want.channels, *sides) if want.layout == "nchw" else (*sides, want.channels)
    cost = count(read_onnx(model.file), (1, *taken))
    return Entry(
        name=card.name,
        library="file",
        description=card.description,
        classes=card.classes,
        input=card.input.model_dump(mode="json"),
        parameters=cost.parameters,
        gmacs=None if cost.macs is None else cost.macs / 1e9,
        license=card.license,
        weights=card.source,
        here=str(model.file),
    )


def count_torch(network: Any, size: tuple[int, int]) -> tuple[int, float]:
    """Parameters and multiply-adds (in millions) of a torch.nn.Module at (H, W), by torch's own
    counter, without computing anything; moves the network to `meta`, where it is of no more use.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    network.eval().to("meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, *size, device="meta"))
    parameters = sum(p.numel() for p in network.parameters())
    # It counts a multiplication and an addition as two.
    return parameters, counter.get_total_flops() / 2e6


def _shipped(name: str, card: Card, default: bool) -> Entry:
    return Entry(
        name=name,
        library="streamseg",
        description=card.description,
        classes=card.classes,
        input=card.input.model_dump(mode="json"),
        parameters=card.metrics.get("parameters"),
        gmacs=card.metrics.get("gmacs"),
        license=card.license,
        weights=card.source,
        here="in the package",
        default=default,
    )


def _torchvision(name: str) -> Entry:
    card = torchvision.torchvision_card(name)
    parameters, mmacs = FIGURES[name]
    return Entry(
        name=name,
        library="torchvision",
        description=card.description,
        classes=card.classes,
        input=card.input.model_dump(mode="json"),
        parameters=parameters,
        gmacs=mmacs / 1e3,
        license=card.license,
        weights=f"{_WEIGHTS_URL}{_WEIGHTS_FILES[name]}",
        here=_where_torchvision(name),
    )


def _where_torchvision(name: str) -> str:
    if kept_classes(name, "official", None) is not None:
        return "in the cache, as ONNX"
    if find_spec("torch") is None or find_spec("torchvision") is None:
        return f"needs {INSTALL}"
    # torch.hub's documentation: TORCH_HOME, $XDG_CACHE_HOME/torch, ~/.cache/torch.
    caches = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = Path(os.environ.get("TORCH_HOME", f"{caches}/torch")).expanduser()
    if (home / "hub" / "checkpoints" / _WEIGHTS_FILES[name]).is_file():
        return "weights fetched; ONNX made on first use"
    return "not yet: fetched on first use"


def _smp(name: str) -> Entry:
    card = smp.smp_card(name, smp.SIZE, "your own", ("background", "foreground"))
    if name in FIGURES:
        parameters, mmacs = FIGURES[name]
    else:
        parameters, mmacs = count_torch(
            smp.make_whole(name, RANDOM_CLASSES, "random", smp.SIZE), smp.SIZE
        )
    missing = any(find_spec(each) is None for each in ("torch", "segmentation_models_pytorch"))
    return Entry(
        name=name,
        library="segmentation-models-pytorch",
        description=card.description,
        classes=None,
        input=card.input.model_dump(mode="json"),
        parameters=parameters,
        gmacs=mmacs / 1e3,
        license=card.license,
        weights="your own, by --weights FILE; the library has none for whole networks",
        here=f"needs {INSTALL}" if missing else "made from --weights on first use",
    )
