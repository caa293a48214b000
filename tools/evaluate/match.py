"""Which classes of a data set are compared with which of a model's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.frame import Image
from tools.data.labelled import VOID
from tools.errors import DataError

OTHER = 254
"""In labels that are brought to the compared classes: a class of the model's that is not one."""


@dataclass(frozen=True)
class Match:
    """The classes that are compared, and their ids on both sides."""

    classes: tuple[str, ...]
    truth: tuple[int, ...]
    """The data set's id of each."""
    labels: tuple[int, ...]
    """The model's id of each."""
    how: str
    """For people: by id or by name."""
    left_out: tuple[str, ...] = ()
    """The data set's classes that the model has not: their pixels count nowhere."""
    extra: tuple[str, ...] = ()
    """The model's classes that the data set has not: what is called so is wrong."""

    def select(self, counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """From int64 (data set's classes + 1, model's classes) counts to those of the compared
        ones, (classes + 1, classes + 1): the last row is void, the last column the extra classes.
        """
        rows = counts[[*self.truth, counts.shape[0] - 1]]
        chosen = rows[:, list(self.labels)]
        rest = rows.sum(axis=1, keepdims=True) - chosen.sum(axis=1, keepdims=True)
        return np.hstack([chosen, rest])

    def compared(self, truth: Image, labels: Image) -> tuple[Image, Image]:
        """Ids of both, uint8 (H, W), as positions in `classes`, or VOID and OTHER."""
        return _table(self.truth, VOID)[truth], _table(self.labels, OTHER)[labels]


def match_classes(truth: Sequence[str], labels: Sequence[str]) -> Match:
    """By id where a data set names no classes or the same ones in the same order, else by name:
    upper and lower case, `_` and blanks make no difference. Raises DataError if nothing matches.
    """
    if not truth or [_plain(n) for n in truth] == [_plain(n) for n in labels]:
        ids = tuple(range(len(labels)))
        how = "by id: the data set has the model's classes"
        if not truth:
            how = "by id: the data set names no classes, so its ids are taken for the model's"
        return Match(tuple(labels), ids, ids, how)
    ours = {_plain(name): i for i, name in enumerate(labels)}
    found = [(name, i, ours[_plain(name)]) for i, name in enumerate(truth) if _plain(name) in ours]
    if not found:
        raise DataError(
            f"no class of the data set ({', '.join(truth)}) is one of the model's "
            f"({', '.join(labels)}); nothing can be compared"
        )
    names = {_plain(name) for name, _, _ in found}
    return Match(
        classes=tuple(name for name, _, _ in found),
        truth=tuple(i for _, i, _ in found),
        labels=tuple(i for _, _, i in found),
        how=f"by name: {len(found)} classes that both have",
        left_out=tuple(name for name in truth if _plain(name) not in names),
        extra=tuple(name for name in labels if _plain(name) not in names),
    )


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").split()).casefold()


def _table(ids: Sequence[int], otherwise: int) -> NDArray[np.uint8]:
    table = np.full(256, otherwise, np.uint8)
    table[list(ids)] = np.arange(len(ids))
    return table
