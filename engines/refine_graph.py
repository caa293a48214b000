"""Refinement as ONNX nodes: scores of cells -> scores of pixels, under the picture.

    scores   float (N, classes, rows, columns), one for each cell
    picture  float (N, 3, rows x block, columns x block), 0..255
      crf: mean-field inference between cells
      joint bilateral upsampling, block by block
      (engines/graph.py takes the class of the highest score, on the blocks)
      blocks -> picture
    ids      float (N, rows x block, columns x block)

Only Pad, Slice, Concat, Reshape, Transpose, AveragePool, Softmax, Exp, Sqrt, elementwise
arithmetic, sums and DepthToSpace: all engines have them, TensorRT's parser from 8.6 on. A shifted
copy (Pad, Slice) times its kernel, added up, is what runs fastest: with all shifts in one tensor
(Concat or a convolution with one-hot kernels) OpenVINO takes 1.9 and 4 times as long. All of it is
FP32, whatever the network computes in; differences of colours are divided by their width before
they are squared, so that not even an engine that lowers the precision by itself overflows.
"""

from __future__ import annotations

import math
from itertools import product

import numpy as np
from numpy.typing import NDArray

from engines.nodes import Nodes
from engines.refine import Crf, Grid, Refine

# A change here that changes what is built must raise REFINE_REVISION in engines/wrapped.py.

# Where no cell has the pixel's colour its position alone decides, and no weight is ever zero.
_LEAST_WEIGHT = 1e-4


def refine_scores(nodes: Nodes, refine: Refine, grid: Grid, scores: str, picture: str) -> str:
    """Scores for the highest one to be taken of: (N, classes, block^2 x (rows + 1), columns + 1).

    In this order a score of a cell is multiplied where it lies, and only ids, one for all classes,
    have to be brought to the picture's order (`assemble`). They are not divided by the sum of
    their weights, which is one for all classes.
    """
    guide = nodes.node(
        "AveragePool", picture, kernel_shape=[grid.block] * 2, strides=[grid.block] * 2
    )
    if isinstance(refine, Crf):
        scores = nodes.node("Add", scores, mean_field(nodes, refine, grid, scores, guide))
    return _upsample(nodes, refine, grid, scores, guide, picture)


def assemble(nodes: Nodes, grid: Grid, ids: str) -> str:
    """(N, block^2 x (rows + 1), columns + 1) -> (N, rows x block, columns x block)."""
    rows, columns, block, half = grid.height, grid.width, grid.block, grid.block // 2
    ids = nodes.node("Reshape", ids, nodes.integers([0, block**2, rows + 1, columns + 1]))
    ids = nodes.node("DepthToSpace", ids, blocksize=block)
    ids = _cut(nodes, ids, (half, half), grid.picture)
    return nodes.node("Squeeze", ids, nodes.integers([1]))


def mean_field(nodes: Nodes, crf: Crf, grid: Grid, scores: str, guide: str) -> str:
    """What the other cells say, (N, classes, rows, columns): `scores` plus it are the logarithms
    of the marginals, but for a constant.

    Unary potentials are minus the log of the scores' softmax; compatibility is Potts', under which
    an iteration is Q <- softmax(scores + sum over neighbours of kernel x Q). `guide` is the mean
    colour of each cell, (N, 3, rows, columns), 0..255.
    """
    offsets = window(crf)
    kernels = _kernels(nodes, crf, grid, guide, offsets)
    said = ""
    for iteration in range(crf.iterations):
        logits = scores if not iteration else nodes.node("Add", scores, said)
        shifted = _shifted(nodes, grid, nodes.node("Softmax", logits, axis=1), offsets)
        parts = [nodes.node("Mul", q, k) for q, k in zip(shifted, kernels, strict=True)]
        said = parts[0]
        for part in parts[1:]:
            said = nodes.node("Add", said, part)
    return said


def window(crf: Crf) -> list[tuple[int, int]]:
    """(rows, columns) from a cell to each of its neighbours, itself not among them."""
    steps = [crf.dilation * i for i in range(-crf.reach, crf.reach + 1)]
    return [offset for offset in product(steps, steps) if offset != (0, 0)]


def _kernels(
    nodes: Nodes, crf: Crf, grid: Grid, guide: str, offsets: list[tuple[int, int]]
) -> list[str]:
    """For each offset the weight of that neighbour's marginals, (N, 1, rows, columns).

    The weighted sum of both kernels, each normalised symmetrically as in the authors' own program:
    k(i, j) / sqrt(n(i) n(j)), n the sum of k over the window, k(i, i) = 1 included. A cell beyond
    the picture has no weight.
    """
    count = len(offsets)
    near = np.array([(y * y + x * x) * crf.stride**2 for y, x in offsets], np.float32)
    near = near.reshape(1, count, 1, 1)
    inside = nodes.node("Mul", *_inside(nodes, grid, offsets))

    squares = []
    for other in _shifted(nodes, grid, guide, offsets):
        away = nodes.node("Sub", other, guide)
        away = nodes.node("Mul", away, nodes.number(1 / (math.sqrt(2) * crf.rgb)))
        squares.append(nodes.node("Mul", away, away))
    stack = nodes.node("Concat", *squares, axis=1)
    stack = nodes.node("Reshape", stack, nodes.integers([0, count, 3, grid.height, grid.width]))
    unlike = nodes.node("ReduceSum", stack, nodes.integers([2]), keepdims=0)
    far = nodes.constant("far", -near / (2 * crf.xy**2))
    bilateral = nodes.node("Exp", nodes.node("Sub", far, unlike))
    gaussian = nodes.constant("near", np.exp(-near / (2 * crf.smooth**2)))

    total = ""
    for kernel, weight in ((bilateral, crf.bilateral), (gaussian, crf.gaussian)):
        if weight:
            kernel = nodes.node("Mul", kernel, inside)
            part = _normalised(nodes, grid, kernel, offsets, weight)
            total = nodes.node("Add", total, part) if total else part
    if not total:
        total = nodes.node("Mul", inside, nodes.number(0))
    return [nodes.slice(total, 1, i, i + 1) for i in range(count)]


def _normalised(
    nodes: Nodes, grid: Grid, kernel: str, offsets: list[tuple[int, int]], weight: float
) -> str:
    """(any, offsets, rows, columns) -> the same, symmetrically normalised, times `weight`."""
    others = nodes.node("ReduceSum", kernel, nodes.integers([1]), keepdims=1)
    root = nodes.node("Sqrt", nodes.node("Add", others, nodes.number(1)))
    own = nodes.node("Div", nodes.number(1), root)
    theirs = nodes.node("Concat", *_shifted(nodes, grid, own, offsets), axis=1)
    own = nodes.node("Mul", own, nodes.number(weight))
    return nodes.node("Mul", nodes.node("Mul", kernel, own), theirs)


def _inside(nodes: Nodes, grid: Grid, offsets: list[tuple[int, int]]) -> tuple[str, str]:
    """1 where a neighbour is in the picture, else 0: for its row, and for its column."""

    def within(size: int, shifts: list[int]) -> NDArray[np.float32]:
        at = np.arange(size) + np.array(shifts)[:, None]
        return np.asarray((at >= 0) & (at < size), np.float32)

    rows = within(grid.height, [y for y, _ in offsets])[None, :, :, None]
    columns = within(grid.width, [x for _, x in offsets])[None, :, None, :]
    return nodes.constant("rows", rows), nodes.constant("columns", columns)


def _shifted(nodes: Nodes, grid: Grid, values: str, offsets: list[tuple[int, int]]) -> list[str]:
    """For each offset the neighbours' values, 0 beyond the picture, (N, C, rows, columns)."""
    pad = max(max(offset) for offset in offsets)
    padded = nodes.node("Pad", values, nodes.integers([0, 0, pad, pad] * 2))
    size = (grid.height, grid.width)
    return [_cut(nodes, padded, (pad + y, pad + x), size) for y, x in offsets]


def _cut(nodes: Nodes, values: str, begin: tuple[int, int], size: tuple[int, int]) -> str:
    """A part of (N, C, any, any): `size` rows and columns from `begin` on."""
    end = (begin[0] + size[0], begin[1] + size[1])
    return nodes.node(
        "Slice", values, nodes.integers(begin), nodes.integers(end), nodes.integers([2, 3])
    )


def _upsample(
    nodes: Nodes, refine: Refine, grid: Grid, scores: str, guide: str, picture: str
) -> str:
    """Joint bilateral upsampling (Kopf et al., SIGGRAPH 2007) from the four nearest cells.

    A pixel's score is the sum of theirs, each weighted as in bilinear interpolation and by how
    like the cell's mean colour the pixel's is. The pixels between the same four cells' centres are
    a block; blocks lie half a cell beside the cells, so there is one more of them each way.
    """
    block, rows, columns = grid.block, grid.height + 1, grid.width + 1
    half = block // 2
    # The pixels of a block as channels: one axis for them, one for R, G and B.
    pixels = nodes.node("Pad", picture, nodes.integers([0, 0, half, half] * 2), mode="edge")
    pixels = nodes.node("Reshape", pixels, nodes.integers([0, 3 * rows, block, columns, block]))
    pixels = nodes.node("Transpose", pixels, perm=[0, 2, 4, 1, 3])
    pixels = nodes.node("Reshape", pixels, nodes.integers([0, block**2, 3, rows, columns]))
    around = nodes.integers([0, 0, 1, 1] * 2)
    scores = nodes.node("Pad", scores, around, mode="edge")
    guide = nodes.node("Pad", guide, around, mode="edge")
    share = (np.arange(block, dtype=np.float32) + 0.5) / block
    total = ""
    for y, x in product((0, 1), (0, 1)):
        cell = nodes.node(
            "Unsqueeze", _cut(nodes, guide, (y, x), (rows, columns)), nodes.integers([1])
        )
        away = nodes.node("Sub", pixels, cell)
        away = nodes.node("Mul", away, nodes.number(1 / (math.sqrt(2) * refine.edge)))
        unlike = nodes.node(
            "ReduceSum", nodes.node("Mul", away, away), nodes.integers([2]), keepdims=0
        )
        like = nodes.node("Exp", nodes.node("Neg", unlike))
        like = nodes.node("Add", like, nodes.number(_LEAST_WEIGHT))
        down, right = (share if y else 1 - share), (share if x else 1 - share)
        near = nodes.constant(f"near{y}{x}", np.outer(down, right).reshape(1, block**2, 1, 1))
        weight = nodes.node("Unsqueeze", nodes.node("Mul", like, near), nodes.integers([1]))
        theirs = _cut(nodes, scores, (y, x), (rows, columns))
        part = nodes.node("Mul", nodes.node("Unsqueeze", theirs, nodes.integers([2])), weight)
        total = nodes.node("Add", total, part) if total else part
    # Channels stay what they are: their number is not known here.
    return nodes.node("Reshape", total, nodes.integers([0, 0, block**2 * rows, columns]))
