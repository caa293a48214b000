"""What a network costs: its parameters, and its multiply-adds for one picture, from the ONNX graph.

A multiply-add is one multiplication and the addition of its product. Convolutions, their transposes
and matrix products are counted; what is left (activations, norms, resizing, pooling) is small and
bound by memory, not by arithmetic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from onnx import ModelProto, NodeProto, TensorProto, helper

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Cost:
    """Of one network at one size."""

    parameters: int
    """Numbers that a training sets. A batch norm that is folded into its convolution has none."""
    macs: int | None
    """Multiply-adds for one picture; None where the graph does not tell all shapes."""


def count(model: ModelProto, taken: tuple[int, ...]) -> Cost:
    """The cost of a network whose first input has the shape `taken`: (1, 3, height, width), or
    (1, height, width, 3) where its card says so.
    """
    return Cost(_parameters(model), _macs(model, taken))


def _parameters(model: ModelProto) -> int:
    # A Resize's scales are no weights, and neither are single numbers, such as a Clip's bounds.
    scales = {name for node in model.graph.node if node.op_type == "Resize" for name in node.input}
    tensors = {t.name: t for t in model.graph.initializer}
    for node in model.graph.node:
        value = next((a.t for a in node.attribute if a.name == "value"), None)
        if node.op_type == "Constant" and value is not None:
            tensors[node.output[0]] = value
    return sum(
        math.prod(tensor.dims)
        for name, tensor in tensors.items()
        if tensor.dims and tensor.data_type in _FLOATS and name not in scales
    )


def _macs(model: ModelProto, taken: tuple[int, ...]) -> int | None:
    shapes = _shapes(model, taken)
    counts = [_node_macs(node, shapes) for node in model.graph.node]
    known = [each for each in counts if each is not None]
    return sum(known) if len(known) == len(counts) else None


def _shapes(model: ModelProto, taken: tuple[int, ...]) -> Shapes:
    """Of all values whose shape follows from the input's, by OpenVINO: onnx's own inference does
    not follow sizes through a division, by which networks compute what half a picture is.
    """
    import openvino

    shapes: Shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    try:
        network = openvino.Core().read_model(model.SerializeToString())
        network.reshape({network.inputs[0]: openvino.PartialShape(list(taken))})
    except RuntimeError:  # an operator that it does not know, or a size that does not suit
        return shapes
    for node in network.get_ops():
        for result in node.outputs():
            shape = result.get_partial_shape()
            if shape.is_static:
                shapes.update(dict.fromkeys(result.get_names(), tuple(shape.to_shape())))
    return shapes


def _node_macs(node: NodeProto, shapes: Shapes) -> int | None:
    """0 for what is not counted, None where a shape that it needs is not known."""
    if node.op_type not in ("Conv", "ConvTranspose", "MatMul", "Gemm"):
        return 0
    left, right, result = (shapes.get(n) for n in (*node.input[:2], node.output[0]))
    if node.op_type == "MatMul":
        # OpenVINO joins some products with a transposition before them, whose result has no name
        # then: the sums are as long as either side says.
        length = left[-1] if left else right[max(0, len(right) - 2)] if right else None
        return None if length is None or result is None else math.prod(result) * length
    if left is None or right is None or result is None:
        return None
    if node.op_type == "Conv":
        # Each result sums over its group's input channels and the kernel: weights (out, in, k..).
        return math.prod(result) * math.prod(right[1:])
    if node.op_type == "ConvTranspose":
        # Each value is spread over its group's output channels and the kernel: (in, out, k..).
        return math.prod(left) * math.prod(right[1:])
    turned = {a.name: helper.get_attribute_value(a) for a in node.attribute}.get("transA", 0)
    return math.prod(result) * (left[0] if turned else left[1])
