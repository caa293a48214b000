"""The guard: does a faster engine still give the masks that FP32 gives?

Half precision has ruined networks silently: activations beyond 65,504 become infinite, and the mask
is one class. A handful of real frames tells. Any engine can be compared with any other; the figures
say which share of the pixels agrees, and for each class the intersection over union of its pixels
in the one mask and in the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from engines.card import Card
from engines.engine import Engine
from engines.errors import DriftError, ModelError

# The share of pixels that must agree; issue and design ask for it.
LEAST_AGREEMENT = 0.99
# A class that covers less than this share of all pixels says nothing about itself.
_LEAST_SHARE = 1e-4

FRAMES = Path(__file__).parent / "guard_frames"
_PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


class Agreement(BaseModel):
    """How two engines' masks of the same pictures agree."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    frames: int
    pixels: float
    """The share of all pixels with the same class, 0..1."""
    classes: dict[str, float]
    """Intersection over union, 0..1, of each class that covers at least a ten-thousandth."""
    reference: str
    """What was compared with, for example `onnxruntime 1.31.1, fp32`."""
    allowed: bool = False
    """Whether a user took it below the bound with --allow-drift."""

    def __str__(self) -> str:
        worst = ", ".join(f"{name} {iou:.3f}" for name, iou in self.worst())
        text = f"{_percent(self.pixels)} of the pixels of {self.frames} frames agree with FP32"
        return f"{text}; class IoU from {worst}" if worst else text

    def worst(self, count: int = 3) -> list[tuple[str, float]]:
        """The classes that agree least, with their IoU."""
        return sorted(self.classes.items(), key=lambda item: item[1])[:count]


def guard_pictures(
    card: Card, folder: Path | None = None, most: int = 8
) -> list[NDArray[np.uint8]]:
    """Real frames at the network's size, uint8 (1, height, width, 3) RGB: the pictures of a folder,
    or those that come with the package. Raises ModelError where there are none.
    """
    found = sorted(p for p in (folder or FRAMES).glob("*") if p.suffix.lower() in _PICTURES)
    size = (card.input.width, card.input.height)
    pictures = []
    for path in found[:most]:
        picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if picture is None:
            raise ModelError(f"{path} is not a picture")
        small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        pictures.append(np.ascontiguousarray(small[None, :, :, ::-1]))
    if not pictures:
        raise ModelError(f"{folder or FRAMES} holds no pictures ({', '.join(_PICTURES)})")
    return pictures


def compare(engine: Engine, reference: Engine, pictures: Sequence[NDArray[np.uint8]]) -> Agreement:
    """Runs both on all pictures, uint8 (1, height, width, 3) RGB."""
    names = engine.card.classes
    count = len(names)
    # The last row and column hold ids beyond the classes, which a broken engine would give.
    confusion = np.zeros((count + 1, count + 1), np.int64)
    for picture in pictures:
        mine, right = engine.submit(picture).result(), reference.submit(picture).result()
        rows, columns = (np.minimum(ids.astype(np.int64), count) for ids in (right, mine))
        pairs = (rows * (count + 1) + columns).ravel()
        confusion += np.bincount(pairs, minlength=confusion.size).reshape(confusion.shape)
    total = confusion.sum()
    either = (confusion.sum(0) + confusion.sum(1) - np.diag(confusion))[:count]
    both = np.diag(confusion)[:count]  # such ids agree with nothing, not even with each other
    seen = [i for i in range(count) if either[i] >= _LEAST_SHARE * total]
    runs = reference.info
    return Agreement(
        frames=len(pictures),
        pixels=float(both.sum() / total),
        classes={names[i]: float(both[i] / either[i]) for i in seen},
        reference=f"{runs.name} {runs.version}, {runs.precision}",
    )


def check(agreement: Agreement, what: str, remedies: Iterable[str]) -> None:
    """Raises DriftError, naming the classes that suffer, where too few pixels agree."""
    if agreement.pixels >= LEAST_AGREEMENT:
        return
    worst = ", ".join(f"{name} (IoU {iou:.2f})" for name, iou in agreement.worst(5) if iou < 1)
    raise DriftError(
        f"{what} drifts: {_percent(agreement.pixels)} of the pixels agree with FP32, "
        f"{LEAST_AGREEMENT:.0%} are needed; it suffers in {worst or 'no single class'}; "
        + ", or ".join(remedies)
    )


def _percent(share: float) -> str:
    """Rounded down: 98.999 % must not read as the 99 % that are needed."""
    return f"{math.floor(share * 10_000 + 1e-9) / 100:.2f}%"
