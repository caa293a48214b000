"""Any network + its card -> pictures in, class ids out; checked against NumPy on ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines.errors import CardError, ModelError
from engines.graph import LABELS, PICTURES, read_onnx, wrap
from tests import networks
from tests.networks import labels_of, make_card, network, on_runtime, random_layer

pytest.importorskip("onnxruntime")

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def three_layers(channels=3, classes=4, stride=1, seed=5, **options):
    rng = np.random.default_rng(seed)
    return network(
        random_layer(rng, channels, 8, 3),
        random_layer(rng, 8, 8, 3, stride),
        random_layer(rng, 8, classes),
        **options,
    )


def network_values(pictures, card):
    """What the network must get, float64 in its own layout: independent of the graph."""
    want = card.input
    values = pictures.astype(np.float64)
    if want.color == "bgr":
        values = values[..., ::-1]
    if want.color == "gray":
        values = values @ np.array([0.299, 0.587, 0.114])
        values = values[..., None]
    values = (values / 255 - np.array(want.mean)) / np.array(want.std)
    return values if want.layout == "nhwc" else values.transpose(0, 3, 1, 2)


def expected_labels(model, card, pictures, dtype=np.float32):
    """Ids and where they are certain: the best score beats the second by a margin."""
    values = network_values(pictures, card).astype(dtype)
    scores = on_runtime(model, np.ascontiguousarray(values), card.output.name)
    scores = scores.astype(np.float64)
    if card.output.layout == "nhwc":
        scores = scores.transpose(0, 3, 1, 2)
    scores = networks.bilinear(scores, (card.input.height, card.input.width))
    if scores.shape[1] == 1:
        scores = np.concatenate([np.zeros_like(scores), scores], axis=1)
    ordered = np.sort(scores, axis=1)
    margin = 1e-2 if dtype == np.float16 else 1e-5
    return scores.argmax(1), ordered[:, -1] - ordered[:, -2] > margin


def check(model, card, count=2, dtype=np.float32):
    pictures = networks.noise(count, card)
    labels = labels_of(model, card, pictures)
    expected, certain = expected_labels(model, card, pictures, dtype)
    assert labels.dtype == np.uint8
    assert labels.shape == expected.shape
    assert certain.mean() > 0.9
    assert len(np.unique(expected[certain])) >= 2  # or being right would mean nothing
    np.testing.assert_array_equal(labels[certain], expected[certain])


@pytest.mark.parametrize("color", ["rgb", "bgr", "gray"])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_the_network_gets_what_the_card_says(color, layout, dtype):
    n = 1 if color == "gray" else 3
    card = make_card(
        color=color, layout=layout, mean=MEAN[:n], std=STD[:n], output={"layout": layout}
    )
    check(three_layers(n, layout=layout, dtype=dtype), card, dtype=dtype)


@pytest.mark.parametrize("color", ["rgb", "bgr", "gray"])
def test_normalising_is_pixel_over_255_less_mean_over_std(color):
    n = 1 if color == "gray" else 3
    card = make_card(color=color, mean=MEAN[:n], std=STD[:n])
    model = wrap(three_layers(n), card)
    model.graph.output.append(helper.make_tensor_value_info("input", TensorProto.FLOAT, None))
    pictures = networks.noise(2, card)
    np.testing.assert_allclose(
        on_runtime(model, pictures, "input"), network_values(pictures, card), atol=2e-6
    )


@pytest.mark.parametrize("stride", [2, 4])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_scores_at_a_fraction_of_the_size_are_interpolated_before_the_choice(stride, layout, dtype):
    card = make_card(32, 48, layout=layout, output={"layout": layout})
    check(three_layers(stride=stride, layout=layout, dtype=dtype), card, dtype=dtype)


@pytest.mark.parametrize("opset", [9, 11, 12, 13, 17, 18, 21])
@pytest.mark.parametrize("stride", [1, 4])
def test_old_and_new_opsets(opset, stride):
    check(three_layers(stride=stride, opset=opset), make_card(16, 24))


def test_weights_that_are_inputs_too_as_before_ir_version_4():
    check(three_layers(opset=9, ir_version=3), make_card(16, 24))


@pytest.mark.parametrize("stride", [1, 4])
def test_one_channel_is_a_threshold_between_two_classes(stride):
    card = make_card(16, 24, classes=2)
    check(three_layers(classes=1, stride=stride, seed=6), card)


def test_a_logit_of_exactly_zero_is_class_0():
    card = make_card(4, 4, classes=2)
    layer = networks.Layer(np.full((1, 3, 1, 1), 1.0), np.array([-3 * 51 / 255]))
    pictures = np.full((1, 4, 4, 3), 51, np.uint8)
    pictures[0, 0, 0] = 52
    labels = labels_of(network(layer), card, pictures)
    assert labels[0, 0, 0] == 1
    assert labels.sum() <= 1 + 15  # rounding may lift the others; below zero nothing is class 1
    assert not labels_of(network(layer), card, pictures // 2).any()


def test_of_equal_scores_the_lower_id_wins():
    card = make_card(4, 4, classes=4)
    layer = networks.Layer(np.zeros((4, 3, 1, 1)), np.array([1.0, 2.0, 2.0, 2.0]))
    assert (labels_of(network(layer), card, networks.noise(1, card)) == 1).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_all_of_256_classes_can_be_told_apart(dtype):
    card = make_card(8, 32, classes=256)
    rng = np.random.default_rng(0)
    layer = networks.Layer(rng.normal(0, 1, (256, 3, 1, 1)), np.arange(256) * 0.01)
    for chosen in (0, 1, 127, 128, 254, 255):
        layer.bias[chosen] = 60
        labels = labels_of(network(layer, dtype=dtype), card, networks.noise(1, card))
        assert np.unique(labels).tolist() == [chosen]
        layer.bias[chosen] = 0


@pytest.mark.parametrize("layers", [-1000.0, 1000.0])
def test_scores_far_from_zero_are_compared_all_the_same(layers):
    card = make_card(4, 4, classes=3)
    layer = networks.Layer(np.zeros((3, 3, 1, 1)), np.array([layers - 1, layers + 1, layers]))
    assert (labels_of(network(layer), card, networks.noise(1, card)) == 1).all()


def two_outputs():
    model = three_layers(classes=4)
    weights = np.random.default_rng(9).normal(0, 1, (5, 4, 1, 1)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weights, "other_w"))
    model.graph.node.append(helper.make_node("Conv", ["scores", "other_w"], ["other"]))
    model.graph.output.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, None))
    return model


def test_the_first_output_is_taken_unless_the_card_names_another():
    check(two_outputs(), make_card(classes=4))
    check(two_outputs(), make_card(classes=4, output={"name": "scores"}))
    check(two_outputs(), make_card(classes=5, output={"name": "other"}))


@pytest.mark.parametrize("size", [("h", "w"), (16, 24), (None, None)])
@pytest.mark.parametrize("batch", ["n", None, 2])
def test_free_and_fixed_inputs(size, batch):
    card = make_card(16, 24)
    model = three_layers(stride=4, size=size, batch=batch)
    check(model, card)
    dims = wrap(model, card).graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_value for d in dims[1:]] == [16, 24, 3]
    assert dims[0].dim_value == (batch or 0 if batch != "n" else 0)


def test_sizes_noted_for_another_input_do_not_mislead():
    # Exporters note the shapes of the picture that they traced with; the input is free anyway.
    card = make_card(32, 48)
    model = three_layers(stride=4)
    model.graph.output[0].CopyFrom(
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 4, 64, 64])
    )
    for name, channels, size in (("conv0", 8, 256), ("relu0", 8, 256), ("conv1", 8, 64)):
        model.graph.value_info.append(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", channels, size, size])
        )
    check(model, card)


@pytest.mark.parametrize("noted", [[1, 4, 32, 48], [1, 7, 32, 48], None])
def test_a_size_noted_for_the_output_is_not_believed(noted):
    card, model = make_card(32, 48), three_layers(stride=4)
    model.graph.output[0].CopyFrom(
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, noted)
    )
    check(model, card)


@pytest.mark.parametrize("color", ["rgb", "bgr", "gray"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("classes", [1, 4])
def test_the_edges_are_what_tensorrt_can_convert(color, dtype, classes):
    model = three_layers(1 if color == "gray" else 3, classes, dtype=dtype)
    model = wrap(model, make_card(classes=max(2, classes), color=color))
    makers = {name: node for node in model.graph.node for name in node.output}
    first, second = model.graph.node[:2]
    assert (first.op_type, list(first.input)) == ("Cast", [PICTURES])
    assert first.attribute[0].i == TensorProto.FLOAT
    assert (second.op_type, list(second.input)) == ("Transpose", list(first.output))
    last = makers[LABELS]
    assert last is model.graph.node[-1] or last == model.graph.node[-1]
    assert last.op_type == "Cast"
    assert last.attribute[0].i == TensorProto.UINT8
    # The last cast comes from float, and no other node touches 8-bit values.
    kinds = {v.name: v.type.tensor_type.elem_type for v in model.graph.value_info}
    assert kinds[last.input[0]] == TensorProto.FLOAT
    assert TensorProto.UINT8 not in kinds.values()
    assert [i.name for i in model.graph.input] == [PICTURES]
    assert [o.name for o in model.graph.output] == [LABELS]
    for value in (model.graph.input[0], model.graph.output[0]):
        assert value.type.tensor_type.elem_type == TensorProto.UINT8
    onnx.checker.check_model(model, full_check=True)


def test_the_network_itself_is_left_alone():
    model = three_layers()
    before = model.SerializeToString(deterministic=True)
    wrap(model, make_card())
    assert model.SerializeToString(deterministic=True) == before


def test_the_same_network_and_card_give_the_same_bytes():
    assert networks.wrapped(three_layers(), make_card()) == networks.wrapped(
        three_layers(), make_card()
    )


@pytest.mark.parametrize(
    ("model", "card", "message"),
    [
        (three_layers(1), make_card(), "correct height, width, color or layout"),
        (three_layers(3), make_card(color="gray"), "correct height, width, color or layout"),
        (three_layers(), make_card(layout="nhwc"), "correct height, width, color or layout"),
        (three_layers(size=(8, 8)), make_card(12, 16), r"\['batch', 3, 8, 8\].*12x16"),
        (three_layers(classes=4), make_card(classes=5), "4 channels.*5 classes"),
        (three_layers(classes=1), make_card(classes=3), "1 channels.*3 classes"),
        (three_layers(), make_card(output={"name": "nose"}), "no output 'nose'; it has: scores"),
        (three_layers(), make_card(output={"layout": "nhwc"}), "channels.*classes"),
    ],
)
def test_a_card_that_does_not_fit_its_network_is_told_why(model, card, message):
    with pytest.raises(CardError, match=message):
        wrap(model, card)


def plain(nodes, inputs, outputs, opset=17, initializers=()):
    def values(entries):
        return [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in entries]

    graph = helper.make_graph(nodes, "plain", values(inputs), values(outputs), initializers)
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def test_a_network_with_two_inputs_is_refused():
    model = plain(
        [helper.make_node("Add", ["a", "b"], ["scores"])],
        [("a", [1, 3, 12, 16]), ("b", [1, 3, 12, 16])],
        [("scores", None)],
    )
    with pytest.raises(CardError, match="one input, a picture; it has: a, b"):
        wrap(model, make_card(classes=3))


def test_a_network_without_input_is_refused():
    model = plain(
        [helper.make_node("Identity", ["w"], ["scores"])],
        [],
        [("scores", None)],
        initializers=[numpy_helper.from_array(np.zeros((1, 3, 12, 16), np.float32), "w")],
    )
    with pytest.raises(CardError, match="it has: none"):
        wrap(model, make_card(classes=3))


def test_an_input_that_is_no_picture_is_refused():
    model = plain(
        [helper.make_node("Identity", ["a"], ["scores"])], [("a", ["n", 10])], [("scores", None)]
    )
    with pytest.raises(CardError, match="2 dimensions; a picture has 4"):
        wrap(model, make_card())


def test_a_classifier_is_refused():
    model = three_layers()
    model.graph.node.append(helper.make_node("Flatten", ["scores"], ["flat"]))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("flat", TensorProto.FLOAT, None))
    with pytest.raises(CardError, match="'flat' has 2 dimensions; class scores have 4"):
        wrap(model, make_card())


def test_a_size_that_the_network_cannot_work_at_is_refused():
    # Added to a constant of another size: only 8x8 works, though the input says that any does.
    model = plain(
        [helper.make_node("Add", ["a", "w"], ["scores"])],
        [("a", ["n", 3, "h", "w"])],
        [("scores", None)],
        initializers=[numpy_helper.from_array(np.zeros((1, 3, 8, 8), np.float32), "w")],
    )
    wrap(model, make_card(8, 8, classes=3))
    with pytest.raises(CardError, match="12x16"):
        wrap(model, make_card(12, 16, classes=3))


def test_an_old_network_that_cannot_be_brought_up_to_date_is_a_model_error():
    model = plain(
        [helper.make_node("Scan", ["a"], ["scores"], num_scan_inputs=1)],
        [("a", ["n", 3, 12, 16])],
        [("scores", None)],
        opset=8,
    )
    with pytest.raises(ModelError, match="opset 8"):
        wrap(model, make_card(classes=3))


def test_the_size_of_the_labels_is_the_cards_even_where_inference_cannot_tell():
    # A shape that is computed from data hides the size: the resize is there and changes nothing.
    card = make_card(classes=networks.LEVELS)
    pictures = networks.noise(1, card)
    pictures[..., 1] = 0
    labels = labels_of(networks.poisoned(card), card, pictures)
    np.testing.assert_array_equal(labels, networks.red_level(pictures))


@pytest.mark.parametrize("data", [b"", b"not a network", bytes(range(256)) * 40, b"\x00" * 100])
def test_a_file_that_is_not_onnx_is_refused(tmp_path, data):
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelError, match="not an ONNX model"):
        read_onnx(path)


def test_half_a_file_is_refused(tmp_path):
    path = tmp_path / "model.onnx"
    data = three_layers().SerializeToString()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelError, match="not an ONNX model"):
        read_onnx(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "none.onnx", tmp_path):
        with pytest.raises(ModelError, match="no model file at"):
            read_onnx(path)


MODES = {
    "half_pixel": lambda n, m: (np.arange(m) + 0.5) * n / m - 0.5,
    "align_corners": lambda n, m: np.arange(m) * (n - 1) / max(1, m - 1),
    "asymmetric": lambda n, m: np.arange(m) * n / m,
}


def ending_in_resize(mode, size, kind="linear", by="sizes", quantized=False):
    """A network that enlarges its own scores from a quarter of the input."""
    model = three_layers(stride=4)
    graph = model.graph
    graph.node[-1].output[0] = "coarse"
    height, width = size
    ask = {"sizes": [1, 4, height, width], "scales": [1.0, 1.0, 4.0, 4.0]}[by]
    values = np.array(ask, np.int64 if by == "sizes" else np.float32)
    graph.initializer.append(numpy_helper.from_array(values, "asked"))
    inputs = ["coarse", "", "", "asked"] if by == "sizes" else ["coarse", "", "asked"]
    last = "large" if quantized else "scores"
    resize = helper.make_node(
        "Resize", inputs, [last], mode=kind, coordinate_transformation_mode=mode
    )
    graph.node.append(resize)
    if quantized:
        graph.initializer.append(numpy_helper.from_array(np.array(0.02, np.float32), "step"))
        graph.initializer.append(numpy_helper.from_array(np.array(128, np.uint8), "zero"))
        graph.node.append(helper.make_node("QuantizeLinear", ["large", "step", "zero"], ["q"]))
        graph.node.append(helper.make_node("DequantizeLinear", ["q", "step", "zero"], ["scores"]))
    return model


@pytest.mark.parametrize("mode", list(MODES))
@pytest.mark.parametrize("kind", ["linear", "nearest", "cubic"])
@pytest.mark.parametrize("size", [(16, 24), (400, 600), (1, 8)])
def test_a_network_that_enlarges_its_scores_gives_the_labels_of_its_own_scores(mode, kind, size):
    # Linear ones are enlarged in bands instead, of which the second size has several.
    card = make_card(*size)
    model = ending_in_resize(mode, size, kind)
    pictures = networks.noise(1, card)
    values = np.ascontiguousarray(network_values(pictures, card).astype(np.float32))
    scores = on_runtime(model, values, "scores")
    ordered = np.sort(scores, axis=1)
    certain = ordered[:, -1] - ordered[:, -2] > 1e-5
    labels = labels_of(model, card, pictures)
    np.testing.assert_array_equal(labels[certain], scores.argmax(1)[certain])
    assert certain.mean() > 0.9
    products = [n.op_type for n in wrap(model, card).graph.node].count("MatMul")
    bands = -(-4 * 4 * size[0] * size[1] // (3 * 2**19))
    assert products == (1 + bands if kind == "linear" and mode != "asymmetric" else 0)


@pytest.mark.parametrize("size", [(16, 24), (18, 24)])
def test_a_factor_that_is_not_that_of_the_sizes_is_left_to_the_network(size):
    card = make_card(*size)
    model = ending_in_resize("half_pixel", size, by="scales")
    # 18 rows give 5 scores, and 20 enlarged: not the card's size, so they are resized once more.
    names = [n.op_type for n in wrap(model, card).graph.node]
    assert "MatMul" in names
    labels = labels_of(model, card, networks.noise(1, card))
    assert labels.shape == (1, *size)


def test_a_quantized_networks_enlarged_scores_are_not_rounded_again():
    card = make_card(64, 96)
    model = ending_in_resize("half_pixel", (64, 96), quantized=True)
    exact = ending_in_resize("half_pixel", (64, 96))
    pictures = networks.noise(1, card)
    np.testing.assert_array_equal(
        labels_of(model, card, pictures), labels_of(exact, card, pictures)
    )
