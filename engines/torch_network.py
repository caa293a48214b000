"""A torch module with the card's preprocessing before it and class ids after it.

What engines/graph.py does for an ONNX file, in torch: pictures uint8 (N, H, W, 3) RGB go in, class
ids uint8 (N, H, W) come out, and nothing in between leaves the device.
"""

# mypy: disable-error-code="import-not-found, unused-ignore", disallow-subclassing-any=False

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from engines.card import LUMA, Card
from engines.errors import CardError


class PictureNetwork(nn.Module):
    """`scores` is (N, channels, H, W) normalised -> (N, classes, h, w) logits; it is changed: put
    in evaluation mode, into `kind` (torch.float16, ...) and into channels-last memory.
    """

    def __init__(self, scores: nn.Module, card: Card, kind: torch.dtype) -> None:
        super().__init__()
        if (card.input.layout, card.output.layout) != ("nchw", "nchw"):
            raise CardError(
                f"{card.name}'s card says nhwc, but torch's networks take and give nchw; "
                "correct layout in the card"
            )
        self.scores = scores.eval().requires_grad_(False)
        self.scores.to(dtype=kind, memory_format=torch.channels_last)
        self.kind = kind
        self.card = card
        std = np.asarray(card.input.std, np.float64)
        scale = 1.0 / (255.0 * std)
        shift = -np.asarray(card.input.mean, np.float64) / std
        # Buffers, so that they go to the device with the weights; in float32 whatever `kind` is.
        for name, values in (("scale", scale), ("shift", shift), ("luma", np.asarray(LUMA))):
            buffer = torch.from_numpy(values.astype(np.float32).reshape(1, -1, 1, 1))
            self.register_buffer(name, buffer, persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        """uint8 (N, H, W, 3) RGB -> uint8 (N, H, W)."""
        # Pictures as they lie are channels-last already: no copy turns them.
        x = pictures.permute(0, 3, 1, 2).float()
        if self.card.input.color == "gray":
            x = (x * self.luma).sum(1, keepdim=True)
        elif self.card.input.color == "bgr":
            x = x.flip(1)
        # Only now: 8-bit pictures are exact in float, and the network gets them normalised.
        x = (x * self.scale + self.shift).to(self.kind, memory_format=torch.channels_last)
        return self._highest(self.scores(x))

    def _highest(self, scores: Tensor) -> Tensor:
        """(N, classes, h, w) -> the class of the highest score at the card's size, uint8."""
        classes, size = len(self.card.classes), (self.card.input.height, self.card.input.width)
        if scores.ndim != 4 or scores.shape[1] not in (classes, 1):
            raise CardError(
                f"{self.card.name} answers {tuple(scores.shape)}, but its card names {classes} "
                "classes; class scores are (N, classes, height, width)"
            )
        if tuple(scores.shape[2:]) != size:
            # In float, because half precision would round borders between classes once more.
            scores = functional.interpolate(
                scores.float(), size, mode="bilinear", align_corners=False
            )
        if scores.shape[1] == 1:
            return (scores[:, 0] > 0).to(torch.uint8)
        return scores.argmax(1).to(torch.uint8)
