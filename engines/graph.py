"""Any ONNX segmentation network + its card -> one graph that takes pictures and gives class ids.

    pictures  uint8 (N, height, width, 3) RGB, at the card's size
      Cast float -> Transpose -> colour order -> normalise -> the network -> to the card's size
      -> id of the highest score, in float -> Cast uint8
    labels    uint8 (N, height, width) class ids

Everything around the network runs inside the engine, fused and vectorised by it, and every engine
takes and gives the same types. The casts go through float at both ends because TensorRT converts
uint8 only from and to floats, and only at a network's edge.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, version_converter

from engines.card import LUMA, Card
from engines.errors import CardError, ModelError, RefineError, one_line
from engines.highest import Enlargement, final_resize, highest, highest_enlarged
from engines.nodes import Chain
from engines.refine import Refine, grid_of, refined_card
from engines.refine_graph import assemble, refine_scores

PICTURES = "streamseg_pictures"
LABELS = "streamseg_labels"

# The picture as floats, 0..255, (N, 3, H, W) RGB: what `_preprocess` makes second.
_PICTURE = "streamseg_in_1"

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)

Dims = list[int | None]  # None where a size is not known

# A change here that changes what is built must raise GRAPH_REVISION in engines/wrapped.py.

# The first opset with Resize's coordinate modes, which label upsampling needs.
_LEAST_OPSET = 13


def read_onnx(path: Path) -> onnx.ModelProto:
    """The network in a file; raises ModelError when it is missing or is not ONNX."""
    if not path.is_file():
        raise ModelError(f"no model file at {path}")
    try:
        model = onnx.load(str(path))
    except Exception as error:  # protobuf's, onnx's and the system's errors share no base
        raise ModelError(f"{path} is not an ONNX model: {one_line(error)}") from None
    if not model.graph.node:
        raise ModelError(f"{path} is not an ONNX model: its graph is empty")
    return model


def wrap(model: onnx.ModelProto, card: Card, refine: Refine | None = None) -> onnx.ModelProto:
    """A new model with the card's preprocessing around the network.

    The batch stays free if the network leaves it free, height and width become the card's, or,
    with a refinement, what `refined_card` makes of them. Raises CardError, naming what the network
    has, when the card does not describe it, RefineError when it has no scores to refine.
    """
    inner = onnx.ModelProto()
    inner.CopyFrom(model)
    opset = next((o.version for o in inner.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset < _LEAST_OPSET:
        try:
            inner = version_converter.convert_version(inner, _LEAST_OPSET)
        except Exception as error:  # protobuf's and the converter's errors share no base
            raise ModelError(
                f"{card.name} is of ONNX opset {opset} and cannot be brought to {_LEAST_OPSET}: "
                f"{one_line(error)}; export it again with a newer opset"
            ) from None
    # Before version 4 every weight had to be an input as well, and here only the pictures are.
    inner.ir_version = max(inner.ir_version, 4)
    graph = inner.graph
    _widen_weights(graph)
    source = _input(inner, card)
    batch = _fix_input(source, card)
    output = _output(inner, card)

    if refine is not None and output.type.tensor_type.elem_type not in _FLOATS:
        raise RefineError(
            f"{card.name}'s output {output.name!r} is no scores but numbers of another kind, "
            "perhaps class ids already; --refine needs scores: name another output in the card, "
            "or use --refine none"
        )
    before = _preprocess(source, card, refine)
    shape = _shape(inner, output, 1 if card.output.layout == "nchw" else 3)
    coarse = None if refine is not None else _enlargement(inner, output, card)
    after = _postprocess(
        output,
        card,
        shape,
        max(opset, _LEAST_OPSET),
        refine,
        coarse,
    )
    nodes = [*before.nodes, *graph.node, *after.nodes]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*before.constants, *after.constants])
    del graph.input[:]
    del graph.output[:]
    del graph.value_info[:]  # shapes noted for another size would contradict the fixed one
    taken = refined_card(card, refine).input
    h, w = taken.height, taken.width
    graph.input.append(_value(PICTURES, [batch, h, w, 3]))
    graph.output.append(_value(LABELS, [batch, h, w]))
    try:
        onnx.checker.check_model(inner)
        inner = onnx.shape_inference.infer_shapes(inner, strict_mode=True)
    except Exception as error:  # the checker's and the inferer's errors share no base
        raise CardError(
            f"{card.name} does not work at {card.input.height}x{card.input.width}: "
            f"{one_line(error)}; correct the card's input height and width"
        ) from None
    return inner


def at_card_size(model: onnx.ModelProto, card: Card) -> tuple[onnx.ModelProto, onnx.ValueInfoProto]:
    """A copy of the network that takes one picture at a time, at the card's size, and its input.

    Raises CardError where the card does not describe that input.
    """
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    _widen_weights(fixed.graph)
    source = _input(fixed, card)
    _fix_input(source, card)
    source.type.tensor_type.shape.dim[0].dim_value = 1
    del fixed.graph.value_info[:]  # shapes noted for another size would contradict the fixed one
    for output in fixed.graph.output:
        output.type.tensor_type.ClearField("shape")
    return fixed, source


def normalizer(source: onnx.ValueInfoProto, card: Card) -> onnx.ModelProto:
    """What `wrap` puts before a network, alone: uint8 (1, H, W, 3) RGB -> the input `source`."""
    chain = _preprocess(source, card, None)
    want = card.input
    graph = helper.make_graph(
        chain.nodes,
        "normalizer",
        [_value(PICTURES, [1, want.height, want.width, 3])],
        [source],
        chain.constants,
    )
    opsets = [helper.make_opsetid("", _LEAST_OPSET)]
    # The version that came with this opset: onnx's newest is not read by every runtime.
    return helper.make_model(graph, opset_imports=opsets, ir_version=7)


def _widen_weights(graph: onnx.GraphProto) -> None:
    """Weights that the file keeps in FP16, with a Cast to FP32 each, become FP32 weights: not every
    engine takes a computed tensor for a convolution's weights.
    """
    half = {t.name: t for t in graph.initializer if t.data_type == TensorProto.FLOAT16}
    casts = [n for n in graph.node if n.op_type == "Cast" and n.input[0] in half]
    casts = [n for n in casts if helper.get_node_attr_value(n, "to") == TensorProto.FLOAT]
    for node in casts:
        values = numpy_helper.to_array(half[node.input[0]]).astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
        graph.node.remove(node)
    used = {name for node in graph.node for name in node.input}
    for name, tensor in half.items():
        if casts and name not in used:
            graph.initializer.remove(tensor)


def _input(model: onnx.ModelProto, card: Card) -> onnx.ValueInfoProto:
    weights = {w.name for w in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in weights]
    if len(inputs) != 1:
        names = ", ".join(i.name for i in inputs) or "none"
        raise CardError(f"{card.name} must have one input, a picture; it has: {names}")
    return inputs[0]


def _output(model: onnx.ModelProto, card: Card) -> onnx.ValueInfoProto:
    outputs = {o.name: o for o in model.graph.output}
    if card.output.name is None:
        return model.graph.output[0]
    if card.output.name not in outputs:
        raise CardError(
            f"{card.name} has no output {card.output.name!r}; it has: {', '.join(outputs)}"
        )
    return outputs[card.output.name]


def _fix_input(source: onnx.ValueInfoProto, card: Card) -> int | str:
    """Writes the card's size into the network's input; returns its batch."""
    dims = source.type.tensor_type.shape.dim
    want = card.input
    h, w, c = want.height, want.width, want.channels
    wanted = [c, h, w] if want.layout == "nchw" else [h, w, c]
    if len(dims) != 4:
        raise CardError(
            f"{card.name}'s input {source.name!r} has {len(dims)} dimensions; a picture has 4"
        )
    for dim, size in zip(dims[1:], wanted, strict=True):
        if dim.HasField("dim_value") and dim.dim_value not in (0, size):
            has = [d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in dims]
            raise CardError(
                f"{card.name}'s input {source.name!r} is {has}, but its card says {want.layout} "
                f"with {c} channels, {h}x{w}; correct height, width, color or layout in the card"
            )
        dim.dim_value = size
    if dims[0].HasField("dim_value") and dims[0].dim_value > 0:
        return int(dims[0].dim_value)
    dims[0].dim_param = "N"
    return "N"


def takes_batches(network: Path) -> bool:
    """Whether an ONNX file leaves open how many pictures go in at a time."""
    graph = onnx.load(str(network), load_external_data=False).graph
    weights = {tensor.name for tensor in graph.initializer}  # once, these had to be inputs too
    inputs = [value for value in graph.input if value.name not in weights]
    return bool(inputs) and inputs[0].type.tensor_type.shape.dim[0].dim_value <= 0


def _shape(model: onnx.ModelProto, output: onnx.ValueInfoProto, axis: int) -> Dims | None:
    """The scores' shape once the input's is fixed; None where nobody can tell.

    What the file notes of it was for its own input size, perhaps another one than the card's: only
    the number of channels, at `axis`, is believed where inference cannot tell it.
    """
    noted = _dims(output)
    for other in model.graph.output:
        other.type.tensor_type.ClearField("shape")
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph.output
        shape = _dims(next(o for o in inferred if o.name == output.name))
    except Exception:  # a custom operator: the runtime will know, or say what it does not know
        shape = None
    if noted is None or len(noted) != 4:
        return shape
    shape = shape or [None] * 4
    if len(shape) == 4 and shape[axis] is None:
        shape[axis] = noted[axis]
    return shape


def _enlargement(
    model: onnx.ModelProto, output: onnx.ValueInfoProto, card: Card
) -> Enlargement | None:
    """How the network's scores, or ours made of them, are enlarged as the last step; None where
    they are not, or where that is not to be known or not bilinear.
    """
    if card.output.layout != "nchw":
        return None
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]  # noted for another size, perhaps
    try:
        graph = onnx.shape_inference.infer_shapes(bare, data_prop=True).graph
    except Exception:  # a custom operator
        return None
    # A network in FP16 is for a GPU, which has room for whole pictures.
    known = {
        value.name: _dims(value)
        for value in (*graph.value_info, *graph.output)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    shape = known.get(output.name) or []
    if len(shape) != 4 or None in shape[1:]:
        return None
    have, want = (shape[2] or 0, shape[3] or 0), (card.input.height, card.input.width)
    if have != want:
        return Enlargement(output.name, have)
    return final_resize(model.graph, known, output.name, want)


def _dims(value: onnx.ValueInfoProto) -> Dims | None:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]


def _preprocess(source: onnx.ValueInfoProto, card: Card, refine: Refine | None) -> Chain:
    """uint8 NHWC RGB -> the network's own input."""
    want = card.input
    chain = Chain("in", PICTURES)
    chain.add("Cast", to=TensorProto.FLOAT)
    chain.add("Transpose", perm=[0, 3, 1, 2])
    if refine is not None:
        _shrink(chain, card, refine)
    std = np.asarray(want.std, np.float64)
    scale = 1.0 / (255.0 * std)
    shift = (-np.asarray(want.mean, np.float64) / std).astype(np.float32)
    if want.color == "gray":
        # One 1x1 convolution weighs the three channels and normalises their sum.
        weights = (np.asarray(LUMA) * scale).astype(np.float32).reshape(1, 3, 1, 1)
        chain.add("Conv", chain.constant("luma", weights), chain.constant("shift", shift))
    else:
        if want.color == "bgr":
            chain.add("Gather", chain.constant("bgr", np.array([2, 1, 0], np.int64)), axis=1)
        chain.add("Mul", chain.constant("scale", scale.astype(np.float32).reshape(1, 3, 1, 1)))
        chain.add("Add", chain.constant("shift", shift.reshape(1, 3, 1, 1)))
    if want.layout == "nhwc":
        chain.add("Transpose", perm=[0, 2, 3, 1])
    kind = source.type.tensor_type.elem_type
    if kind != TensorProto.FLOAT:
        # Only now: 8-bit pictures are exact in float, and FP16 networks get them normalised.
        chain.add("Cast", to=kind)
    chain.end(source.name)
    return chain


def _shrink(chain: Chain, card: Card, refine: Refine) -> None:
    """The refinement's picture -> the network's size."""
    if refine.scale > 1:
        # At 2 the same as rule 1's bilinear sampling (pipeline/stages/geometry.py).
        chain.add("AveragePool", kernel_shape=[refine.scale] * 2, strides=[refine.scale] * 2)
    grid = grid_of(card, refine)
    size = (card.input.height, card.input.width)
    if (grid.height * refine.stride, grid.width * refine.stride) != size:
        chain.last = chain.resize(chain.last, *size)


def _postprocess(
    output: onnx.ValueInfoProto,
    card: Card,
    shape: Dims | None,
    opset: int,
    refine: Refine | None,
    coarse: Enlargement | None,
) -> Chain:
    """The network's class scores -> uint8 class ids at the card's size."""
    if shape is not None and len(shape) != 4:
        raise CardError(
            f"{card.name}'s output {output.name!r} has {len(shape)} dimensions; class scores have "
            "4 (N, classes, height, width); name another output in the card"
        )
    nchw = card.output.layout == "nchw"
    channels = None if shape is None else shape[1 if nchw else 3]
    binary = channels == 1 and len(card.classes) == 2
    if channels is not None and channels != len(card.classes) and not binary:
        raise CardError(
            f"{card.name}'s output {output.name!r} has {channels} channels, but its card names "
            f"{len(card.classes)} classes; correct classes, or output in the card"
        )
    chain = Chain("out", output.name)
    if coarse is not None and not binary:
        size = (card.input.height, card.input.width)
        highest_enlarged(chain, coarse, size, len(card.classes), opset)
        chain.add("Cast", to=TensorProto.UINT8)
        chain.end(LABELS)
        return chain
    if not nchw:
        chain.add("Transpose", perm=[0, 3, 1, 2])
    grid = None if refine is None else grid_of(card, refine)
    h, w = (card.input.height, card.input.width) if grid is None else (grid.height, grid.width)
    if shape is None or (shape[2:] if nchw else shape[1:3]) != [h, w]:
        # Networks such as SegFormer answer at a quarter of their input. Scores are interpolated,
        # never ids.
        chain.last = chain.resize(chain.last, h, w)
    if channels is None:
        # A wrong number of channels must be an error of the runtime's: compared with the ranks of
        # the classes, a single channel would be repeated and everything be class 0.
        chain.add("Reshape", chain.integers([0, len(card.classes), h, w]))
    kind = output.type.tensor_type.elem_type
    if refine is not None and grid is not None:
        if kind != TensorProto.FLOAT:
            chain.add("Cast", to=TensorProto.FLOAT)
            kind = TensorProto.FLOAT
        if binary:
            # Between two scores the higher one decides as the threshold does: 0 and the logit.
            zero = chain.node("Mul", chain.last, chain.number(0))
            chain.last = chain.node("Concat", zero, chain.last, axis=1)
            binary = False
        chain.last = refine_scores(chain, refine, grid, chain.last, _PICTURE)
    if binary:
        chain.add("Cast", to=TensorProto.FLOAT)
        chain.add("Greater", chain.constant("threshold", np.array(0.0, np.float32)))
        chain.add("Cast", to=TensorProto.FLOAT)
        chain.add("Squeeze", chain.constant("axis", np.array([1], np.int64)))
    else:
        highest(chain, len(card.classes), kind, opset)
    if grid is not None:
        chain.last = assemble(chain, grid, chain.last)
    chain.add("Cast", to=TensorProto.UINT8)
    chain.end(LABELS)
    return chain


def _value(name: str, shape: list[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.UINT8, shape)
