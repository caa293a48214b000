"""FP16 and BF16 networks: the types in the ONNX, and what they compute, on three runtimes."""

from __future__ import annotations

import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import engines
from engines.card import read_card
from engines.errors import EngineUnavailableError, ModelError
from engines.graph import LABELS, PICTURES, read_onnx, wrap
from engines.guard import guard_pictures
from engines.precision import FP16_MAX, FP16_TINY, KEPT_FP32, to_precision
from tests import networks
from tests.networks import Layer, labels_of, make_card, network, noise, on_runtime

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxconverter_common")

KINDS = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
DTYPES = {"fp16": np.dtype(np.float16), "bf16": np.dtype(ml_dtypes.bfloat16)}
# Relative, of one rounding: 10 and 7 bits after the leading one.
ROUNDING = {"fp16": 2.0**-11, "bf16": 2.0**-8}
SHAPE = [1, 3, 12, 16]
VOC = Path(engines.__file__).parent / "models"

node = helper.make_node


def plain(nodes, weights=None, outputs=("scores",), opset=17):
    """A network `input` (1, 3, 12, 16) -> `outputs` of these nodes."""
    graph = helper.make_graph(
        nodes,
        "plain",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(v, name) for name, v in (weights or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def f32(*values):
    return np.array(values, np.float32)


def constant(name, **value):
    return node("Constant", [], [name], **value)


SCALES = f32(1, 1, 2, 2)
# Networks on which the converter alone stumbles, or that have operators which stay in FP32.
NETWORKS = {
    "resize scales": plain(
        [node("Resize", ["input", "", "scales"], ["scores"], mode="linear")], {"scales": SCALES}
    ),
    "resize scales that others read too": plain(
        [
            node("Resize", ["input", "", "scales"], ["big"], mode="linear"),
            node("ReduceMax", ["scales"], ["most"], keepdims=0),
            node("Mul", ["big", "most"], ["scores"]),
        ],
        {"scales": SCALES},
    ),
    "resize scales from a constant": plain(
        [
            constant("scales", value=numpy_helper.from_array(SCALES)),
            node("Resize", ["input", "", "scales"], ["scores"], mode="linear"),
        ]
    ),
    "resize scales from a size": plain(
        [
            node("Shape", ["input"], ["size"]),
            node("Cast", ["size"], ["float"], to=TensorProto.FLOAT),
            node("Div", ["wanted", "float"], ["scales"]),
            node("Resize", ["input", "", "scales"], ["scores"], mode="linear"),
        ],
        {"wanted": f32(1, 3, 29, 41)},
    ),
    "resize sizes": plain(
        [node("Resize", ["input", "", "", "sizes"], ["scores"], mode="linear")],
        {"sizes": np.array([1, 3, 20, 20], np.int64)},
    ),
    "softmax": plain([node("Softmax", ["input"], ["scores"], axis=1)]),
    "reduce mean": plain([node("ReduceMean", ["input"], ["scores"], axes=[2, 3])]),
    "kept operators without names": plain(
        [
            node("ReduceMean", ["input"], ["mean"], axes=[2, 3]),
            node("Sub", ["input", "mean"], ["centred"]),
            node("Softmax", ["centred"], ["soft"], axis=1),
            node("ReduceMean", ["soft"], ["mean2"], axes=[2, 3]),
            node("Softmax", ["soft"], ["soft2"], axis=1),
            node("Add", ["soft2", "mean2"], ["scores"]),
        ]
    ),
    "kept operators that share a name": plain(
        [
            node("Softmax", ["input"], ["a"], axis=1, name="same"),
            node("Relu", ["a"], ["b"], name="same"),
            node("Softmax", ["b"], ["scores"], axis=2, name="same"),
        ]
    ),
    "an output that is read inside": plain(
        [
            node("Softmax", ["input"], ["scores"], axis=1),
            node("ReduceMean", ["scores"], ["mean"], axes=[2, 3]),
            node("Relu", ["mean"], ["more"]),
        ],
        outputs=("scores", "more"),
    ),
    "a weight for both precisions": plain(
        [node("Mul", ["input", "w"], ["x"]), node("Pow", ["x", "w"], ["scores"])],
        {"w": np.full((1, 3, 1, 1), 1.5, np.float32)},
    ),
    "constants of one number and of some": plain(
        [
            constant("one", value_float=0.7),
            constant("some", value_floats=[0.5] * 16),
            node("Mul", ["input", "one"], ["x"]),
            node("Mul", ["x", "some"], ["scores"]),
        ]
    ),
    "a size as a number": plain(
        [
            node("Shape", ["input"], ["size"]),
            node("Gather", ["size", "axis"], ["height"]),
            node("Cast", ["height"], ["float"], to=TensorProto.FLOAT),
            node("Div", ["input", "float"], ["scores"]),
        ],
        {"axis": np.array(2, np.int64)},
    ),
    "a constant of a shape": plain(
        [
            node("ConstantOfShape", ["s"], ["three"], value=numpy_helper.from_array(f32(3))),
            node("Mul", ["input", "three"], ["scores"]),
        ],
        {"s": np.array([1, 3, 1, 1], np.int64)},
    ),
    "clip and hard swish": plain(
        [node("Clip", ["input", "low", "high"], ["x"]), node("HardSigmoid", ["x"], ["scores"])],
        {"low": np.array(0, np.float32), "high": np.array(6, np.float32)},
    ),
    "norm": plain(
        [node("ReduceL2", ["input"], ["n"], axes=[1]), node("Div", ["input", "n"], ["scores"])]
    ),
    "min and max": plain(
        [node("Min", ["input", "w"], ["x"]), node("Max", ["x", "v"], ["scores"])],
        {"w": f32(0.8), "v": f32(0.2)},
    ),
    "layer norm": plain(
        [node("LayerNormalization", ["input", "w", "b"], ["scores"])],
        {"w": np.linspace(1, 2, 16, dtype=np.float32), "b": np.zeros(16, np.float32)},
    ),
}
MODELS = pytest.mark.parametrize("model", NETWORKS.values(), ids=NETWORKS)
PRECISIONS = pytest.mark.parametrize("precision", KINDS)


def picture(seed=0):
    return np.random.default_rng(seed).uniform(0.1, 1, SHAPE).astype(np.float32)


def kinds_of(model):
    """Tensor name -> type, as shape inference finds them without anyone's notes."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]
    graph = onnx.shape_inference.infer_shapes(bare, strict_mode=True).graph
    found = {t.name: t.data_type for t in graph.initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        found[value.name] = value.type.tensor_type.elem_type
    return found


def converted(model, precision):
    """The conversion, with the source shown to be as it was before."""
    before = model.SerializeToString(deterministic=True)
    half = to_precision(model, precision)
    assert model.SerializeToString(deterministic=True) == before
    return half


def far(got, expected):
    """The largest difference, as a share of the largest value."""
    assert got.shape == expected.shape
    return np.abs(got.astype(np.float64) - expected).max() / np.abs(expected).max()


@MODELS
def test_fp16_computes_what_fp32_does(model):
    half = converted(model, "fp16")
    onnx.checker.check_model(half, full_check=True)
    for output in model.graph.output:
        # The reference, because ONNX Runtime refuses nodes of one name and the converter must not.
        (expected,) = ReferenceEvaluator(model).run([output.name], {"input": picture()})
        got = on_runtime(half, picture().astype(np.float16), output.name)
        assert got.dtype == np.float16
        assert far(got, expected) < 6 * ROUNDING["fp16"]


@MODELS
def test_bf16_computes_what_fp32_does_in_onnxs_reference(model):
    half = converted(model, "bf16")
    onnx.checker.check_model(half)
    expected = ReferenceEvaluator(model).run(None, {"input": picture()})
    got = ReferenceEvaluator(half).run(None, {"input": picture().astype(ml_dtypes.bfloat16)})
    for one, other in zip(got, expected, strict=True):
        assert one.dtype == ml_dtypes.bfloat16
        assert far(one, other) < 6 * ROUNDING["bf16"]


def on_openvino(model, feed):
    import openvino as ov

    core = ov.Core()
    compiled = core.compile_model(
        core.read_model(model.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    tensor = ov.Tensor(compiled.input(0).element_type, feed.shape)
    tensor.data[:] = feed
    return compiled, [np.asarray(v).copy() for v in compiled([tensor]).values()]


@MODELS
def test_openvino_reads_bf16(model):
    import openvino as ov

    feed = picture().astype(ml_dtypes.bfloat16)
    compiled, got = on_openvino(converted(model, "bf16"), feed.view(np.float16))
    assert compiled.input(0).element_type == ov.Type.bf16
    expected = ReferenceEvaluator(model).run(None, {"input": picture()})
    for one, other in zip(got, expected, strict=True):
        values = one if one.dtype == np.float32 else one.view(ml_dtypes.bfloat16)
        assert far(values, other) < 6 * ROUNDING["bf16"]


@MODELS
@PRECISIONS
def test_types_are_really_half(model, precision):
    half = converted(model, precision)
    kinds = kinds_of(half)
    for value in (*half.graph.input, *half.graph.output):
        assert value.type.tensor_type.elem_type == KINDS[precision]
        assert kinds[value.name] == KINDS[precision]
    other = KINDS["bf16" if precision == "fp16" else "fp16"]
    assert other not in kinds.values()
    read = [name for n in half.graph.node for name in n.input]
    assert all(t.name in read for t in half.graph.initializer)
    for n in half.graph.node:
        if n.op_type in KEPT_FP32:
            assert kinds[n.input[0]] == kinds[n.output[0]] == TensorProto.FLOAT
        if n.op_type in ("Resize", "Mul", "Sub", "Add", "Min", "Max", "Relu", "Clip"):
            assert kinds[n.input[0]] == kinds[n.output[0]] == KINDS[precision]
    # What stays in FP32 stands between casts.
    casts = [n.attribute[0].i for n in half.graph.node if n.op_type == "Cast"]
    if any(n.op_type in KEPT_FP32 for n in half.graph.node):
        assert {TensorProto.FLOAT, KINDS[precision]} <= set(casts)


def test_scales_of_a_size_that_fp16_cannot_count_are_exact():
    # 4099 is not an FP16 number: computed in it the picture would be of another size.
    model = NETWORKS["resize scales from a size"]
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    wide.graph.initializer[0].CopyFrom(numpy_helper.from_array(f32(1, 3, 12, 4099), "wanted"))
    expected = on_runtime(wide, picture()).shape
    assert on_runtime(to_precision(wide, "fp16"), picture().astype(np.float16)).shape == expected


def test_a_mean_of_many_large_numbers_is_right_because_it_is_taken_in_fp32():
    model = plain([node("ReduceMean", ["input"], ["scores"], axes=[2, 3])])
    high = np.full(SHAPE, 5000, np.float16)  # their sum is 960,000
    got = on_runtime(to_precision(model, "fp16"), high)
    np.testing.assert_array_equal(got, np.full((1, 3, 1, 1), 5000, np.float16))


def test_more_operators_are_kept_on_request():
    model = plain([node("Relu", ["input"], ["x"]), node("Sigmoid", ["x"], ["scores"])])
    kinds = kinds_of(to_precision(model, "fp16"))
    assert TensorProto.FLOAT not in kinds.values()
    half = to_precision(model, "fp16", keep=["Sigmoid"])
    kinds = kinds_of(half)
    for n in half.graph.node:
        if n.op_type != "Cast":
            kept = n.op_type == "Sigmoid"
            wanted = TensorProto.FLOAT if kept else TensorProto.FLOAT16
            assert kinds[n.input[0]] == kinds[n.output[0]] == wanted


def test_fp32_and_what_is_half_already_come_back_as_they_are():
    model = networks.deep()
    assert to_precision(model, "fp32") is model
    half = networks.deep(dtype=np.float16)
    for precision in ("fp32", "fp16", "bf16"):
        assert to_precision(half, precision) is half
    for precision in KINDS:
        once = to_precision(model, precision)
        assert to_precision(once, precision) is once


def test_the_same_network_gives_the_same_bytes():
    for precision in KINDS:
        one, other = (
            to_precision(NETWORKS["kept operators without names"], precision) for _ in range(2)
        )
        assert one.SerializeToString(deterministic=True) == other.SerializeToString(
            deterministic=True
        )


def scaled(factor):
    """A weight of `factor` in a convolution whose other weights are small."""
    weights = np.full((4, 3, 1, 1), 0.5)
    weights[2, 1] = factor
    return network(Layer(weights, np.zeros(4)))


@pytest.mark.parametrize("factor", [65505.0, -65505.0, 1e6, -3e38, np.inf, -np.inf, np.nan])
def test_a_weight_beyond_fp16_is_refused_by_name(factor):
    with pytest.raises(ModelError, match=r"weight 'w0' reaches .*65504; use --precision bf16"):
        to_precision(scaled(factor), "fp16")


def test_a_constant_beyond_fp16_is_refused_too():
    for value in ({"value_float": 1e6}, {"value": numpy_helper.from_array(f32(1, 1e6, 2))}):
        model = plain([constant("big", **value), node("Mul", ["input", "big"], ["scores"])])
        with pytest.raises(ModelError, match="weight 'big' reaches 1e\\+06"):
            to_precision(model, "fp16")


def test_the_largest_weights_of_fp16_pass_and_bf16_takes_more():
    for factor in (65504.0, -65504.0):
        half = to_precision(scaled(factor), "fp16")
        weights = {t.name: numpy_helper.to_array(t) for t in half.graph.initializer}
        assert weights["w0"][2, 1, 0, 0] == factor
    half = to_precision(scaled(1e6), "bf16")
    weights = {t.name: numpy_helper.to_array(t) for t in half.graph.initializer}
    assert weights["w0"][2, 1, 0, 0] == np.float32(1e6).astype(ml_dtypes.bfloat16)


def test_a_large_weight_of_an_operator_that_stays_in_fp32_passes():
    model = plain(
        [node("Relu", ["input"], ["x"]), node("Pow", ["x", "w"], ["scores"])], {"w": f32(1e6)}
    )
    half = to_precision(model, "fp16")
    (weight,) = (numpy_helper.to_array(t) for t in half.graph.initializer)
    assert weight.dtype == np.float32
    assert weight == 1e6


finite = st.floats(-FP16_MAX, FP16_MAX, width=32)


def weights_after(values, precision):
    layer = Layer(values, np.zeros(4))
    half = to_precision(network(layer), precision)
    return next(numpy_helper.to_array(t) for t in half.graph.initializer if t.name == "w0")


@given(arrays(np.float32, (4, 3, 1, 1), elements=finite))
def test_fp16_weights_are_the_nearest_numbers(values):
    got = weights_after(values, "fp16")
    expected = values.astype(np.float16)
    small = (values != 0) & (np.abs(values) < FP16_TINY)
    # Below the smallest number it is that number, with its sign: never 0, which a divisor may be.
    expected[small] = np.sign(values[small]) * np.float16(FP16_TINY)
    np.testing.assert_array_equal(got, expected)


@given(arrays(np.float32, (4, 3, 1, 1), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_bf16_weights_are_rounded_once_from_fp32(values):
    got = weights_after(values, "bf16")
    assert got.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(got, values.astype(ml_dtypes.bfloat16))


def test_rounding_twice_would_have_been_another_number():
    # A hair above the middle of two BF16 numbers; FP16 would round the hair away.
    value = np.float32(1 + 2.0**-8 + 2.0**-20)
    assert value.astype(np.float16).astype(ml_dtypes.bfloat16) == 1
    values = np.full((4, 3, 1, 1), value)
    assert (weights_after(values, "bf16").astype(np.float32) == 1 + 2.0**-7).all()


@PRECISIONS
@given(st.integers(0, 1000), st.sampled_from([1, 2, 4]), st.sampled_from(["nchw", "nhwc"]))
def test_any_small_network_stays_within_a_few_roundings(precision, seed, stride, layout):
    model = networks.deep(seed=seed, stride=stride, layout=layout)
    half = to_precision(model, precision)
    shape = (1, 3, 8, 12) if layout == "nchw" else (1, 8, 12, 3)
    feed = np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)
    (expected,) = ReferenceEvaluator(model).run(None, {"input": feed})
    (got,) = ReferenceEvaluator(half).run(None, {"input": feed.astype(DTYPES[precision])})
    assert got.dtype == DTYPES[precision]
    assert far(got, expected) < 24 * ROUNDING[precision]


def test_a_half_network_is_wrapped_and_agrees():
    card = make_card(24, 32, classes=6)
    model = networks.deep()
    pictures = noise(2, card)
    same = labels_of(model, card, pictures) == labels_of(
        to_precision(model, "fp16"), card, pictures
    )
    assert same.mean() > 0.99


def test_without_the_converter_one_line_says_what_to_install(monkeypatch):
    for name in [n for n in sys.modules if n.split(".")[0] == "onnxconverter_common"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnxconverter_common", None)
    model = networks.deep()
    for precision in KINDS:
        with pytest.raises(EngineUnavailableError, match="pip install onnxconverter-common") as got:
            to_precision(model, precision)
        assert "\n" not in str(got.value)
        assert got.value.__cause__ is None
    assert to_precision(model, "fp32") is model


def test_a_network_that_the_converter_cannot_take_is_a_model_error(monkeypatch):
    from onnxconverter_common import float16

    def fail(*_, **__):
        raise ValueError("two\nlines")

    monkeypatch.setattr(float16, "convert_float_to_float16", fail)
    with pytest.raises(ModelError, match="cannot be written in FP16: two lines"):
        to_precision(networks.deep(), "fp16")


@pytest.fixture(scope="module")
def voc():
    """The shipped model: its network, its card, the guard's frames and FP32's masks of them."""
    card = read_card(VOC / "voc.yaml")
    model = read_onnx(VOC / "voc.onnx")
    pictures = guard_pictures(card)
    masks = [labels_of(model, card, picture) for picture in pictures]
    seen = {card.classes[i] for mask in masks for i in np.flatnonzero(np.bincount(mask.ravel()))}
    assert {"background", "person", "dog", "car", "bottle", "chair", "sofa"} <= seen
    return model, card, pictures, masks


def test_voc_in_fp16_agrees_with_fp32(voc):
    model, card, pictures, masks = voc
    half = to_precision(model, "fp16")
    assert TensorProto.FLOAT16 in {t.data_type for t in half.graph.initializer}
    same = [
        (labels_of(half, card, picture) == mask).mean()
        for picture, mask in zip(pictures, masks, strict=True)
    ]
    print(f"\nvoc, FP16: {np.mean(same):.4%} of the pixels agree, {min(same):.4%} at worst")
    assert min(same) >= 0.99


def test_voc_in_bf16_agrees_with_fp32_on_openvino(voc):
    model, card, pictures, masks = voc
    graph = wrap(to_precision(model, "bf16"), card)
    assert (graph.graph.input[0].name, graph.graph.output[0].name) == (PICTURES, LABELS)
    import openvino as ov

    core = ov.Core()
    compiled = core.compile_model(
        core.read_model(graph.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    same = [
        (compiled(picture)[0] == mask).mean() for picture, mask in zip(pictures, masks, strict=True)
    ]
    print(f"\nvoc, BF16 weights: {np.mean(same):.4%} agree, {min(same):.4%} at worst")
    assert min(same) >= 0.97
