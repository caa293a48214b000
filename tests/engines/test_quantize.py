"""INT8: masks agree with FP32 on every runtime, and what 8 bits would ruin stays in FP32."""

from __future__ import annotations

import hashlib

import numpy as np
import onnx
import pytest

pytest.importorskip("onnxruntime")

from engines.choose import load_engine
from engines.errors import DriftError, ModelError
from engines.guard import compare, guard_pictures
from engines.model import Model, find_model
from engines.quantize import quantize
from tests import networks

CARD = networks.make_card(32, 40, 6, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25))


def noise(count, card=CARD, first=0):
    """Smooth pictures: neighbours of a pixel are alike, as in real ones."""
    shape = (card.input.height // 4, card.input.width // 4, 3)
    small = [
        np.random.default_rng(first + i).integers(0, 256, shape, np.uint8) for i in range(count)
    ]
    return [np.kron(s, np.ones((4, 4, 1), np.uint8))[None] for s in small]


def saved(made, folder):
    path = folder / f"{made.card.name}.onnx"
    path.write_bytes(made.data)
    return Model(made.card, path)


def model(folder, made, card=CARD):
    return find_model(networks.save(folder, made, card))


def graph(made):
    return onnx.load_from_string(made.data).graph


@pytest.mark.parametrize("for_tensorrt", [False, True])
@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_masks_agree_with_fp32_on_every_runtime(tmp_path, for_tensorrt, color):
    card = CARD.model_copy(update={"input": CARD.input.model_copy(update={"color": color})})
    exact = model(tmp_path, networks.deep(), card)
    # Random weights: scores are close, and more of them change places than in a trained network.
    options = {"for_tensorrt": for_tensorrt, "allow_drift": True}
    made = quantize(exact, noise(24), noise(8, first=100), **options)
    own = made.card
    assert {"QuantizeLinear", "DequantizeLinear"} <= {n.op_type for n in graph(made).node}
    assert own.name == "small-int8"
    assert own.metrics["precision"] == "int8"
    assert own.metrics["agreement"] >= 0.97
    assert own.sha256 == hashlib.sha256(made.data).hexdigest()
    quantized = saved(made, tmp_path)
    for engine in ("openvino", "onnxruntime"):
        with (
            load_engine(quantized, engine=engine, precision="fp32") as mine,
            load_engine(exact, engine=engine, precision="fp32") as right,
        ):
            found = compare(mine, right, noise(8, first=200))
        assert 0.97 < found.pixels < 1, engine  # 8 bits, and not FP32 in disguise


def test_tensorrt_gets_no_zero_points_and_no_int32(tmp_path):
    exact = model(tmp_path, networks.deep())
    for for_tensorrt in (True, False):
        made = quantize(exact, noise(8), noise(4), for_tensorrt=for_tensorrt, allow_drift=True)
        points = {n.input[2] for n in graph(made).node if n.op_type == "QuantizeLinear"}
        values = [t for t in graph(made).initializer if t.name in points]
        assert values
        zero = all((onnx.numpy_helper.to_array(t) == 0).all() for t in values)
        assert zero == for_tensorrt
        kinds = {t.name: t.data_type for t in graph(made).initializer}
        taken = {kinds.get(n.input[0]) for n in graph(made).node if n.op_type[:2] == "De"}
        assert (onnx.TensorProto.INT32 not in taken) == for_tensorrt
        if for_tensorrt:
            assert {kinds[name] for name in points} == {onnx.TensorProto.INT8}


def with_swish(apart, opset=17):
    """A network whose activations are HardSwish, or x * Sigmoid(x)."""
    made = networks.deep()
    made.opset_import[0].version = opset
    for node in [n for n in made.graph.node if n.op_type == "Relu"]:
        if apart:
            gate = onnx.helper.make_node("Sigmoid", node.input, [f"{node.output[0]}_gate"])
            made.graph.node.insert(list(made.graph.node).index(node), gate)
            node.input.append(gate.output[0])
        node.op_type = "Mul" if apart else "HardSwish"
    return made


@pytest.mark.parametrize("apart", [False, True])
def test_nothing_goes_to_8_bits_between_a_layer_and_its_swish(tmp_path, apart):
    exact = model(tmp_path, with_swish(apart))
    made = quantize(exact, noise(24), noise(8, first=100), allow_drift=True)
    nodes = graph(made).node
    makers = {name: node.op_type for node in nodes for name in node.output}
    swishes = [n for n in nodes if n.op_type == ("Sigmoid" if apart else "HardSwish")]
    assert len(swishes) == 2
    assert {makers[n.input[0]] for n in swishes} == {"Conv"}
    if apart:
        products = [
            n for n in nodes if n.op_type == "Mul" and "Sigmoid" in map(makers.get, n.input)
        ]
        assert [{makers[name] for name in n.input} for n in products] == [{"Conv", "Sigmoid"}] * 2
    else:
        assert "HardSigmoid" not in makers.values()
    # The layers themselves are in 8 bits.
    layers = [n for n in nodes if n.op_type == "Conv"]
    assert {makers[name] for n in layers for name in n.input[:2]} == {"DequantizeLinear"}
    for engine in ("openvino", "onnxruntime"):
        with (
            load_engine(saved(made, tmp_path), engine=engine, precision="fp32") as mine,
            load_engine(exact, engine=engine, precision="fp32") as right,
        ):
            assert 0.97 < compare(mine, right, noise(8, first=200)).pixels < 1, engine


def test_a_gate_that_is_no_swish_is_quantized(tmp_path):
    other = with_swish(apart=True)
    for gate in [n for n in other.graph.node if n.op_type == "Sigmoid"]:
        gate.op_type = "HardSigmoid"  # with ONNX's own numbers, which are not HardSwish's
    made = quantize(model(tmp_path, other), noise(8), noise(4, first=100), allow_drift=True)
    kinds = [n.op_type for n in graph(made).node]
    assert kinds.count("HardSigmoid") == 2
    assert "HardSwish" not in kinds


def outlier():
    """Four layers; the second gives one channel a thousand times as large as the others, and the
    third does not look at it. Eight bits for all of them leave the others none.
    """
    rng = np.random.default_rng(5)
    layers = [networks.random_layer(rng, a, b, 3) for a, b in ((3, 8), (8, 8), (8, 8), (8, 6))]
    layers[1].weights[0] *= 1000
    layers[2].weights[:, 0] = 0
    return networks.network(*layers)


def test_layers_that_suffer_stay_in_fp32(tmp_path):
    said: list[str] = []
    exact = model(tmp_path, outlier())
    made = quantize(exact, noise(16), noise(8, first=50), say=said.append)
    kept = list(made.kept)
    assert 1 <= len(kept) <= 2
    assert made.card.metrics["kept_in_fp32"] == ", ".join(kept)
    assert any("stay in FP32" in line for line in said)
    assert made.agreement.pixels >= 0.99
    convolutions = [n for n in graph(made).node if n.op_type == "Conv"]
    weights = {t.name for t in graph(made).initializer if t.data_type == onnx.TensorProto.FLOAT}
    in_float = [n.name for n in convolutions if n.input[1] in weights]
    assert sorted(in_float) == sorted(kept)


def test_drift_is_refused_and_can_be_allowed(tmp_path):
    """Ranges of nearly black pictures do not fit bright ones, and the only layer cannot be kept."""
    layer = networks.random_layer(np.random.default_rng(3), 3, 6, 3)
    exact = model(tmp_path, networks.network(layer))
    dark = [picture // 64 for picture in noise(8)]
    with pytest.raises(DriftError, match=r"INT8 of small drifts: .* --allow-drift"):
        quantize(exact, dark, noise(8, first=50))
    made = quantize(exact, dark, noise(8, first=50), allow_drift=True)
    assert made.agreement.pixels < 0.99
    assert made.agreement.allowed


def test_a_network_without_layers_is_refused(tmp_path):
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Sigmoid", ["input"], ["scores"])],
        "none",
        [value("input", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [value("scores", TensorProto.FLOAT, ["n", 3, "h", "w"])],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    card = networks.make_card(32, 40, 3)
    with pytest.raises(ModelError, match="no layers that could be quantized"):
        quantize(model(tmp_path, made, card), noise(2), noise(2))


@pytest.mark.slow
def test_voc_on_real_pictures(tmp_path):
    voc = find_model("voc")
    card = voc.card.model_copy(
        update={"input": voc.card.input.model_copy(update={"height": 177, "width": 305})}
    )
    small = Model(card, voc.file)
    frames = guard_pictures(card)
    made = quantize(small, frames[:4], frames[4:], allow_drift=True)
    assert made.agreement.pixels > 0.95  # of four pictures' ranges; real use takes dozens
    assert len(made.data) < 0.4 * voc.file.stat().st_size
