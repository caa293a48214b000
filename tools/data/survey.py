"""Reads every pair once: names what is wrong, counts the classes, and keeps what fits in memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import SourceError
from pipeline.frame import Image
from tools.data.labelled import VOID, Dataset, Pair, read_pair
from tools.errors import DataError

# Of the memory that is free: the rest is for the network, its gradients and the system.
_SHARE_FOR_PICTURES = 0.5


@dataclass
class Survey:
    """What was seen in a split."""

    pixels: NDArray[np.int64]
    """int64 (256,): pixels of each id; the last one is VOID."""
    around: NDArray[np.int64]
    """int64 (256,): pixels that are not void, of those pictures in which the id occurs."""
    sizes: dict[tuple[int, int], int] = field(default_factory=dict)
    """(H, W) -> number of pictures."""
    faults: list[str] = field(default_factory=list)
    """A line for each file that is at fault, naming it."""


class Pictures:
    """A split's pictures and ids, from memory where they were kept."""

    def __init__(self, dataset: Dataset, kept: dict[int, tuple[Image, Image]]) -> None:
        self.dataset = dataset
        self.kept = kept

    def __len__(self) -> int:
        return len(self.dataset.pairs)

    def __getitem__(self, index: int) -> tuple[Image, Image]:
        """uint8 (H, W, 3) RGB and uint8 (H, W) ids with VOID, both read-only."""
        if index in self.kept:
            return self.kept[index]
        return read_pair(self.dataset, self.dataset.pairs[index])


def survey(
    dataset: Dataset, *, keep: bool, tick: Callable[[], None] = lambda: None
) -> tuple[Survey, Pictures]:
    """Reads all pairs, several at a time; `tick` is called after each.

    keep: hold the decoded pictures in memory (for as long as `fits_in_memory` says so).
    """
    found = Survey(np.zeros(256, np.int64), np.zeros(256, np.int64), faults=list(dataset.missing))
    kept: dict[int, tuple[Image, Image]] = {}
    for index, (image, ids, fault) in enumerate(_read_all(dataset)):
        tick()
        if fault is not None or image is None or ids is None:
            found.faults.append(str(fault))
            continue
        counts = np.bincount(ids.reshape(-1), minlength=256)
        found.pixels += counts
        found.around[counts > 0] += counts[:VOID].sum()
        size = (int(ids.shape[0]), int(ids.shape[1]))
        found.sizes[size] = found.sizes.get(size, 0) + 1
        if index == 0 and keep:
            keep = fits_in_memory(len(dataset.pairs) * (image.nbytes + ids.nbytes))
        if keep:
            kept[index] = (image, ids)
    return found, Pictures(dataset, kept)


def fits_in_memory(size: int) -> bool:
    """Whether so many bytes are at most half of what is free; no where nobody can tell."""
    with suppress(AttributeError, ValueError, OSError):  # not on every system
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return size <= free * _SHARE_FOR_PICTURES
    return False


def require_sound(dataset: Dataset, found: Survey, say: Callable[[str], None]) -> None:
    """Names every fault and raises DataError if there is one."""
    for fault in found.faults:
        say(f"fault   {fault}")
    if len(found.faults) == 1:
        raise DataError(f"{dataset.title}: {found.faults[0]}")
    if found.faults:
        raise DataError(
            f"{dataset.title}: {len(found.faults)} faults, each named above; correct the files or "
            f"take them out (the first: {found.faults[0]})"
        )


def histogram(dataset: Dataset, found: Survey) -> list[str]:
    """A line for each class: its share of the pixels that are not void, and of void ones."""
    total = int(found.pixels[:VOID].sum())
    names = dataset.classes or tuple(str(i) for i in range(int(np.max(np.nonzero(found.pixels)))))
    width = max(map(len, names))
    lines = []
    for i, name in enumerate(names):
        share = found.pixels[i] / total if total else 0.0
        lines.append(f"{name:<{width}} {share:7.2%} {'#' * round(40 * share)}".rstrip())
    everything = int(found.pixels.sum())
    void = found.pixels[VOID] / everything if everything else 0.0
    return [*lines, f"{'(void)':<{width}} {void:7.2%} of all pixels"]


def _read_all(dataset: Dataset) -> Iterator[tuple[Image | None, Image | None, str | None]]:
    def read(pair: Pair) -> tuple[Image | None, Image | None, str | None]:
        try:
            image, ids = read_pair(dataset, pair)
        except (DataError, SourceError) as error:
            return None, None, str(error)
        return image, ids, None

    workers = min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers, thread_name_prefix="read") as pool:
        ahead = 4 * workers  # so that a large split is not decoded into the pool's queue
        for start in range(0, len(dataset.pairs), ahead):
            yield from pool.map(read, dataset.pairs[start : start + ahead])
