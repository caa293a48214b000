"""Parameters and multiply-adds against the formulas, and the figures that are stored."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines.cost import Cost, count
from engines.export import halve_weights
from engines.graph import read_onnx
from engines.model import SHIPPED, find_model
from engines.zoo import catalog, smp, torchvision
from engines.zoo.kept import kept_stem
from tests import networks

PICTURE = (1, 3, 20, 30)


def graph(nodes, weights, taken=("N", 3, "H", "W"), outputs=("y",)):
    """From `x` to the last node's outputs, whose shapes are not noted."""
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    source = helper.make_tensor_value_info("x", TensorProto.FLOAT, taken)
    tensors = [
        numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in weights.items()
    ]
    made = helper.make_graph(nodes, "g", [source], given, tensors)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)])


def test_a_convolution():
    """Each of 10 x 15 x 8 results sums over 3 channels and 5 x 5 pixels."""
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], strides=[2, 2], pads=[2] * 4)
    model = graph([node], {"w": (8, 3, 5, 5), "b": (8,)})
    assert count(model, PICTURE) == Cost(8 * 3 * 25 + 8, 10 * 15 * 8 * 3 * 25)


def test_a_depthwise_convolution():
    node = helper.make_node("Conv", ["x", "w"], ["y"], group=3, pads=[1] * 4)
    assert count(graph([node], {"w": (3, 1, 3, 3)}), PICTURE) == Cost(27, 20 * 30 * 3 * 9)


def test_a_transposed_convolution():
    """Each of 20 x 30 x 3 values is spread over 6 channels and 2 x 2 pixels."""
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2])
    assert count(graph([node], {"w": (3, 6, 2, 2)}), PICTURE) == Cost(72, 20 * 30 * 3 * 24)


def test_products_of_matrices():
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Flatten", ["m"], ["f"], axis=3),
        helper.make_node("Gemm", ["f", "v", "b"], ["y"], transB=1),
    ]
    model = graph(nodes, {"w": (30, 7), "v": (4, 7), "b": (4,)})
    assert count(model, PICTURE) == Cost(210 + 28 + 4, 3 * 20 * 7 * 30 + 60 * 4 * 7)
    turned = helper.make_node("Gemm", ["x", "v"], ["y"], transA=1)
    assert count(graph([turned], {"v": (5, 9)}, (5, "W")), (5, 6)).macs == 6 * 9 * 5


def test_sizes_that_the_graph_computes_are_followed():
    nodes = [
        helper.make_node("Shape", ["x"], ["all"]),
        helper.make_node("Slice", ["all", "two", "four"], ["size"]),
        helper.make_node("Conv", ["x", "w"], ["small"], strides=[2, 2]),
        helper.make_node("Slice", ["all", "nought", "two"], ["first"]),
        helper.make_node("Concat", ["first", "size"], ["whole"], axis=0),
        helper.make_node("Resize", ["small", "", "", "whole"], ["large"], mode="nearest"),
        helper.make_node("Conv", ["large", "w"], ["y"]),
    ]
    model = graph(nodes, {"w": (3, 3, 1, 1)})
    for name, value in (("nought", 0), ("two", 2), ("four", 4)):
        model.graph.initializer.append(numpy_helper.from_array(np.array([value]), name))
    assert count(model, PICTURE) == Cost(9, 10 * 15 * 9 + 20 * 30 * 9)


def test_what_cannot_be_known_is_not_guessed():
    nodes = [
        helper.make_node("NonZero", ["x"], ["where"]),
        helper.make_node("Cast", ["where"], ["found"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["w", "found"], ["y"]),
    ]
    assert count(graph(nodes, {"w": (2, 4)}), PICTURE) == Cost(8, None)


def test_numbers_that_are_no_weights():
    nodes = [
        helper.make_node("Clip", ["x", "low"], ["c"]),
        helper.make_node("Resize", ["c", "", "scales"], ["r"], mode="nearest"),
        helper.make_node("Conv", ["r", "w"], ["y"]),
    ]
    model = graph(nodes, {"w": (2, 3, 1, 1), "low": ()})
    scales = np.array([1, 1, 2, 2], np.float32)
    model.graph.initializer.append(numpy_helper.from_array(scales, "scales"))
    expected = Cost(6, 40 * 60 * 6)
    assert count(model, PICTURE) == expected
    half = onnx.ModelProto()
    half.CopyFrom(model)
    half.graph.initializer.pop()
    half.graph.node.insert(0, helper.make_node("Constant", [], ["scales"], value_floats=scales))
    halve_weights(half)
    assert count(half, PICTURE) == expected


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_a_file_of_ones_own(layout, tmp_path):
    card = networks.make_card(layout=layout, output={"layout": layout}, classes=networks.LEVELS)
    path = networks.save(tmp_path, networks.red_levels(layout=layout), card)
    found = catalog.describe_file(find_model(path))
    assert found.parameters == 3 * networks.LEVELS + networks.LEVELS
    assert found.gmacs == 12 * 16 * 3 * networks.LEVELS / 1e9
    assert found.classes == card.classes


def test_the_card_of_voc_says_what_its_file_costs():
    card = find_model("voc").card
    size = (card.input.height, card.input.width)
    found = count(read_onnx(SHIPPED / "voc.onnx"), (1, 3, *size))
    assert found.parameters == card.metrics["parameters"]
    assert found.macs / 1e9 == pytest.approx(card.metrics["gmacs"], abs=0.005)


@pytest.mark.slow
@pytest.mark.parametrize("name", catalog.FIGURES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_stored_figures_are_those_that_torch_counts(name):
    pytest.importorskip("segmentation_models_pytorch")
    pytest.importorskip("torchvision")
    if name in torchvision.NETWORKS:
        network, size = torchvision.make_torchvision(name, weights="random"), torchvision.SIZE
    else:
        network, size = smp.make_whole(name, 21, "random", smp.SIZE), smp.SIZE
    parameters, mmacs = catalog.count_torch(network, size)
    assert (parameters, round(mmacs, 1)) == catalog.FIGURES[name]


def test_the_weights_are_where_torchvision_has_them():
    segmentation = pytest.importorskip("torchvision").models.segmentation
    found = {entry.name: entry.weights for entry in catalog.entries()}
    for name, enum in torchvision.NETWORKS.items():
        weights = getattr(segmentation, enum).DEFAULT
        assert found[name] == weights.url
        assert weights.name == "COCO_WITH_VOC_LABELS_V1"


def test_what_is_here_now(tmp_path, monkeypatch):
    pytest.importorskip("torchvision")
    name = "fcn_resnet50"
    monkeypatch.setenv("STREAMSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    assert catalog.describe(name).here == "not yet: fetched on first use"
    files = tmp_path / "torch" / "hub" / "checkpoints"
    files.mkdir(parents=True)
    (files / "fcn_resnet50_coco-1167a1af.pth").touch()
    assert catalog.describe(name).here == "weights fetched; ONNX made on first use"
    folder = tmp_path / "cache" / "zoo"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{kept_stem(name, 'official', 21, None)}.onnx").touch()
    assert catalog.describe(name).here == "in the cache, as ONNX"
