"""Class scores on a coarse grid -> the id of the highest score at the network's full size.

Networks answer at a quarter or a sixteenth of their input, and the scores are enlarged before the
highest is chosen, because an enlarged choice would have stairs. Enlarged, `voc`'s are 12 MB, which
every step after that reads or writes once more. So the picture goes through all steps in bands that
stay in a core's cache, and is enlarged by two matrix products, for which every runtime has its
fastest code. Labels are the same; docs/decisions/0015 has what it gains.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from engines.nodes import Chain

# Bytes of enlarged scores that a band may have: what a core keeps to itself (level 2 cache) is 1
# to 2 MB in current processors, and the choice needs a little beside it.
_BAND_BYTES = 3 * 2**19

# Where a pixel of the enlarged scores lies in the coarse ones (ONNX, Resize).
_MODES = ("half_pixel", "pytorch_half_pixel", "align_corners")


@dataclass(frozen=True)
class Enlargement:
    """How coarse scores become large ones: bilinear, from `size` (height, width)."""

    scores: str
    """The coarse scores' name, (N, classes, *size) in float32."""
    size: tuple[int, int]
    mode: str = "half_pixel"


def final_resize(
    graph: onnx.GraphProto,
    shapes: dict[str, list[int | None] | None],
    output: str,
    size: tuple[int, int],
) -> Enlargement | None:
    """The enlargement with which a network ends, if it does and `highest_enlarged` can do it.

    `shapes` are what is known of the network's tensors, `size` is its output's height and width.
    """
    makers = {name: node for node in graph.node for name in node.output}
    resize = makers.get(output)
    if resize is not None and resize.op_type == "DequantizeLinear":
        # Quantized networks round the enlarged scores again; without that they are finer.
        rounding = makers.get(resize.input[0])
        resize = makers.get(rounding.input[0]) if rounding is not None else None
    if resize is None or resize.op_type != "Resize":
        return None
    attributes = {a.name: helper.get_attribute_value(a) for a in resize.attribute}
    mode = attributes.get("coordinate_transformation_mode", b"half_pixel").decode()
    shape = [n or 0 for n in shapes.get(resize.input[0]) or []]
    if (
        attributes.get("mode") != b"linear"
        or attributes.get("antialias", 0)
        or attributes.get("axes") is not None
        or mode not in _MODES
        or len(shape) != 4
        or 0 in shape[2:]
    ):
        return None
    if len(resize.input) < 4 and any(
        big % small for big, small in zip(size, shape[2:], strict=True)
    ):
        return None  # enlarged by a factor, which then is not that of the sizes
    if 1 in size and mode == "pytorch_half_pixel":
        return None
    return Enlargement(resize.input[0], (shape[2], shape[3]), mode)


def highest_enlarged(
    chain: Chain, coarse: Enlargement, size: tuple[int, int], count: int, opset: int
) -> None:
    """Enlarges `count` float32 scores to `size` and appends the id of the highest, (N, H, W)."""
    height, width = size
    rows = _interpolation(coarse.size[0], height, coarse.mode)
    columns = _interpolation(coarse.size[1], width, coarse.mode)
    bands = math.ceil(4 * count * height * width / _BAND_BYTES)
    wide = chain.node("MatMul", coarse.scores, chain.constant("columns", columns.T.copy()))
    ids = []
    for i, part in enumerate(np.array_split(rows, min(bands, height))):
        chain.last = chain.node("MatMul", chain.constant(f"rows{i}", part), wide)
        highest(chain, count, TensorProto.FLOAT, opset)
        ids.append(chain.last)
    chain.last = chain.node("Concat", *ids, axis=1) if len(ids) > 1 else ids[0]


def highest(chain: Chain, count: int, kind: int, opset: int) -> None:
    """The id of the highest of `count` scores, float (N, H, W); of equal ones the lowest id.

    ArgMax itself becomes a sort in OpenVINO (TopK) and took a third of `voc`'s time; two maxima
    and a choice between them are plain vector code everywhere. Where a score is the highest it is
    replaced by a rank that falls with the id, count .. 1, elsewhere by 0; the highest rank names
    the id.
    """
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    ranks = chain.once("ranks", np.arange(count, 0, -1).astype(dtype).reshape(1, count, 1, 1))
    scores = chain.last

    def reduce_max(keepdims: int) -> None:
        if opset >= 18:  # where the axes became an input
            chain.add("ReduceMax", chain.once("axes", np.array([1], np.int64)), keepdims=keepdims)
        else:
            chain.add("ReduceMax", axes=[1], keepdims=keepdims)

    reduce_max(1)
    best, chain.last = chain.last, scores
    chain.add("Less", best)
    chain.add("Where", chain.once("none", np.zeros((), dtype)), ranks)
    reduce_max(0)
    chain.add("Cast", to=TensorProto.FLOAT)
    rank, chain.last = chain.last, chain.once("count", np.array(float(count), np.float32))
    chain.add("Sub", rank)


def _interpolation(size: int, target: int, mode: str) -> NDArray[np.float32]:
    """The matrix (target, size) that interpolates linearly; beyond the edge its value holds."""
    pixels = np.arange(target)
    if mode == "align_corners":
        where = pixels * (size - 1) / max(1, target - 1)
    else:
        where = (pixels + 0.5) * size / target - 0.5
    where = where.clip(0, size - 1)
    lower = np.floor(where).astype(int)
    upper = np.minimum(lower + 1, size - 1)
    share = where - lower
    out = np.zeros((target, size))
    out[pixels, lower] += 1 - share
    out[pixels, upper] += share
    return out.astype(np.float32)
