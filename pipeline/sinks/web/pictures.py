"""A frame's picture as the page gets it: fitted, and as JPEG or PNG."""

from __future__ import annotations

import math

import cv2
import numpy as np

from pipeline.frame import Image

# H.264 level 3.1, which every browser decodes (RFC 7742, 6.2), has 3600 macroblocks of 16 x 16 a
# picture: 1280 x 720.
MAX_SIDE = 1280
_MAX_BLOCKS = 3600
_JPEG_QUALITY = 80


def fit_for_web(picture: Image) -> Image:
    """uint8 (H, W, 3) RGB, no larger than a browser's decoder surely takes, with even sides."""
    h, w = picture.shape[:2]
    scale = min(1.0, MAX_SIDE / max(h, w), math.sqrt(_MAX_BLOCKS * 256 / (h * w)))
    height, width = _even(h * scale), _even(w * scale)
    while -(-height // 16) * -(-width // 16) > _MAX_BLOCKS:  # rounded up to whole blocks
        scale *= 0.99
        height, width = _even(h * scale), _even(w * scale)
    if (height, width) == (h, w):
        return picture
    # Area, so that thin lines do not flicker, where it is cheap; a quick sample elsewhere.
    how = cv2.INTER_AREA if scale <= 0.5 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, (width, height), interpolation=how), np.uint8)


def _even(length: float) -> int:
    """An encoder takes nothing smaller than a block, nor odd sides, where colour is halved."""
    return max(16, int(length) // 2 * 2)


def jpeg(picture: Image) -> bytes:
    """uint8 (H, W, 3) RGB as JPEG, for eyes."""
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return bytes(data)


def png(picture: Image) -> bytes:
    """uint8 (H, W, 3) RGB as PNG, every bit of it."""
    _, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    return bytes(data)
