"""torchvision's six segmentation networks, by the names that torchvision has for them.

Their official weights were trained on COCO's pictures with VOC's 21 classes. torchvision fetches
them itself, on the user's machine; a file of weights works without a network. Needs the extra
`models`, and only here: what comes out is an ONNX file with a card.
"""

# mypy: disable-error-code="import-not-found, unused-ignore", disallow-subclassing-any=False

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engines.cache import cache_dir
from engines.card import Card, CardInput
from engines.errors import EngineUnavailableError, ModelError
from engines.model import Model

# The weights enum's name beside each builder's: torchvision.models.segmentation.
NETWORKS = {
    "fcn_resnet50": "FCN_ResNet50_Weights",
    "fcn_resnet101": "FCN_ResNet101_Weights",
    "deeplabv3_resnet50": "DeepLabV3_ResNet50_Weights",
    "deeplabv3_resnet101": "DeepLabV3_ResNet101_Weights",
    "deeplabv3_mobilenet_v3_large": "DeepLabV3_MobileNet_V3_Large_Weights",
    "lraspp_mobilenet_v3_large": "LRASPP_MobileNet_V3_Large_Weights",
}
# What torchvision's transforms for these weights use: resize_size=520, ImageNet's constants.
SIZE = (520, 520)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# What the exporter traces with; height and width stay free in the file.
TRACE_SIZE = (224, 256)
# The order of VOC's classes: VOC 2012 development kit, section 2.
VOC_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair"),
    *("cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
# Random weights are the same on every machine, so that two measurements measure the same network.
SEED = 20


def torchvision_card(name: str, size: tuple[int, int] = SIZE, weights: str = "official") -> Card:
    """The card of one of NETWORKS at (H, W) pixels; `weights` as for `make_torchvision`."""
    height, width = size
    return Card(
        name=name,
        description=f"torchvision's {name}, VOC's 21 classes",
        input=CardInput(height=height, width=width, mean=MEAN, std=STD, color="rgb"),
        classes=VOC_CLASSES,
        license="BSD-3-Clause (torchvision); weights: COCO's terms",
        source=f"torchvision.models.segmentation.{name}, weights: {weights}",
        metrics={"weights": weights},
    )


def make_torchvision(name: str, classes: int = 21, weights: str = "official") -> Any:
    """A torch.nn.Module, (N, 3, H, W) float32 -> (N, classes, H, W) float32 logits, in evaluation
    mode.

    weights: `official` (torchvision fetches them), `random` (seeded, for measuring speed), or the
    path of a state dict (.pth), torchvision's own or one saved by a training.
    Raises ModelError where weights are not to be had or belong to another network.
    """
    if name not in NETWORKS:
        raise ModelError(f"torchvision has no {name!r}; allowed: {', '.join(NETWORKS)}")
    try:
        import torch
        from torchvision.models import segmentation
    except ImportError:
        raise EngineUnavailableError(
            f"{name} is made by torchvision, which is not installed; "
            "pip install 'streamseg[models]'"
        ) from None

    class Scores(torch.nn.Module):
        """The network without its auxiliary head, which only training uses."""

        def __init__(self, network: Any) -> None:
            super().__init__()
            self.network = network

        def forward(self, pictures: Any) -> Any:
            return self.network(pictures)["out"]

    build = getattr(segmentation, name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        network = build(weights=None, weights_backbone=None, num_classes=classes)
    if weights == "official":
        network.load_state_dict(official_state(name), strict=False)
    elif weights != "random":
        _load(network, Path(weights), name)
    return Scores(network).eval()


def torchvision_model(
    name: str,
    weights: str = "official",
    size: tuple[int, int] = SIZE,
    say: Callable[[str], None] = lambda line: None,
) -> Model:
    """The network as an ONNX file in the user's cache, made first if it is not there.

    A second start needs neither torch nor the weights. Raises ModelError, EngineUnavailableError.
    """
    card = torchvision_card(name, size, weights)
    folder = cache_dir("zoo")
    if folder is None:
        raise ModelError("no cache folder is writable, where the network would be kept as ONNX")
    path = folder / f"{name}-{weights_digest(name, weights)[:16]}.onnx"
    if not path.is_file():
        network = make_torchvision(name, weights=weights)
        say(f"writing {name} as ONNX (once)")
        from engines.export import export_onnx

        with tempfile.TemporaryDirectory(dir=folder) as fresh:
            export_onnx(network, Path(fresh) / path.name, size=TRACE_SIZE)
            (Path(fresh) / path.name).replace(path)
    return Model(card, path)


def weights_digest(name: str, weights: str) -> str:
    """What tells one network's weights from another's, without loading torch."""
    if weights in ("official", "random"):
        return weights
    path = Path(weights)
    if not path.is_file():
        raise ModelError(f"no weights file at {path}; --weights is official, random or a .pth file")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def official_state(name: str) -> dict[str, Any]:
    """The tensors of one of NETWORKS as torchvision publishes them, without the auxiliary head's;
    torchvision fetches them once. Raises ModelError where it cannot.
    """
    from torchvision.models import segmentation

    enum = getattr(segmentation, NETWORKS[name]).DEFAULT
    try:
        state: dict[str, Any] = enum.get_state_dict(progress=True, check_hash=True)
    except OSError as error:
        raise ModelError(
            f"{name}'s weights cannot be fetched ({error}); on a machine with a network fetch "
            f"{enum.url} and give it with --weights FILE"
        ) from None
    return {key: value for key, value in state.items() if not key.startswith("aux_")}


def _load(network: Any, path: Path, name: str) -> None:
    import torch

    if not path.is_file():
        raise ModelError(f"no weights file at {path}; --weights is official, random or a .pth file")
    try:
        # weights_only: a pickle from somewhere must not run code.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises what its parts raise
        line = " ".join(str(error).split())[:200]
        raise ModelError(f"{path} is not a file of torch weights: {line}") from None
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise ModelError(f"{path} holds no state dict; save one with torch.save(net.state_dict())")
    state = {key: value for key, value in state.items() if not key.startswith("aux_")}
    try:
        missing, unknown = network.load_state_dict(state, strict=False)
    except RuntimeError as error:
        line = str(error).strip().splitlines()[-1].strip()
        raise ModelError(f"{path} is not for {name}: {line}") from None
    if missing or unknown:
        first = f"{missing[0]} is missing" if missing else f"{unknown[0]} is unknown"
        raise ModelError(f"{path} is not for {name}: {first}")
