"""Pictures from which `build --precision int8` takes its ranges, and those that check them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from engines.card import Card
from pipeline.frame import Image
from pipeline.sources import open_recorded
from pipeline.stages.geometry import to_network
from tools.errors import DataError

Pictures = list[NDArray[np.uint8]]

# At most so many: ranges hardly change beyond some dozens, and each is held in memory as float.
_MOST = 80

# Of them each so-manieth is for the check. Its neighbours in time are among the others, so the
# check is about this kind of picture, not about another place.
_HELD_OUT = 5

# Fewer say nothing about the ranges of a network.
_LEAST = 5


def calibration_pictures(sources: Sequence[str], card: Card) -> tuple[Pictures, Pictures]:
    """Pictures spread evenly over each of `sources` (a video, a picture, a folder, a pattern), at
    the network's size, uint8 (1, height, width, 3) RGB: to take ranges from, and to check with.

    Raises SourceError where one cannot be read, DataError where they are too few.
    """
    chosen: list[Image] = []
    for source in sources:
        chosen += _spread(source, card, max(1, _MOST // len(sources)))
    if len(chosen) < _LEAST:
        raise DataError(
            f"--calibrate has {len(chosen)} pictures; {_LEAST} are needed, and some dozens of the "
            "real use are better"
        )
    held_out = chosen[_HELD_OUT // 2 :: _HELD_OUT]
    rest = [p for i, p in enumerate(chosen) if i % _HELD_OUT != _HELD_OUT // 2]
    return rest, held_out


def _spread(source: str, card: Card, most: int) -> Pictures:
    """At most `most` and at least half as many pictures, evenly spread, of any number."""
    chosen: Pictures = []
    step = 1
    with closing(open_recorded(source)) as opened:
        for i, frame in enumerate(opened.frames()):
            if i % step:
                continue
            if len(chosen) == most:
                chosen, step = chosen[::2], 2 * step
                if i % step:
                    continue
            chosen.append(to_network(frame.held_image, card.input))
    return chosen
