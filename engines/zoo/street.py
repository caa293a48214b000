"""`Street`: MobileNetV2 with a light top-down decoder, made for cameras on the road.

The encoder answers at strides 4, 8, 16 and 32. The decoder starts from the deepest map, weighed by
what the whole picture shows, and takes each finer one in by a 1x1 convolution and a separable 3x3
one, which cost a tenth of FPN's full ones. Scores are at stride 4, and whoever runs the network
enlarges them (engines/graph.py does): layers at full size cost more than all others together.
Needs torch and torchvision.
"""

# mypy: disable-error-code="import-not-found, unused-ignore", disallow-subclassing-any=False

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import mobilenet_v2

from engines.zoo.weights import load_encoder

# MobileNetV2's paper (arXiv 1801.04381), table 2: after which of torchvision's blocks a stride is
# complete, and how many channels there are.
_STAGES = {3: 24, 6: 32, 13: 96, 17: 320}
# Of the decoder, from stride 32 to 4.
_CHANNELS = (128, 128, 96, 64)


def _conv(inputs: int, outputs: int, kernel: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution that keeps the size, and its norm."""
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs))


class Merge(nn.Module):
    """A coarse map and a finer one of the encoder's -> a map of the finer one's size."""

    def __init__(self, coarse: int, fine: int, outputs: int) -> None:
        super().__init__()
        self.lateral = _conv(fine, coarse)
        self.spatial = _conv(coarse, coarse, 3, groups=coarse)
        self.pointwise = _conv(coarse, outputs)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """(N, coarse, h, w), (N, fine, H, W) -> (N, outputs, H, W), float32."""
        larger = functional.interpolate(
            coarse, fine.shape[2:], mode="bilinear", align_corners=False
        )
        joined = functional.relu(larger + self.lateral(fine))
        return functional.relu(self.pointwise(self.spatial(joined)))


class Street(nn.Module):
    """Input: (N, 3, H, W) float32 normalised RGB, any H and W from 32 on.

    Output: (N, classes, H / 4, W / 4) float32 logits, sizes rounded up.
    """

    def __init__(self, classes: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.encoder = mobilenet_v2(weights=None).features[: max(_STAGES) + 1]
        fine4, fine8, fine16, deepest = _STAGES.values()
        wide32, wide16, wide8, wide4 = _CHANNELS
        self.local = _conv(deepest, wide32)
        self.context = nn.Conv2d(deepest, wide32, 1)
        self.merge16 = Merge(wide32, fine16, wide16)
        self.merge8 = Merge(wide16, fine8, wide8)
        self.merge4 = Merge(wide8, fine4, wide4)
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(wide4, classes, 1)

    def forward(self, picture: Tensor) -> Tensor:
        """(N, 3, H, W) float32 normalised RGB -> (N, classes, H / 4, W / 4) float32 logits."""
        maps = []
        x = picture
        for index, block in enumerate(self.encoder):
            x = block(x)
            if index in _STAGES:
                maps.append(x)
        whole = functional.adaptive_avg_pool2d(x, 1)
        x = functional.relu(self.local(x)) * torch.sigmoid(self.context(whole))
        x = self.merge16(x, maps[2])
        x = self.merge8(x, maps[1])
        x = self.merge4(x, maps[0])
        scores: Tensor = self.classify(self.dropout(x))
        return scores


def make_street(classes: int, encoder_weights: Path | None = None) -> Street:
    """The network, its encoder from a file of torchvision's mobilenet_v2 where one is given."""
    network = Street(classes)
    if encoder_weights is not None:
        load_encoder(network.encoder, encoder_weights)
    return network
