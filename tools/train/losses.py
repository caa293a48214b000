"""What the network is trained to make small.

A weighted sum of:

    cross_entropy  the negative log of the true class's probability
    focal          the same times (1 - probability) ** gamma (Lin et al. 2017, arXiv 1708.02002)
    dice           1 - the mean over classes of 2 |p t| / (|p| + |t|), p probabilities, t the truth
    lovasz         the Lovász extension of 1 - IoU (Berman et al. 2018, arXiv 1705.08790)

Dice and Lovász look at all pixels of a batch together and at the classes that occur in its truth.
Void pixels count nowhere; a batch that is void altogether has a loss of 0.
"""

# mypy: disable-error-code="import-not-found, unused-ignore"

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from tools.data.labelled import VOID
from tools.errors import TrainError
from tools.train.config import DiceConfig, FocalConfig, LossConfig, LovaszConfig

Loss = Callable[[Tensor, Tensor], Tensor]
"""(N, classes, H, W) float32 logits, (N, H, W) int64 ids with VOID -> a float32 scalar."""


def make_losses(
    configs: Sequence[LossConfig], balanced: NDArray[np.float64], device: torch.device
) -> Callable[[Tensor, Tensor], dict[str, Tensor]]:
    """A function that gives each loss by its kind, times its weight; `total` is their sum.

    balanced: float (classes,), what class_weights `balanced` stands for.
    """
    parts: dict[str, tuple[float, Loss]] = {
        config.kind: (config.weight, _make(config, balanced, device)) for config in configs
    }

    def losses(logits: Tensor, truth: Tensor) -> dict[str, Tensor]:
        values = {kind: weight * loss(logits, truth) for kind, (weight, loss) in parts.items()}
        return {"total": torch.stack(list(values.values())).sum(), **values}

    return losses


def balanced_weights(pixels: NDArray[np.int64], around: NDArray[np.int64]) -> NDArray[np.float64]:
    """Median frequency balancing (Eigen and Fergus 2015, arXiv 1411.4734, section 6.3.2).

    A class's frequency is its pixels (int64 (classes,)) over those of the pictures in which it
    occurs (`around`, alike); its weight is the median of all frequencies over its own. A class that
    never occurs has 0.
    """
    frequency = pixels / np.maximum(around, 1)
    seen = frequency > 0
    weights = np.zeros(len(pixels))
    weights[seen] = np.median(frequency[seen]) / frequency[seen]
    return weights


def _make(config: LossConfig, balanced: NDArray[np.float64], device: torch.device) -> Loss:
    if isinstance(config, DiceConfig):
        return dice
    if isinstance(config, LovaszConfig):
        return partial(lovasz, stride=config.stride)
    weights: Tensor | None = None
    if config.class_weights is not None:
        given = balanced if config.class_weights == "balanced" else np.array(config.class_weights)
        if len(given) != len(balanced):
            raise TrainError(
                f"losses: {config.kind} has {len(given)} class_weights for {len(balanced)} classes"
            )
        weights = torch.tensor(given, dtype=torch.float32, device=device)
    if isinstance(config, FocalConfig):
        return partial(focal, gamma=config.gamma, weights=weights)
    return partial(cross_entropy, weights=weights, label_smoothing=config.label_smoothing)


def cross_entropy(
    logits: Tensor, truth: Tensor, weights: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Mean over pixels, weighted by their class's weight (float32 (classes,))."""
    each = functional.cross_entropy(
        logits,
        truth,
        weight=weights,
        ignore_index=VOID,
        label_smoothing=label_smoothing,
        reduction="sum",
    )
    return each / _pixels(truth, weights)


def focal(
    logits: Tensor, truth: Tensor, gamma: float = 2.0, weights: Tensor | None = None
) -> Tensor:
    """Mean over pixels, weighted by their class's weight (float32 (classes,))."""
    each = functional.cross_entropy(logits, truth, ignore_index=VOID, reduction="none")
    each = (1 - torch.exp(-each)) ** gamma * each  # exp(-each) is the true class's probability
    if weights is not None:
        each = each * weights[truth.where(truth != VOID, 0)]
    return each.sum() / _pixels(truth, weights)


def dice(logits: Tensor, truth: Tensor) -> Tensor:
    """1 - the mean Dice of the classes in the truth."""
    known = (truth != VOID).unsqueeze(1)
    probabilities = logits.softmax(1) * known
    target = functional.one_hot(truth.where(truth != VOID, 0), logits.shape[1])
    target = target.permute(0, 3, 1, 2) * known
    both = (probabilities * target).sum((0, 2, 3))
    size = target.sum((0, 2, 3))
    each = 2 * both / (probabilities.sum((0, 2, 3)) + size).clamp(min=1e-6)
    seen = (size > 0).to(each.dtype)
    return ((1 - each) * seen).sum() / seen.sum().clamp(min=1)


def lovasz(logits: Tensor, truth: Tensor, stride: int = 1) -> Tensor:
    """The mean over the classes in the truth of the Lovász extension of 1 - IoU.

    stride: of every row and column only each `stride`-th pixel is looked at. All pixels are sorted
    once for each class, which on a CPU takes longer than a small network.
    """
    offset = stride // 2
    some = (..., slice(offset, None, stride), slice(offset, None, stride))
    logits, truth = logits[some], truth[some]
    probabilities = logits.softmax(1).permute(1, 0, 2, 3).flatten(1)
    truth = truth.flatten()
    known = truth != VOID
    probabilities, truth = probabilities[:, known], truth[known]
    losses = []
    for class_id in truth.unique():
        target = (truth == class_id).to(probabilities.dtype)
        errors, order = (target - probabilities[class_id]).abs().sort(descending=True)
        target = target[order]
        size = target.sum()
        # 1 - IoU if the first k pixels were wrong; the weights are its steps.
        jaccard = 1 - (size - target.cumsum(0)) / (size + (1 - target).cumsum(0))
        steps = torch.cat([jaccard[:1], jaccard[1:] - jaccard[:-1]])
        losses.append(errors @ steps)
    return torch.stack(losses).mean() if losses else logits.sum() * 0


def _pixels(truth: Tensor, weights: Tensor | None) -> Tensor:
    """The number of pixels that are not void, each counted with its weight; not 0."""
    known = truth != VOID
    if weights is None:
        return known.sum().clamp(min=1)
    return (weights[truth.where(known, 0)] * known).sum().clamp(min=1e-6)
