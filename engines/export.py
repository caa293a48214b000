"""From a torch module to an ONNX file that every engine takes: the one exporter of this project.

torch writes opset 18 or later, with the paths of Python sources in its metadata. TensorRT 8.6
documents opset 17, and a path makes the file differ from machine to machine. So what torch writes
is lowered here, checked, and stripped to what it computes. Needs torch and onnxscript, and only
when `export_onnx` is called.
"""

# mypy: disable-error-code="import-not-found, unused-ignore"

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from engines.errors import ModelError

INPUT = "input"
OUTPUT = "logits"
# The last opset that TensorRT 8.6's ONNX parser documents; OpenVINO and ONNX Runtime take it too.
OPSET = 17
# The IR version of ONNX 1.12, which brought opset 17.
IR_VERSION = 8
# The opset in which torch.onnx implements its operators; it is lowered to OPSET afterwards.
TORCH_OPSET = 18
# ONNX's word for "to the last axis": Slice clamps it.
TO_THE_END = 2**63 - 1

# A range of one tensor's shape: (tensor, first axis, axis after the last).
ShapeRange = tuple[str, int, int]


def export_onnx(
    module: Any,
    path: Path,
    *,
    size: tuple[int, int],
    dynamic: bool | Literal["batch"] = True,
    half: bool = False,
) -> None:
    """Write `module` as ONNX: `input` (N, 3, H, W) float32 -> `logits` (N, classes, h, w) float32.

    module: a torch.nn.Module from one such tensor to one such tensor; put in evaluation mode.
        h and w are H and W, or a fraction of them.
    size: (H, W) in pixels to trace with.
    dynamic: batch, height and width stay free (the card chooses); "batch": the batch alone, which
        writes every network, smaller and sooner; False: they are (1, *size).
    half: the file holds the weights in FP16, half its size; what is computed with them is FP32.

    A network that pools to a grid has no form with a free size: its height and width are `size`
    even so. The same module and the same versions of torch, onnx and onnxscript give the same
    bytes.
    Raises ModelError where the network has no form in OPSET.
    """
    import torch

    if dynamic is True and pools_to_grid(module):
        dynamic = "batch"
    # torch takes a batch of 1 for a constant, so a free one is traced with 2.
    picture = torch.zeros(2 if dynamic else 1, 3, *size)
    free = torch.export.Dim.DYNAMIC
    axes = {True: (0, 2, 3), "batch": (0,), False: ()}[dynamic]
    program: Any = torch.onnx.export(
        module.eval(),
        (picture,),
        input_names=[INPUT],
        output_names=[OUTPUT],
        opset_version=TORCH_OPSET,
        dynamo=True,
        dynamic_shapes=(dict.fromkeys(axes, free),) if axes else None,
        verbose=False,
    )
    lowered = lower(program.model_proto)
    if half:
        halve_weights(lowered)
    path.write_bytes(lowered.SerializeToString(deterministic=True))


def pools_to_grid(module: Any) -> bool:
    """Whether a layer averages a picture of any size to a grid of more than one cell.

    torch writes such a pooling with the cells' borders of the traced size as constants: at another
    size the file would answer wrongly, or fail.
    """
    import torch

    pools = (torch.nn.AdaptiveAvgPool2d, torch.nn.AdaptiveMaxPool2d)
    found = (layer.output_size for layer in module.modules() if isinstance(layer, pools))
    return any(size not in (1, (1, 1), [1, 1]) for size in found)


def lower(model: ModelProto) -> ModelProto:
    """The same network in OPSET, without metadata and with names of ours; uses `model` up.

    `model` has one input (N, 3, H, W) and one output called OUTPUT.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes: list[NodeProto] = []
    for node in merge_shapes(list(model.graph.node)):
        if node.op_type == "Shape":
            nodes += lower_shape(node, constants)
        else:
            lower_node(node, constants)
            nodes.append(node)
    used = {name for node in nodes for name in node.input}
    weights = [tensor for name, tensor in constants.items() if name in used]
    taken: set[str] = set()
    for index, node in enumerate(nodes):
        # A layer is called after its weights, so that a profile names the module. Layers share
        # weights, also where torch's optimizer found them equal, and ONNX Runtime refuses a name
        # that is there twice.
        layer = (n.removesuffix(".weight") for n in node.input if n.endswith(".weight"))
        node.name = next((n for n in layer if n not in taken), f"{node.op_type.lower()}_{index}")
        taken.add(node.name)
    for part in (*nodes, *weights):
        part.doc_string = ""
        del part.metadata_props[:]

    shape = model.graph.input[0].type.tensor_type.shape.dim
    answer = model.graph.output[0].type.tensor_type.shape.dim
    names = ("batch", "channels", "height", "width")
    batch, _, height, width = (
        dim.dim_value or name for dim, name in zip(shape, names, strict=True)
    )
    # A free length is called as the input's where torch found it to be the same.
    given_dims = [
        theirs.dim_value or (name if theirs.dim_param == ours.dim_param != "" else f"{name}_out")
        for theirs, ours, name in zip(answer, shape, names, strict=True)
    ]
    entry = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [batch, 3, height, width])
    given = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, given_dims)
    result = helper.make_model(
        helper.make_graph(nodes, "network", [entry], [given], weights),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="streamseg",
    )
    try:
        onnx.checker.check_model(result, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(f"the network cannot be written in ONNX opset {OPSET}: {error}") from None
    return result


def halve_weights(model: ModelProto) -> None:
    """Keep float32 weights as float16, each with a Cast back, in place.

    Every weight is rounded to 11 bits. Scalars and the bounds of a Clip stay: they cost nothing,
    and some engines want them to be constants. Raises ModelError for a weight beyond float16.
    """
    casts: list[NodeProto] = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or not tensor.dims:
            continue
        values = numpy_helper.to_array(tensor)
        limit = float(np.finfo(np.float16).max)
        if not np.abs(values).max(initial=0.0) <= limit:
            raise ModelError(f"weight {tensor.name} is beyond float16's {limit:.0f}; keep fp32")
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
        node = helper.make_node("Cast", [tensor.name], [name], f"cast_{name}", to=TensorProto.FLOAT)
        casts.append(node)
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def merge_shapes(nodes: list[NodeProto]) -> list[NodeProto]:
    """Read a size that torch joins axis by axis as few ranges of few shapes, in place of many.

    torch reads every axis by a Shape of its own and joins them by nested Concats.
    """
    made_by = {name: node for node in nodes for name in node.output}
    result: list[NodeProto] = []
    for node in nodes:
        ranges = shape_ranges(node, made_by) if node.op_type == "Concat" else None
        if ranges is None:
            result.append(node)
            continue
        merged: list[ShapeRange] = []
        for tensor, start, end in ranges:
            if merged and merged[-1][0] == tensor and merged[-1][2] == start:
                merged[-1] = (tensor, merged[-1][1], end)
            else:
                merged.append((tensor, start, end))
        names = [f"{node.output[0]}_{index}" for index in range(len(merged))]
        for name, (tensor, start, end) in zip(names, merged, strict=True):
            result.append(helper.make_node("Shape", [tensor], [name], start=start, end=end))
        # A new node, because the old one still tells later Concats what it is made of.
        result.append(helper.make_node("Concat", names, list(node.output), axis=0))
    return without_unused(result)


def shape_ranges(node: NodeProto, made_by: dict[str, NodeProto]) -> list[ShapeRange] | None:
    """What a Shape, or a Concat of nothing but such, reads; None for any other node."""
    found = attributes(node)
    if node.op_type == "Shape":
        start, end = found.get("start", 0), found.get("end", TO_THE_END)
        return [(node.input[0], start, end)] if 0 <= start < end else None
    if node.op_type != "Concat":
        return None
    ranges: list[ShapeRange] = []
    for name in node.input:
        part = shape_ranges(made_by[name], made_by) if name in made_by else None
        if part is None:
            return None
        ranges += part
    return ranges


def without_unused(nodes: list[NodeProto]) -> list[NodeProto]:
    """The nodes that OUTPUT depends on, in order."""
    kept: list[NodeProto] = []
    read = {OUTPUT}
    for node in reversed(nodes):
        if any(name in read for name in node.output):
            kept.append(node)
            read.update(node.input)
    return kept[::-1]


def lower_shape(node: NodeProto, constants: dict[str, TensorProto]) -> list[NodeProto]:
    """A Shape of some axes as a Shape of all and a Slice; adds the bounds to `constants`.

    Opset 15 gave Shape its range, and parsers that overlook it resize to a wrong size.
    """
    found = attributes(node)
    if not found:
        return [node]
    bounds = []
    for axis in (found.get("start", 0), found.get("end", TO_THE_END)):
        name = f"axis_{axis}"
        constants[name] = numpy_helper.from_array(np.array([axis], np.int64), name)
        bounds.append(name)
    whole = f"{node.output[0]}_all"
    return [
        helper.make_node("Shape", [node.input[0]], [whole]),
        helper.make_node("Slice", [whole, *bounds], list(node.output)),
    ]


def lower_node(node: NodeProto, constants: dict[str, TensorProto]) -> None:
    """Turn what opset 18 changed in this node back into opset 17's form, in place.

    A node that uses what opset 17 cannot say stays as it is, and the checker names it.
    """
    found = attributes(node)
    if node.op_type in ("ReduceMean", "ReduceMax", "ReduceMin") and len(node.input) == 2:
        axes = constant(node.input[1], constants)
        if axes is None:
            return
        del node.input[1:]
        if node.op_type == "ReduceMean" and axes.tolist() in ([2, 3], [-2, -1], [-1, -2]):
            # Every engine has a kernel for this very case.
            node.op_type = "GlobalAveragePool"
            del node.attribute[:]
        else:
            remove_attributes(node, "noop_with_empty_axes")
            node.attribute.append(helper.make_attribute("axes", axes.tolist()))
    elif node.op_type == "Resize":
        if not found.get("antialias", 0):
            remove_attributes(node, "antialias")
        if found.get("keep_aspect_ratio_policy") == b"stretch":
            remove_attributes(node, "keep_aspect_ratio_policy")
    elif node.op_type == "Split":
        # Without sizes, opset 17 splits into as many equal parts as there are outputs.
        remove_attributes(node, "num_outputs")


def constant(name: str, constants: dict[str, TensorProto]) -> NDArray[Any] | None:
    """The value of an initializer, or None for a computed tensor."""
    return numpy_helper.to_array(constants[name]) if name in constants else None


def attributes(node: NodeProto) -> dict[str, Any]:
    """The node's attributes by name, as Python values (strings are bytes)."""
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def remove_attributes(node: NodeProto, *names: str) -> None:
    """Drop these attributes, where present."""
    kept = [attribute for attribute in node.attribute if attribute.name not in names]
    del node.attribute[:]
    node.attribute.extend(kept)
