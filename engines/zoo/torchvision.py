"""torchvision's six segmentation networks, by the names that torchvision has for them.

Their official weights were trained on COCO's pictures with VOC's 21 classes. torchvision fetches
them itself, on the user's machine; a file of weights works without a network. Needs the extra
`models`, and only here: what comes out is an ONNX file with a card.
"""

# mypy: disable-error-code="import-not-found, unused-ignore", disallow-subclassing-any=False

from __future__ import annotations

from pathlib import Path
from typing import Any

from engines.card import Card, CardInput
from engines.errors import EngineUnavailableError, ModelError
from engines.zoo.weights import load_network

# The weights enum's name beside each builder's: torchvision.models.segmentation.
NETWORKS = {
    "fcn_resnet50": "FCN_ResNet50_Weights",
    "fcn_resnet101": "FCN_ResNet101_Weights",
    "deeplabv3_resnet50": "DeepLabV3_ResNet50_Weights",
    "deeplabv3_resnet101": "DeepLabV3_ResNet101_Weights",
    "deeplabv3_mobilenet_v3_large": "DeepLabV3_MobileNet_V3_Large_Weights",
    "lraspp_mobilenet_v3_large": "LRASPP_MobileNet_V3_Large_Weights",
}
# What the names of the last layers begin with.
HEAD = "classifier."
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


def torchvision_card(
    name: str,
    size: tuple[int, int] = SIZE,
    weights: str = "official",
    classes: tuple[str, ...] = VOC_CLASSES,
) -> Card:
    """The card of one of NETWORKS at (H, W) pixels; `weights` as for `make_torchvision`."""
    height, width = size
    return Card(
        name=name,
        description=f"torchvision's {name}, {len(classes)} classes",
        input=CardInput(height=height, width=width, mean=MEAN, std=STD, color="rgb"),
        classes=classes,
        license="BSD-3-Clause (torchvision); weights: COCO's terms"
        if weights == "official"
        else "BSD-3-Clause (torchvision); weights: not stated",
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
        load_network(network, Path(weights), HEAD, name)
    return Scores(network).eval()


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
