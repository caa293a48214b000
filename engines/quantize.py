"""INT8: a network quantized after its training, as ONNX with QuantizeLinear and DequantizeLinear.

    made = quantize(model, pictures, held_out)

OpenVINO and ONNX Runtime compute such a graph in 8 bits, and TensorRT one that is made for it.
Ranges of activations come from real pictures, those of weights from the weights, a channel at a
time. ONNX Runtime's quantizer does it. What is ours: pictures by the card's rule, the guard on
pictures that the ranges were not taken from, and the layers that 8 bits hurt most, which stay in
FP32 until the guard is content.

Needs onnxruntime, and only when it is called.
"""

# mypy: disable-error-code="import-not-found, import-untyped, unused-ignore"

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from engines.card import Card
from engines.choose import is_installed, load_engine
from engines.errors import DriftError, EngineUnavailableError, ModelError, one_line
from engines.graph import PICTURES, at_card_size, normalizer, read_onnx
from engines.guard import LEAST_AGREEMENT, Agreement, check, compare
from engines.model import Model

Pictures = Sequence[NDArray[np.uint8]]

# The layers that have weights; with these in FP32 hardly anything in 8 bits is left.
_LAYERS = ("Conv", "ConvTranspose", "MatMul", "Gemm")

_ACTIVATIONS = ("Relu", "Clip", "LeakyRelu", "HardSwish", "HardSigmoid", "Sigmoid")

# At most this share of them stays in FP32: beyond it the network is no INT8 network any more.
_MOST_KEPT = 0.5

# Of the pictures, how many tell which layers suffer: each is run twice with every tensor kept.
_JUDGED = 4

# Beyond this signal-to-noise ratio, decibels, nothing is wrong with a tensor.
_CLEAR_DB = 60.0


@dataclass(frozen=True)
class Quantized:
    """A network in INT8."""

    data: bytes
    """The ONNX file."""
    card: Card
    """Its card: the network's, with the file's sha256, what agrees and what stayed in FP32."""
    agreement: Agreement
    kept: tuple[str, ...]
    """The layers that stayed in FP32, that first which suffered most."""


def quantize(
    model: Model,
    pictures: Pictures,
    held_out: Pictures,
    *,
    for_tensorrt: bool = False,
    allow_drift: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Quantized:
    """The network in INT8, at the card's size and one picture at a time.

    pictures, held_out: uint8 (1, height, width, 3) RGB at the network's size; ranges come from the
    first, the guard compares masks on the second. for_tensorrt: activations have no zero point and
    biases stay in FP32, as TensorRT needs it, which costs a CPU a little accuracy and speed.

    Raises EngineUnavailableError without onnxruntime, ModelError for a network that cannot be
    quantized, DriftError where the guard is not content (unless `allow_drift`).
    """
    if not is_installed("onnxruntime"):
        raise EngineUnavailableError(
            "INT8 is made by onnxruntime's quantizer, which is not installed; "
            "pip install 'streamseg[onnxruntime]'"
        )
    card = model.card
    with tempfile.TemporaryDirectory() as folder, _quiet():
        work = _Quantizer(model, pictures, for_tensorrt, Path(folder))
        layers, kept = work.layers, 0
        made = work.made(())
        agreement = _agreement(made, card, held_out, model)
        suspects: list[str] = []
        while agreement.pixels < LEAST_AGREEMENT and not allow_drift:
            suspects = suspects or work.suspects(made)
            kept = max(1, 2 * kept)
            if kept > _MOST_KEPT * len(layers):
                break
            say(f"{agreement.pixels:.2%} agree; keeping {kept} of {len(layers)} layers in FP32")
            made = work.made(suspects[:kept])
            agreement = _agreement(made, card, held_out, model)
        names = suspects[: min(kept, len(suspects))]
    if allow_drift:
        agreement = agreement.model_copy(update={"allowed": agreement.pixels < LEAST_AGREEMENT})
    else:
        try:
            check(agreement, f"INT8 of {card.name}", ["calibrate with pictures of the real use"])
        except DriftError as error:
            raise DriftError(f"{error}, or pass --allow-drift") from None
    say(f"INT8 of {card.name}: {agreement}")
    if names:
        say(f"{len(names)} of {len(layers)} layers stay in FP32: {', '.join(names)}")
    data = made.SerializeToString(deterministic=True)
    facts = {
        "precision": "int8",
        "agreement": round(agreement.pixels, 5),
        "kept_in_fp32": ", ".join(names) or "none",
    }
    own = card.model_copy(
        update={
            "name": f"{card.name}-int8",
            "sha256": hashlib.sha256(data).hexdigest(),
            "int8": None,
            "metrics": {**card.metrics, **facts},
        }
    )
    return Quantized(data, own, agreement, tuple(names))


class _Quantizer:
    """One network and its pictures; ranges are measured once, however often it is quantized."""

    def __init__(self, model: Model, pictures: Pictures, for_tensorrt: bool, folder: Path) -> None:
        from onnxruntime.quantization.shape_inference import quant_pre_process

        self._folder, self._for_tensorrt = folder, for_tensorrt
        network, source = at_card_size(read_onnx(model.file), model.card)
        self._input = source.name
        self._feeds = list(_normalised(source, model.card, pictures))
        self._float = folder / "float.onnx"
        onnx.save(network, str(self._float))
        try:
            quant_pre_process(str(self._float), str(self._float), skip_symbolic_shape=True)
        except Exception as error:  # the optimizer's, onnx's and the shape inferer's share no base
            raise ModelError(f"{model.card.name} cannot be prepared: {one_line(error)}") from None
        prepared = onnx.load(str(self._float))
        graph = prepared.graph
        _name_nodes(graph)
        self._swishes = _join_swishes(prepared)
        onnx.save(prepared, str(self._float))
        self.layers = [node.name for node in graph.node if node.op_type in _LAYERS]
        self._ends = _ends(graph)
        if not self.layers:
            raise ModelError(f"{model.card.name} has no layers that could be quantized")

    def made(self, keep: Collection[str]) -> onnx.ModelProto:
        """The network in 8 bits but for the layers named in `keep`."""
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

        path = self._folder / "int8.onnx"
        try:
            quantize_static(
                str(self._float),
                str(path),
                _Reader(self._input, self._feeds),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QInt8 if self._for_tensorrt else QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=[*keep, *self._swishes],
                extra_options={
                    # The mean of each picture's range: one odd picture does not widen it.
                    "CalibMovingAverage": True,
                    "ActivationSymmetric": self._for_tensorrt,
                    # TensorRT's parser takes no int32 there.
                    "QuantizeBias": not self._for_tensorrt,
                    "WeightSymmetric": True,
                    # Who takes an answer in 8 bits quantizes it. Before an activation or as the
                    # scores it would be rounded once more than is of use.
                    "OpTypesToExcludeOutputQuantization": list(_LAYERS),
                },
            )
        except Exception as error:  # the quantizer's and the runtime's errors share no base
            raise ModelError(f"the quantizer fails: {one_line(error)}") from None
        return onnx.load(str(path))

    def suspects(self, made: onnx.ModelProto) -> list[str]:
        """The layers, that first whose answer suffers most: by the signal-to-noise ratio of what it
        gives in 8 bits to what it gives in FP32, less what came in wrong already.
        """
        from onnxruntime.quantization import qdq_loss_debug as debug

        path, kept = self._folder / "judged.onnx", self._folder / "kept.onnx"
        onnx.save(made, str(path))
        collected = []
        for source in (self._float, path):
            debug.modify_model_output_intermediate_tensors(str(source), str(kept))
            reader = _Reader(self._input, self._feeds[:_JUDGED])
            collected.append(debug.collect_activations(str(kept), reader))
        exact, rough = collected

        def clear(tensor: str) -> float:
            """Decibels; the network's own input and what is not known are as good as can be."""
            reached = rough.get(f"{tensor}{debug.DEQUANT_OUTPUT_SUFFIX}", rough.get(tensor))
            if tensor not in exact or reached is None:
                return _CLEAR_DB
            ratio = debug.compute_signal_to_quantization_noice_ratio(exact[tensor], reached)
            return min(float(ratio), _CLEAR_DB)

        harm = {name: clear(out) - clear(come) for name, (come, out) in self._ends.items()}
        return sorted(self.layers, key=lambda name: harm[name])


def _name_nodes(graph: onnx.GraphProto) -> None:
    """Gives every node a name of its own: the quantizer knows them by name, and takes all that have
    none for one.
    """
    seen: set[str] = set()
    for i, node in enumerate(graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}_{i}"
        seen.add(node.name)


def _join_swishes(network: onnx.ModelProto) -> list[str]:
    """Makes x * HardSigmoid(x), into which the optimizer takes HardSwish apart, one node again, and
    names the nodes of each x * Sigmoid(x), for which ONNX has none, and which stays in FP32.

    Runtimes compute either with the layer before, whose answer then goes to 8 bits once. With 8
    bits between gate and product they do not know them: a third of LR-ASPP's time went there.
    """
    graph = network.graph
    opset = max((o.version for o in network.opset_import if o.domain in ("", "ai.onnx")), default=0)
    gates = {n.output[0]: n for n in graph.node if n.op_type in ("Sigmoid", "HardSigmoid")}
    users = Counter(name for node in graph.node for name in node.input)
    apart = []
    for node in [n for n in graph.node if n.op_type == "Mul"]:
        gate = gates.get(node.input[0]) or gates.get(node.input[1])
        if gate is None or set(node.input) != {gate.input[0], gate.output[0]}:
            continue
        if opset < 14 or not _is_hard_swish(gate) or users[gate.output[0]] > 1:
            apart += [gate.name, node.name]
        else:
            node.op_type, node.input[:] = "HardSwish", gate.input
            graph.node.remove(gate)
    return apart


def _is_hard_swish(gate: onnx.NodeProto) -> bool:
    """Whether x * gate(x) is HardSwish, which fixes the two numbers (ONNX, HardSwish 14)."""
    if gate.op_type != "HardSigmoid":
        return False
    numbers = {a.name: a.f for a in gate.attribute}
    alpha, beta = numbers.get("alpha", 0.2), numbers.get("beta", 0.5)
    return bool(np.isclose(alpha, 1 / 6) and np.isclose(beta, 0.5))


def _ends(graph: onnx.GraphProto) -> dict[str, tuple[str, str]]:
    """Of each layer, the tensors that it takes and gives; what it gives is what its activation
    function gives, because the quantizer rounds only after that.
    """
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    ends = {}
    for node in graph.node:
        if node.op_type in _LAYERS:
            out = node.output[0]
            after = users.get(out, [])
            if len(after) == 1 and after[0].op_type in _ACTIVATIONS:
                out = after[0].output[0]
            ends[node.name] = (node.input[0], out)
    return ends


class _Reader:
    """What the quantizer asks for its pictures."""

    def __init__(self, name: str, feeds: Sequence[NDArray[Any]]) -> None:
        self._feeds = iter([{name: feed} for feed in feeds])

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        return next(self._feeds, None)

    def __iter__(self) -> Iterator[dict[str, NDArray[Any]]]:
        return self._feeds


def _normalised(
    source: onnx.ValueInfoProto, card: Card, pictures: Pictures
) -> Iterator[NDArray[np.float32]]:
    """What the network gets of each picture, by the nodes that stand before it when it runs."""
    import onnxruntime

    data = normalizer(source, card).SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    for picture in pictures:
        yield session.run(None, {PICTURES: picture})[0]


def _agreement(
    made: onnx.ModelProto, card: Card, pictures: Pictures, reference: Model
) -> Agreement:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        path.write_bytes(made.SerializeToString())
        same = card.model_copy(update={"sha256": None})
        with load_engine(Model(same, path), engine="onnxruntime", precision="fp32") as quantized:
            with load_engine(reference, engine="onnxruntime", precision="fp32") as exact:
                return compare(quantized, exact, pictures)


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantizer logs advice for its own users by the root logger."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
