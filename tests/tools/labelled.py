"""Labelled pictures made on the spot: coloured rectangles on gray, and masks that say which."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

# A class each: background, red, green, blue, as in tests/tools/program.py.
COLOURS = np.array([[90, 90, 90], [230, 20, 20], [20, 230, 20], [20, 20, 230]], np.uint8)
NAMES = ("background", "red", "green", "blue")


def scene(seed: int, height: int = 24, width: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (H, W, 3) RGB and uint8 (H, W) ids: two rectangles, and two rows of void."""
    rng = np.random.default_rng(seed)
    ids = np.zeros((height, width), np.uint8)
    for class_id in rng.permutation([1, 2, 3])[:2]:
        top, left = rng.integers(0, height // 2), rng.integers(0, width // 2)
        ids[top : top + height // 2, left : left + width // 2] = class_id
    image = COLOURS[ids].astype(int) + rng.integers(-15, 16, (height, width, 3))
    ids[:2] = 255
    return np.clip(image, 0, 255).astype(np.uint8), ids


def save(path: Path, image: np.ndarray) -> Path:
    """RGB or ids, by the number of dimensions."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    assert cv2.imwrite(str(path), image)
    return path


def save_pairs(root: Path, train: int = 8, val: int = 3, names=NAMES, **size: int) -> Path:
    """A data set of layout `pairs` with two splits and classes.txt."""
    for split, count, first in (("train", train, 0), ("val", val, 1000)):
        for i in range(count):
            image, ids = scene(first + i, **size)
            save(root / "images" / split / f"p{i}.png", image)
            save(root / "masks" / split / f"p{i}.png", ids)
    if names:
        (root / "classes.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    return root
