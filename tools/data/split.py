"""Splits pictures that come without a split into those to train with and those to validate with."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from tools.data.labelled import Dataset
from tools.errors import DataError


def share_out(dataset: Dataset, share: float) -> tuple[Dataset, Dataset]:
    """The two parts, the second with about `share` of the pairs, in the order they had.

    A picture's part follows from its name alone, so that pictures which are added later leave the
    others where they are, and a network is never validated with what an older one was trained with.
    """
    held = [pair for pair in dataset.pairs if _position(pair.name) < share]
    rest = [pair for pair in dataset.pairs if _position(pair.name) >= share]
    if not held or not rest:
        raise DataError(
            f"{dataset.title}: {len(dataset.pairs)} pictures cannot be shared out with val "
            f"{share}; take another share, or name a split"
        )
    title = dataset.title
    return (
        replace(dataset, title=f"{title} (but for val)", pairs=tuple(rest)),
        replace(dataset, title=f"{title} ({share:.0%} for val)", pairs=tuple(held), missing=()),
    )


def _position(name: str) -> float:
    """0 <= position < 1, spread evenly over names."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / 2**48
