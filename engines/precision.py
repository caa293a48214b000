"""An FP32 network as an FP16 or BF16 one: the types in the ONNX itself are the precision.

TensorRT 11 takes every network as strongly typed: what the graph says is what is computed. So the
half precision is written into the graph, once, for every runtime, by Microsoft's own converter
(onnxconverter-common); what adds up many values keeps FP32.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Collection
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from engines.errors import EngineUnavailableError, ModelError, one_line

# A change here that changes the result must raise PRECISION_REVISION in engines/wrapped.py.

# They add up a whole picture or the squares of a whole layer. FP16 ends at 65,504, and a mean of
# 65 x 65 values that is summed in it loses 3 of its 10 bits.
KEPT_FP32 = (
    "GlobalAveragePool",
    "ReduceMean",
    "ReduceSum",
    "ReduceSumSquare",
    "ReduceL2",
    "LayerNormalization",
    "InstanceNormalization",
    "GroupNormalization",
    "Softmax",
    "LogSoftmax",
    "Exp",
    "Pow",
)
# The converter's own list without the three that every GPU does in FP16. Resize is what brings the
# scores to the picture's size: in FP32 it would double the memory traffic of the largest tensor.
_IN_HALF = ("Resize", "Min", "Max")

# IEEE 754 binary16: the largest finite number and the smallest subnormal one.
FP16_MAX = 65504.0
FP16_TINY = 2.0**-24


def to_precision(
    model: onnx.ModelProto, precision: str, keep: Collection[str] = KEPT_FP32
) -> onnx.ModelProto:
    """The network with inputs, outputs, weights and results in `precision` (fp32, fp16, bf16).

    A new model; `model` stays as it is. `keep` are operators that stay in FP32 with casts around
    them. A network that is in half precision already comes back as it is. Raises ModelError where
    a weight does not fit in FP16, EngineUnavailableError if the converter is not installed.
    """
    if precision == "fp32":
        return model
    if _input_kind(model) != TensorProto.FLOAT:
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    kept = _prepare(copy.graph, keep)
    exact = {t.name: numpy_helper.to_array(t) for t in _floats(copy.graph)}
    half = _converted(copy, kept)
    _keep_scales(half.graph, exact)
    if precision == "fp16":
        _check_range(half, exact)
        return half
    return _to_bfloat16(half, exact)


def _prepare(graph: onnx.GraphProto, keep: Collection[str]) -> list[str]:
    """Writes the graph so that the converter can follow it; returns the nodes that stay in FP32.

    It finds types by nodes' names and by notes of values, which it does not look for among the
    outputs; it converts a weight for all who read it or for nobody; and it takes a Cast to float
    and a Constant of one number for what need not be changed.
    """
    # Notes for one size in FP32 would contradict the new types.
    del graph.value_info[:]
    constants = [_constant(node) for node in graph.node]
    nodes = [n for n, tensor in zip(graph.node, constants, strict=True) if tensor is None]
    graph.initializer.extend(tensor for tensor in constants if tensor is not None)

    for output in graph.output:  # an output that is read inside as well
        inner = f"{output.name}_inner"
        if any(output.name in node.input for node in nodes):
            for node in nodes:
                _rename(node.input, output.name, inner)
                _rename(node.output, output.name, inner)
            nodes.append(helper.make_node("Identity", [inner], [output.name]))

    taken: set[str] = set()
    for index, node in enumerate(nodes):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{index}_{node.output[0]}"
        taken.add(node.name)

    in_fp32 = ({*_blocked_by_converter(), *keep} - set(_IN_HALF)) | _scale_makers(nodes)
    kept = [n for n in nodes if n.op_type in in_fp32 or n.name in in_fp32 or _is_cast(n)]
    names = {node.name for node in kept}
    shared = {i for n in nodes if n.name not in names for i in n.input}
    for tensor in _floats(graph):
        if tensor.name in shared:
            own = f"{tensor.name}_fp32"
            changed = [_rename(node.input, tensor.name, own) for node in kept]
            if any(changed):
                graph.initializer.add().CopyFrom(tensor)
                graph.initializer[-1].name = own
    del graph.node[:]
    graph.node.extend(nodes)
    return sorted(names)


def _constant(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """The weight that a Constant of floats is."""
    if node.op_type != "Constant":
        return None
    (attribute,) = node.attribute
    if attribute.name in ("value_float", "value_floats"):
        values = np.asarray(helper.get_attribute_value(attribute), np.float32)
        return numpy_helper.from_array(values, node.output[0])
    if attribute.name != "value" or attribute.t.data_type != TensorProto.FLOAT:
        return None
    tensor = onnx.TensorProto()
    tensor.CopyFrom(attribute.t)
    tensor.name = node.output[0]
    return tensor


def _is_cast(node: onnx.NodeProto) -> bool:
    """To float: numbers of pixels, which FP16 counts only to 2,048, are divided there."""
    return node.op_type == "Cast" and any(a.i == TensorProto.FLOAT for a in node.attribute)


def _scale_makers(nodes: list[onnx.NodeProto]) -> set[str]:
    """Names of the nodes that compute a Resize's scales, which are FP32 by definition."""
    made_by = {name: node for node in nodes for name in node.output}
    found: set[str] = set()
    ask = [node.input[2] for node in nodes if node.op_type == "Resize" and len(node.input) > 2]
    while ask:
        node = made_by.get(ask.pop())
        if node is not None and node.op_type != "Shape" and node.name not in found:
            found.add(node.name)
            ask.extend(node.input)
    return found


def _keep_scales(graph: onnx.GraphProto, exact: dict[str, NDArray[Any]]) -> None:
    """Gives each Resize its scales in FP32 again: the operator takes no others."""
    made_by = {name: node for node in graph.node for name in node.output}
    weights = {tensor.name: tensor for tensor in graph.initializer}
    moved: set[str] = set()
    for node in graph.node:
        if node.op_type != "Resize" or len(node.input) < 3 or not node.input[2]:
            continue
        scales = node.input[2]
        if scales in exact and weights[scales].data_type == TensorProto.FLOAT16:
            node.input[2] = own = f"{scales}_scales"
            moved.add(scales)
            if own not in weights:
                weights[own] = numpy_helper.from_array(exact[scales], own)
                graph.initializer.append(weights[own])
        elif (cast := made_by.get(scales)) is not None and cast.op_type == "Cast":
            node.input[2] = cast.input[0]  # the scale makers' FP32, from before the cast to half
    read = {name for node in graph.node for name in node.input}
    for scales in moved - read:
        graph.initializer.remove(weights[scales])


def _rename(names: Any, old: str, new: str) -> bool:
    """Replaces a name among a node's inputs or outputs; says whether it was there."""
    found = [index for index, name in enumerate(names) if name == old]
    for index in found:
        names[index] = new
    return bool(found)


def _floats(graph: onnx.GraphProto) -> list[onnx.TensorProto]:
    return [tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT]


def _converter() -> Any:
    try:
        from onnxconverter_common import float16
    except ImportError:
        raise EngineUnavailableError(
            "onnxconverter-common is not installed, which writes half precision into a network; "
            "pip install onnxconverter-common"
        ) from None
    return float16


def _blocked_by_converter() -> list[str]:
    return list(_converter().DEFAULT_OP_BLOCK_LIST)


def _converted(model: onnx.ModelProto, kept: list[str]) -> onnx.ModelProto:
    """In FP16, except the nodes named; uses `model` up."""
    float16 = _converter()
    log = logging.getLogger("onnxconverter_common")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # A line for every weight below FP16's smallest number, which becomes that number.
            warnings.simplefilter("ignore")
            return float16.convert_float_to_float16(
                model,
                min_positive_val=FP16_TINY,
                max_finite_val=FP16_MAX,
                op_block_list=[],
                node_block_list=kept,
            )
    except Exception as error:  # the converter raises what its parts raise
        raise ModelError(f"the network cannot be written in FP16: {one_line(error)}") from None
    finally:
        log.setLevel(level)


def _check_range(half: onnx.ModelProto, exact: dict[str, NDArray[Any]]) -> None:
    """A weight beyond FP16 was clipped, and masks would be wrong where it matters."""
    for tensor in half.graph.initializer:
        values = exact.get(tensor.name)
        if values is None or not values.size or tensor.data_type != TensorProto.FLOAT16:
            continue
        if not np.abs(values).max() <= FP16_MAX:
            raise ModelError(
                f"weight {tensor.name!r} reaches {np.abs(values).max():g}, beyond FP16's "
                f"{FP16_MAX:g}; use --precision bf16 or fp32"
            )


def _to_bfloat16(half: onnx.ModelProto, exact: dict[str, NDArray[Any]]) -> onnx.ModelProto:
    """The FP16 model with BF16 where it has FP16; weights are rounded once, from FP32."""
    for tensor in half.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            values = exact.get(tensor.name)
            values = numpy_helper.to_array(tensor) if values is None else values
            tensor.CopyFrom(_bfloat16(values, tensor.name))
    for node in half.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to":
                if attribute.i == TensorProto.FLOAT16:
                    attribute.i = TensorProto.BFLOAT16
            elif attribute.HasField("t") and attribute.t.data_type == TensorProto.FLOAT16:
                values = numpy_helper.to_array(attribute.t)
                attribute.t.CopyFrom(_bfloat16(values, attribute.t.name))
    for value in (*half.graph.input, *half.graph.output, *half.graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.BFLOAT16
    return half


def _bfloat16(values: NDArray[Any], name: str) -> onnx.TensorProto:
    """Rounded to nearest, ties to even, as bfloat16's hardware does."""
    kind = helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16)
    tensor: onnx.TensorProto = numpy_helper.from_array(values.astype(np.float32).astype(kind), name)
    return tensor


def _input_kind(model: onnx.ModelProto) -> int:
    weights = {tensor.name for tensor in model.graph.initializer}
    first = next((i for i in model.graph.input if i.name not in weights), None)
    return int(first.type.tensor_type.elem_type) if first is not None else TensorProto.FLOAT
