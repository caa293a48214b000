"""Labelled pictures and how they are read: pairs of a picture and a mask of class ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.frame import Image
from pipeline.sources.images import read_image
from tools.errors import DataError

VOID = 255
"""The id of pixels that belong to no class, whatever the files call them."""

REFUSED = -1
"""In a table of ids: a value that a mask must not have."""

MASK_SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".pgm")
"""Lossless formats; JPEG would blend one id into the next."""


@dataclass(frozen=True)
class Pair:
    """A picture and its mask."""

    name: str
    image: Path
    mask: Path


@dataclass(frozen=True)
class Dataset:
    """The pairs of one split of a data set, and what the values in its masks mean."""

    title: str
    """For people: `camvid val in PATH`."""
    pairs: tuple[Pair, ...]
    table: NDArray[np.int16]
    """int16 (256,): a mask's value -> class id, VOID or REFUSED."""
    classes: tuple[str, ...] = ()
    """Names by id; empty where the data set states none."""
    palette: str = "voc"
    missing: tuple[str, ...] = ()
    """A line for each picture without a mask and mask without a picture."""


def id_table(count: int, void: Iterable[int] = (VOID,)) -> NDArray[np.int16]:
    """Masks whose values are the class ids 0 .. count - 1 themselves, and `void` values."""
    table = np.full(256, REFUSED, np.int16)
    table[:count] = np.arange(count)
    table[list(void)] = VOID
    return table


def read_pair(dataset: Dataset, pair: Pair) -> tuple[Image, Image]:
    """uint8 (H, W, 3) RGB and uint8 (H, W) class ids with VOID; raises DataError or SourceError
    naming the file that is at fault.
    """
    image = read_image(pair.image)
    values = read_mask(pair.mask)
    if image.shape[:2] != values.shape:
        (h, w), (mh, mw) = image.shape[:2], values.shape
        raise DataError(f"{pair.mask} is {mw}x{mh}, but its picture {pair.image} is {w}x{h}")
    return image, to_ids(dataset, values, pair.mask)


def to_ids(dataset: Dataset, values: Image, where: Path) -> Image:
    """A mask's values, uint8 (H, W) -> class ids and VOID, uint8 (H, W)."""
    ids = dataset.table[values]
    if (wrong := ids == REFUSED).any():
        y, x = np.argwhere(wrong)[0]
        found = ", ".join(str(v) for v in np.unique(values[wrong])[:8])
        raise DataError(
            f"{where} has the value {found} (first at x {x}, y {y}); allowed are "
            f"{_ranges(dataset.table)}"
        )
    return ids.astype(np.uint8)


def _ranges(table: NDArray[np.int16]) -> str:
    """`0 to 10 and the void 255`."""
    classes = [v for v in range(256) if table[v] not in (REFUSED, VOID)]
    voids = [str(v) for v in range(256) if table[v] == VOID]
    text = f"{classes[0]} to {classes[-1]}"
    if len(classes) != classes[-1] - classes[0] + 1:
        text = ", ".join(map(str, classes))
    return f"{text} and the void {', '.join(voids)}" if voids else text


def read_mask(path: Path) -> Image:
    """A mask's values, uint8 (H, W): gray levels, or positions in a palette.

    Raises DataError where a file is no such picture.
    """
    if path.suffix.lower() not in MASK_SUFFIXES:
        raise DataError(
            f"{path} is no mask: lossless formats are read ({', '.join(MASK_SUFFIXES)})"
        )
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    png = data[:4].tobytes() == b"\x89PNG" and data.size > 25
    bits, kind = (int(data[24]), int(data[25])) if png else (8, 0)  # of PNG's header, IHDR
    if kind == 3:
        return _palette_positions(path)
    try:
        values = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    except cv2.error:
        values = None
    if values is None:
        raise DataError(f"{path} is not a picture that can be decoded")
    if values.ndim != 2 or values.dtype != np.uint8:
        raise DataError(
            f"{path} has {1 if values.ndim == 2 else values.shape[2]} channels of {values.dtype}; "
            "a mask has one of 8 bits, gray or with a palette, whose values are class ids"
        )
    if bits < 8:
        values = values // (255 // (2**bits - 1))  # OpenCV stretches ids of 1, 2 or 4 bits to 255
    return np.asarray(values, np.uint8)


def _palette_positions(path: Path) -> Image:
    """A palette PNG's values; OpenCV would give the colours behind them."""
    try:
        with av.open(str(path)) as file:
            values, _ = next(file.decode(video=0)).to_ndarray()
    except (av.FFmpegError, StopIteration) as error:
        raise DataError(f"{path} is not a picture that can be decoded: {error}") from None
    return np.asarray(values, np.uint8)


def limit_ids(dataset: Dataset, count: int) -> Dataset:
    """The same with ids below `count` only, for a data set that does not name its classes."""
    table = dataset.table.copy()
    table[(table >= count) & (table != VOID)] = REFUSED
    return replace(dataset, table=table)


def check_classes(names: Sequence[str], where: str) -> tuple[str, ...]:
    """Class names that may stand in a card; raises DataError."""
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise DataError(f"{where} names {', '.join(twice)} twice")
    if not 2 <= len(names) <= VOID:
        raise DataError(f"{where} names {len(names)} classes; 2 to {VOID} are possible")
    return tuple(names)
