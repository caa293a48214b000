"""Pictures as planes, by the formulas."""

from __future__ import annotations

import numpy as np

from pipeline.planes import Matrix, Planes, from_rgb


def planes_of(rgb, matrix=Matrix.BT709):
    """By the formulas, in floating point; chroma is the mean of four."""
    height, width = rgb.shape[:2]
    m = from_rgb(matrix).astype(np.float64)
    yuv = rgb.astype(np.float64) @ m[:, :3].T + m[:, 3]
    out = Planes.blank(height, width, matrix)
    out.y[:] = np.rint(yuv[..., 0])
    for plane, values in ((out.u, yuv[..., 1]), (out.v, yuv[..., 2])):
        plane[:] = np.rint(values.reshape(height // 2, 2, width // 2, 2).mean((1, 3)))
    return out
