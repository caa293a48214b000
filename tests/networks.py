"""Small ONNX networks made on the spot, and the cards that go with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

from engines.card import Card
from engines.graph import LABELS, PICTURES, wrap


@dataclass
class Layer:
    """A convolution that keeps the size (divided by `stride`): weights (out, in, k, k), bias."""

    weights: np.ndarray
    bias: np.ndarray
    stride: int = 1


def random_layer(rng: np.random.Generator, inputs: int, outputs: int, kernel=1, stride=1) -> Layer:
    spread = 1 / np.sqrt(inputs * kernel * kernel)
    weights = rng.normal(0, spread, (outputs, inputs, kernel, kernel))
    return Layer(weights, rng.normal(0, 0.1, outputs), stride)


def network(
    *layers: Layer,
    size: tuple[Any, Any] = ("height", "width"),
    batch: Any = "batch",
    layout: str = "nchw",
    opset: int = 17,
    dtype: type = np.float32,
    ir_version: int = 8,
) -> onnx.ModelProto:
    """
    Convolutions with ReLU between them, `input` -> `scores`.

    Strings in `size` and `batch` leave them free; `layout` holds for input and output.
    """
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes, weights, last = [], [], "input"
    if layout == "nhwc":
        nodes.append(helper.make_node("Transpose", ["input"], ["nchw"], perm=[0, 3, 1, 2]))
        last = "nchw"
    for i, layer in enumerate(layers):
        pad = layer.weights.shape[2] // 2
        weights.append(numpy_helper.from_array(layer.weights.astype(dtype), f"w{i}"))
        weights.append(numpy_helper.from_array(layer.bias.astype(dtype), f"b{i}"))
        conv = helper.make_node(
            "Conv",
            [last, f"w{i}", f"b{i}"],
            [f"conv{i}"],
            pads=[pad] * 4,
            strides=[layer.stride] * 2,
        )
        nodes.append(conv)
        last = f"conv{i}"
        if layer is not layers[-1]:
            nodes.append(helper.make_node("Relu", [last], [f"relu{i}"]))
            last = f"relu{i}"
    if layout == "nhwc":
        nodes.append(helper.make_node("Transpose", [last], ["last"], perm=[0, 2, 3, 1]))
        last = "last"
    nodes[-1].output[0] = "scores"
    channels, classes = layers[0].weights.shape[1], layers[-1].weights.shape[0]
    small = tuple(f"{s}_out" if isinstance(s, str) else None for s in size)
    ways = ([batch, channels, *size], [batch, classes, *small])
    if layout == "nhwc":
        ways = ([batch, *size, channels], [batch, *small, classes])
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("input", kind, ways[0])],
        [helper.make_tensor_value_info("scores", kind, ways[1])],
        weights,
    )
    if ir_version < 4:  # weights had to be inputs too
        for tensor in weights:
            graph.input.append(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)


def make_card(height=12, width=16, classes=4, **over: Any) -> Card:
    """A card without normalisation; `over` goes to its input, except `name` and `output`."""
    top = {key: over.pop(key) for key in ("name", "output", "palette") if key in over}
    color = over.get("color", "rgb")
    n = 1 if color == "gray" else 3
    entry = {"mean": (0.0,) * n, "std": (1.0,) * n, "color": color, **over}
    return Card.model_validate(
        {
            "name": "small",
            "input": {"height": height, "width": width, **entry},
            "classes": ("background", *(f"class{i}" for i in range(1, classes))),
            **top,
        }
    )


LEVELS = 8


def red_levels(**options: Any) -> onnx.ModelProto:
    """
    Class = the eighth of the scale that the pixel's red lies in (see `red_level`).

    Nearest of the levels c: -(x - c)^2 without the x^2 that all share, 2 c x - c^2, is a 1x1
    convolution.
    """
    levels = (np.arange(LEVELS) + 0.5) / LEVELS
    weights = np.zeros((LEVELS, 3, 1, 1))
    weights[:, 0, 0, 0] = 2 * levels
    return network(Layer(weights, -(levels**2)), **options)


def red_level(pictures: np.ndarray) -> np.ndarray:
    """What `red_levels` answers: uint8 (N, H, W, 3) -> uint8 (N, H, W)."""
    return np.minimum(LEVELS - 1, pictures[..., 0] / 255 * LEVELS).astype(np.uint8)


def deep(seed: int = 3, classes: int = 6, stride: int = 4, **options: Any) -> onnx.ModelProto:
    """Random weights, three layers; scores at 1 / stride of the input's size."""
    rng = np.random.default_rng(seed)
    return network(
        random_layer(rng, 3, 12, 3),
        random_layer(rng, 12, 16, 3, stride),
        random_layer(rng, 16, classes),
        **options,
    )


def poisoned(card: Card) -> onnx.ModelProto:
    """
    Like `red_levels`, but pixels with a green of 255 make the run fail.

    Their number goes into the shape that fails, because OpenVINO's CPU plugin does not look again
    at a shape that it has refused just before.
    """
    model = red_levels(size=(card.input.height, card.input.width), batch=1)
    graph = model.graph
    graph.node[-1].output[0] = "good"
    shape = np.array([1, LEVELS, card.input.height, card.input.width], np.int64)
    one, green = np.array(1, np.int64), np.array(0.999, np.float32)
    graph.initializer.extend(
        numpy_helper.from_array(v, n)
        for v, n in ((shape, "shape"), (one, "channel"), (green, "white"))
    )
    graph.node.extend(
        [
            helper.make_node("Gather", ["input", "channel"], ["green"], axis=1),
            helper.make_node("Greater", ["green", "white"], ["bad"]),
            helper.make_node("Cast", ["bad"], ["each"], to=TensorProto.INT64),
            helper.make_node("ReduceSum", ["each"], ["extra"], keepdims=0),
            helper.make_node("Add", ["shape", "extra"], ["asked"]),
            helper.make_node("Reshape", ["good", "asked"], ["scores"]),
        ]
    )
    return model


def wrapped(model: onnx.ModelProto, card: Card) -> bytes:
    return wrap(model, card).SerializeToString()


def save(folder: Path, model: onnx.ModelProto, card: Card, name: str = "small") -> Path:
    """Writes NAME.onnx and NAME.yaml; returns the first."""
    path = folder / f"{name}.onnx"
    onnx.save(model, str(path))
    text = yaml.safe_dump(card.model_dump(mode="json", exclude_none=True))
    path.with_suffix(".yaml").write_text(text, encoding="utf-8")
    return path


def on_runtime(model: onnx.ModelProto | bytes, feed: np.ndarray, output: str | None = None):
    """One output of a model, by ONNX Runtime itself: nothing of ours takes part."""
    import onnxruntime

    data = model if isinstance(model, bytes) else model.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    names = None if output is None else [output]
    return session.run(names, {session.get_inputs()[0].name: feed})[0]


def labels_of(model: onnx.ModelProto, card: Card, pictures: np.ndarray) -> np.ndarray:
    """Class ids of pictures through the wrapped graph, by ONNX Runtime itself."""
    import onnxruntime

    session = onnxruntime.InferenceSession(wrapped(model, card), providers=["CPUExecutionProvider"])
    (labels,) = session.run([LABELS], {PICTURES: pictures})
    return labels


def noise(count: int, card: Card, seed: int = 0) -> np.ndarray:
    """uint8 (count, height, width, 3)."""
    shape = (count, card.input.height, card.input.width, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def bilinear(values: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Half-pixel bilinear sampling of (N, C, h, w) at (N, C, *sizes), in float64."""
    for axis, size in ((2, sizes[0]), (3, sizes[1])):
        low, high, share = sampling(values.shape[axis], size)
        share = share.reshape((-1, 1) if axis == 2 else (1, -1))
        lower, higher = np.take(values, low, axis), np.take(values, high, axis)
        values = lower * (1.0 - share) + higher * share
    return values


def sampling(size: int, wanted: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each new pixel: the two old ones and the share of the second."""
    at = np.clip((np.arange(wanted) + 0.5) * size / wanted - 0.5, 0, size - 1)
    low = np.floor(at).astype(int)
    return low, np.minimum(low + 1, size - 1), at - low
