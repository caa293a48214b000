"""Runs the model over labelled pictures and adds up how right it is."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engines.engine import Engine, Pending
from pipeline.flicker import Flicker
from pipeline.frame import Image
from pipeline.stages.geometry import LabelScaler, to_network, window
from pipeline.stages.smooth import Smoother
from tools.evaluate.boundary import BoundaryScores
from tools.evaluate.match import Match
from tools.evaluate.metrics import Confusion, Scores, Void, scores
from tools.evaluate.truth import Labelled, Truth


@dataclass(order=True)
class Shown:
    """A picture for the sheet of the worst ones; the lower the mIoU, the greater."""

    badness: float
    order: int
    name: str = field(compare=False)
    image: Image = field(compare=False)
    """uint8 (H, W, 3) RGB."""
    truth: Image = field(compare=False)
    """Ids of the compared classes with VOID, uint8 (H, W)."""
    labels: Image = field(compare=False)
    """Ids of the compared classes with OTHER, uint8 (H, W)."""


@dataclass
class Measured:
    """What a whole evaluation found."""

    scores: Scores
    boundary_f: NDArray[np.float64]
    """Float64 (classes,), NaN where a class has none."""
    counts: NDArray[np.int64]
    """Of the compared classes, as `Match.select` gives them."""
    left_out: int
    """Pixels of classes that the model has not."""
    pictures: int
    """Those with a truth."""
    fps: float
    worst: list[Shown]


def measure(
    engine: Engine,
    truth: Truth,
    match: Match,
    void: Void,
    *,
    worst: int = 0,
    flicker: Flicker | None = None,
    smooth: bool = False,
    tick: Callable[[], None] = lambda: None,
) -> Measured:
    """Compares every picture at its own size; keeps the `worst` so many. `tick` may raise to stop.

    `flicker` is shown every picture, whether it has a truth or not. With `smooth` the pictures are
    a video's frames, and labels are smoothed over time as in `run`. The rate is that of the network
    alone, at full load: pictures a second of the engine's time.
    """
    total = Confusion(len(truth.classes) or len(match.classes), len(engine.card.classes))
    borders = BoundaryScores(len(match.classes))
    kept: list[Shown] = []
    pictures = seen = 0
    busy = engine.busy_s
    for (name, image, true), labels in predict(engine, truth.read(), smooth):
        tick()
        seen += 1
        if flicker is not None:
            flicker.add(image, labels)
        if true is None:
            continue
        one = Confusion(total.counts.shape[0] - 1, total.counts.shape[1])
        one.add(true, labels)
        total.counts += one.counts
        ours, theirs = match.compared(true, labels)
        borders.add(ours, theirs)
        miou = scores(match.select(one.counts), void).miou
        if worst and not np.isnan(miou):
            # The order breaks ties, so that equal runs show equal pictures.
            heapq.heappush(kept, Shown(-miou, -pictures, name, image, ours, theirs))
            if len(kept) > worst:
                heapq.heappop(kept)
        pictures += 1
    counts = match.select(total.counts)
    busy = engine.busy_s - busy
    return Measured(
        scores=scores(counts, void),
        boundary_f=borders.scores,
        counts=counts,
        left_out=int(total.counts.sum() - counts.sum()),
        pictures=pictures,
        fps=seen / busy if busy else 0.0,
        worst=sorted(kept, reverse=True),
    )


def predict(
    engine: Engine, pictures: Iterable[Labelled], smooth: bool = False
) -> Iterator[tuple[Labelled, Image]]:
    """Each picture with the engine's labels, uint8 (H, W) at the picture's size, in order.

    By the sampling rules of `run`, and as many ahead as the engine takes.
    """
    scale = LabelScaler()
    want = engine.card.input
    waiting: deque[tuple[Labelled, Image, Pending]] = deque()
    smoother = Smoother() if smooth else None

    def finish() -> tuple[Labelled, Image]:
        picture, given, pending = waiting.popleft()
        height, width = picture[1].shape[:2]
        small = pending.result()[0]
        if smoother is not None:
            # No times are known here, and no frame is missing.
            small = smoother(small, given[0], window(height, width, want), 0.0)
        return picture, scale(small, height, width, want)

    for picture in pictures:
        given = to_network(picture[1], want)
        waiting.append((picture, given, engine.submit(given)))
        if len(waiting) >= engine.depth:
            yield finish()
    while waiting:
        yield finish()
