"""Bringing a picture to a size that cannot change any more, with its own aspect."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def fit(
    picture: NDArray[np.uint8], height: int, width: int, nearest: bool = False
) -> NDArray[np.uint8]:
    """A contiguous picture or mask of exactly (height, width): padded by its edge if it lacks a
    pixel, else scaled into it with its own aspect, centred, on black.
    """
    h, w = picture.shape[:2]
    if (h, w) == (height, width):
        return np.ascontiguousarray(picture)
    if 0 <= height - h <= 1 and 0 <= width - w <= 1:
        border = cv2.BORDER_REPLICATE
        return np.asarray(
            cv2.copyMakeBorder(picture, 0, height - h, 0, width - w, border), np.uint8
        )
    scale = min(height / h, width / w)
    inner_h, inner_w = max(1, round(h * scale)), max(1, round(w * scale))
    out = np.zeros((height, width, *picture.shape[2:]), np.uint8)
    top, left = (height - inner_h) // 2, (width - inner_w) // 2
    shrinks = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    out[top : top + inner_h, left : left + inner_w] = cv2.resize(
        picture, (inner_w, inner_h), interpolation=cv2.INTER_NEAREST if nearest else shrinks
    )
    return out
