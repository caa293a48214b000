"""How good the network is now: by the rules of `run`, with the metrics of `evaluate`."""

# mypy: disable-error-code="import-not-found, unused-ignore"

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from engines.card import CardInput
from pipeline.frame import Image
from pipeline.stages.geometry import LabelScaler, to_network, window
from tools.data.labelled import VOID
from tools.data.survey import Pictures
from tools.evaluate.metrics import Confusion
from tools.train.network import enlarge
from tools.train.ranks import Ranks


def validate(
    network: nn.Module,
    pictures: Pictures,
    want: CardInput,
    classes: int,
    losses: Callable[[Tensor, Tensor], dict[str, Tensor]],
    ranks: Ranks,
    tick: Callable[[], None] = lambda: None,
) -> tuple[Confusion, float]:
    """Counts at the pictures' own size, and the mean loss at the network's, over all processes.

    network: uint8 (N, 3, H, W) RGB -> float32 (N, classes, h, w) logits, in evaluation mode. In
    fp32 whatever it is trained in, so that the figures are those of the file that is exported.
    """
    counted, scale = Confusion(classes), LabelScaler()
    loss = torch.zeros((), dtype=torch.float64)
    for index in range(ranks.rank, len(pictures), ranks.count):
        image, truth = pictures[index]
        picture = torch.from_numpy(to_network(image, want)).permute(0, 3, 1, 2)
        target = torch.from_numpy(_at_network_size(truth, want))[None].to(ranks.device).long()
        with torch.inference_mode():
            logits = enlarge(network(picture.to(ranks.device)), (want.height, want.width))
            loss += losses(logits, target)["total"].double().cpu()
            small = logits.argmax(1)[0].to(torch.uint8).cpu().numpy()
        counted.add(truth, scale(small, truth.shape[0], truth.shape[1], want))
        tick()
    counts = ranks.add(torch.from_numpy(counted.counts))
    counted.counts = counts.numpy()
    return counted, float(ranks.add(loss)) / len(pictures)


def _at_network_size(truth: Image, want: CardInput) -> Image:
    """uint8 (H, W) ids -> uint8 (height, width), void around a picture with aspect `keep`."""
    where = window(truth.shape[0], truth.shape[1], want)
    out = np.full((want.height, want.width), VOID, np.uint8)
    inside = where.of(out)
    inside[:] = cv2.resize(
        truth, (where.width, where.height), interpolation=cv2.INTER_NEAREST_EXACT
    )
    return out
