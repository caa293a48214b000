"""What is evaluated: pictures one after the other, each with its true labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from pipeline.frame import Image
from pipeline.sources import open_recorded, open_source
from pipeline.sources.images import natural_order
from tools.data.labelled import MASK_SUFFIXES, Dataset, id_table, read_mask, to_ids
from tools.data.layouts import class_names
from tools.data.survey import Pictures
from tools.errors import DataError

Labelled = tuple[str, Image, Image | None]
"""A name, a picture, uint8 (H, W, 3) RGB, and its true ids, uint8 (H, W) with VOID; no ids for a
frame of a video that nobody has labelled.
"""


@dataclass(frozen=True)
class Truth:
    """Labelled pictures, from files or a video."""

    title: str
    classes: tuple[str, ...]
    palette: str
    count: int
    """Pictures; 0 where nobody knows."""
    read: Callable[[], Iterator[Labelled]]


def from_pictures(pictures: Pictures) -> Truth:
    """Of a data set's split."""
    dataset = pictures.dataset

    def read() -> Iterator[Labelled]:
        for i, pair in enumerate(dataset.pairs):
            yield pair.name, *pictures[i]

    return Truth(dataset.title, dataset.classes, dataset.palette, len(pictures), read)


def from_video(video: str, folder: Path, every: int, classes: int, whole: bool = False) -> Truth:
    """Of a video's frames 0, every, 2 every, ..., labelled by the masks in a folder, in natural
    order; with `whole` also the frames between and behind them, without labels. Where the folder
    has no classes.txt, ids are below `classes`. Raises DataError where the video has fewer frames
    than the masks need.
    """
    if not folder.is_dir():
        raise DataError(f"no folder of labels at {folder}")
    masks = natural_order(p for p in folder.iterdir() if p.suffix.lower() in MASK_SUFFIXES)
    if not masks:
        raise DataError(f"folder {folder} holds no masks ({', '.join(MASK_SUFFIXES)})")
    names = class_names(folder)
    dataset = Dataset(f"{video} with {folder}", (), id_table(len(names) or classes), names)

    def read() -> Iterator[Labelled]:
        last = (len(masks) - 1) * every
        source = open_source(video, max_frames=None if whole else last + 1)
        seen = 0
        with closing(source):
            for frame in source.frames():
                if frame.index % every or seen == len(masks):
                    if whole:
                        yield f"frame {frame.index}", frame.image, None
                    continue
                mask = masks[seen]
                seen += 1
                ids = to_ids(dataset, read_mask(mask), mask)
                if ids.shape != frame.image.shape[:2]:
                    (h, w), (mh, mw) = frame.image.shape[:2], ids.shape
                    raise DataError(f"{mask} is {mw}x{mh}, but a frame of {video} is {w}x{h}")
                yield f"{mask.stem} (frame {frame.index})", frame.image, ids
        if seen < len(masks):
            raise DataError(
                f"{video} ends before frame {seen * every}, which {masks[seen]} is for; give the "
                "--every that the labels were made with"
            )

    count = (_frames(video) or 0) if whole else len(masks)
    return Truth(dataset.title, names, dataset.palette, count, read)


def without_labels(video: str) -> Truth:
    """Of all frames of a video, or of a folder's pictures, which nobody has labelled."""

    def read() -> Iterator[Labelled]:
        source = open_source(video)
        with closing(source):
            for frame in source.frames():
                yield f"frame {frame.index}", frame.image, None

    return Truth(video, (), "voc", _frames(video) or 0, read)


def _frames(video: str) -> int | None:
    with closing(open_recorded(video)) as source:
        return source.info.frames
