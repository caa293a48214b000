"""Refinement against plain NumPy, on two runtimes; and what it does to a picture's edges."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from engines.choose import load_engine
from engines.errors import EngineError, RefineError
from engines.graph import LABELS, PICTURES, wrap
from engines.nodes import Nodes
from engines.refine import Crf, Grid, Guided, describe, grid_of, parse_refine, refined_card
from engines.refine_graph import assemble, mean_field, refine_scores, window
from tests import networks
from tests.networks import make_card, network, random_layer

pytest.importorskip("onnxruntime")

RUNTIMES = ("onnxruntime", "openvino")

# All that refinement may use: each is in the table of operators of TensorRT 8.6's ONNX parser.
IN_TENSORRT = {
    "Add", "AveragePool", "Cast", "Concat", "DepthToSpace", "Div", "Exp", "Mul", "Neg", "Pad",
    "ReduceMax", "ReduceSum", "Reshape", "Resize", "Shape", "Slice", "Softmax", "Sqrt", "Squeeze",
    "Sub", "Transpose", "Unsqueeze", "Where", "Less",
}  # fmt: skip


def computed(nodes: Nodes, output: str, runtime: str, **feeds: np.ndarray) -> np.ndarray:
    """What a runtime makes of the nodes, float32."""
    values = [helper.make_tensor_value_info(k, 1, list(v.shape)) for k, v in feeds.items()]
    result = helper.make_tensor_value_info(output, 1, None)
    graph = helper.make_graph(nodes.nodes, "part", values, [result], nodes.constants)
    opsets = [helper.make_opsetid("", 13)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    if runtime == "openvino":
        import openvino as ov

        core = ov.Core()
        settings = {"INFERENCE_PRECISION_HINT": "f32"}
        compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU", settings)
        return np.array(compiled(feeds)[0])
    import onnxruntime

    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run([output], feeds)[0]


def softmax(scores: np.ndarray) -> np.ndarray:
    raised = np.exp(scores - scores.max())
    return raised / raised.sum()


def marginals(scores: np.ndarray, guide: np.ndarray, crf: Crf) -> np.ndarray:
    """Mean-field inference as the papers put it, cell by cell: float64 (C, h, w)."""
    _, height, width = scores.shape
    cells = [(y, x) for y in range(height) for x in range(width)]
    step = crf.dilation
    around = [
        (y * step, x * step)
        for y in range(-crf.reach, crf.reach + 1)
        for x in range(-crf.reach, crf.reach + 1)
    ]

    def kernel(a, b, kind):
        near = ((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2) * crf.stride**2
        if kind == "gaussian":
            return np.exp(-near / (2 * crf.smooth**2))
        unlike = ((guide[:, a[0], a[1]] - guide[:, b[0], b[1]]) ** 2).sum()
        return np.exp(-near / (2 * crf.xy**2) - unlike / (2 * crf.rgb**2))

    def neighbours(a):
        for y, x in around:
            b = (a[0] + y, a[1] + x)
            if 0 <= b[0] < height and 0 <= b[1] < width:
                yield b

    weights = {}
    for kind, weight in (("bilateral", crf.bilateral), ("gaussian", crf.gaussian)):
        norm = {a: sum(kernel(a, b, kind) for b in neighbours(a)) for a in cells}
        for a in cells:
            for b in neighbours(a):
                if a != b:
                    k = weight * kernel(a, b, kind) / np.sqrt(norm[a] * norm[b])
                    weights[a, b] = weights.get((a, b), 0.0) + k
    unary = {a: -np.log(softmax(scores[:, a[0], a[1]])) for a in cells}
    q = {a: np.exp(-unary[a]) for a in cells}
    for _ in range(crf.iterations):
        following = {}
        for a in cells:
            message = sum(
                (weights[a, b] * q[b] for b in neighbours(a) if b != a), np.zeros(len(scores))
            )
            # Potts: a class is punished by what the neighbours give to the others.
            punished = message.sum() - message
            following[a] = softmax(-unary[a] - punished)
        q = following
    result = np.empty_like(scores, dtype=np.float64)
    for (y, x), values in q.items():
        result[:, y, x] = values
    return result


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    "crf",
    [
        Crf(),
        Crf(iterations=1, rgb=60),
        Crf(iterations=3, reach=2, rgb=80, bilateral=4, gaussian=2, smooth=6),
        Crf(iterations=4, dilation=3, rgb=100, xy=12, stride=2),
        Crf(iterations=2, reach=2, dilation=2, bilateral=0, gaussian=5, stride=8, smooth=20),
        Crf(iterations=2, gaussian=0, rgb=60),
        Crf(bilateral=0, gaussian=0),
    ],
    ids=str,
)
def test_marginals_are_those_of_mean_field_inference(crf, runtime):
    rng = np.random.default_rng(7)
    scores = rng.normal(0, 2, (1, 4, 7, 9)).astype(np.float32)
    guide = rng.integers(100, 112, (1, 3, 7, 9)).astype(np.float32)
    nodes = Nodes("test")
    said = mean_field(nodes, crf, Grid(7, 9, 4), "scores", "guide")
    said = nodes.node("Softmax", nodes.node("Add", "scores", said), axis=1)
    found = computed(nodes, said, runtime, scores=scores, guide=guide)
    expected = marginals(scores[0].astype(np.float64), guide[0].astype(np.float64), crf)
    np.testing.assert_allclose(found[0], expected, atol=1e-4)
    changed = np.abs(expected - np.apply_along_axis(softmax, 0, scores[0])).max()
    assert (changed > 0.05) == bool(crf.bilateral or crf.gaussian)  # or nothing was checked


def test_the_window_is_a_square_without_its_centre():
    assert sorted(window(Crf(reach=1, dilation=2))) == [
        (-2, -2), (-2, 0), (-2, 2), (0, -2), (0, 2), (2, -2), (2, 0), (2, 2),
    ]  # fmt: skip
    assert len(window(Crf(reach=3))) == 48


def upsampled(scores: np.ndarray, picture: np.ndarray, block: int, edge: float) -> np.ndarray:
    """Joint bilateral upsampling pixel by pixel, float64 (C, H, W), its weights not divided by."""
    count, rows, columns = scores.shape
    _, height, width = picture.shape
    guide = picture.reshape(3, rows, block, columns, block).mean((2, 4))
    result = np.zeros((count, height, width))
    for y in range(height):
        for x in range(width):
            at = (np.array([y, x]) + 0.5) / block - 0.5
            low = np.floor(at).astype(int)
            for cell in low + np.array([[0, 0], [0, 1], [1, 0], [1, 1]]):
                near = np.prod(1 - np.abs(at - cell))
                i, j = np.clip(cell, 0, (rows - 1, columns - 1))
                unlike = ((picture[:, y, x] - guide[:, i, j]) ** 2).sum()
                like = np.exp(-unlike / (2 * edge**2)) + 1e-4
                result[:, y, x] += near * like * scores[:, i, j]
    return result


def in_order(blocks: np.ndarray, grid: Grid) -> np.ndarray:
    """What `assemble` does, to every class's scores: (C, block^2 x (rows + 1), columns + 1)."""
    block, half = grid.block, grid.block // 2
    shape = (len(blocks), block, block, grid.height + 1, grid.width + 1)
    placed = blocks.reshape(shape).transpose(0, 3, 1, 4, 2)
    placed = placed.reshape(len(blocks), (grid.height + 1) * block, (grid.width + 1) * block)
    return placed[:, half:-half, half:-half]


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("block", [2, 4, 6])
@pytest.mark.parametrize("edge", [5.0, 60.0])
def test_scores_are_enlarged_under_the_picture(runtime, block, edge):
    rng = np.random.default_rng(3)
    grid = Grid(3, 5, block)
    scores = rng.normal(0, 2, (2, 4, 3, 5)).astype(np.float32)
    picture = rng.integers(0, 256, (2, 3, *grid.picture)).astype(np.float32)
    nodes = Nodes("test")
    blocks = refine_scores(nodes, Guided(edge=edge), grid, "scores", "picture")
    found = computed(nodes, blocks, runtime, scores=scores, picture=picture)
    for i in range(2):
        expected = upsampled(scores[i].astype(float), picture[i].astype(float), block, edge)
        np.testing.assert_allclose(in_order(found[i], grid), expected, atol=1e-4)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_ids_come_back_in_the_pictures_order(runtime):
    grid = Grid(3, 5, 4)
    ids = np.random.default_rng(1).integers(0, 256, (2, 16 * 4, 6)).astype(np.float32)
    nodes = Nodes("test")
    found = computed(nodes, assemble(nodes, grid, "ids"), runtime, ids=ids)
    np.testing.assert_array_equal(found, in_order(ids, grid))


def labels_of(scores: np.ndarray, picture: np.ndarray, refine: Guided) -> np.ndarray:
    """The refined ids of cells' scores (C, rows, columns) under a picture (3, H, W)."""
    _, rows, columns = scores.shape
    grid = Grid(rows, columns, picture.shape[1] // rows)
    nodes = Nodes("test")
    blocks = refine_scores(nodes, refine, grid, "scores", "picture")
    found = computed(
        nodes, blocks, "onnxruntime", scores=scores[None].astype(np.float32),
        picture=picture[None].astype(np.float32),
    )  # fmt: skip
    return in_order(found[0], grid).argmax(0)


@pytest.mark.parametrize("refine", [Guided(), Crf(), Crf(reach=3, iterations=20)], ids=str)
def test_one_class_stays_one_class(refine):
    scores = np.zeros((3, 8, 10))
    scores[2] = 0.01
    rng = np.random.default_rng(0)
    for picture in (np.full((3, 32, 40), 90), rng.integers(0, 256, (3, 32, 40))):
        assert (labels_of(scores, picture, refine) == 2).all()


def test_a_speckle_is_removed_where_the_picture_is_uniform_and_kept_where_it_is_seen():
    scores = np.zeros((2, 9, 9))
    scores[0] = 3.0
    scores[:, 4, 4] = 0.0, 1.0
    plain = np.full((3, 36, 36), 120)
    assert (labels_of(scores, plain, Guided()) == 1).any()
    assert not (labels_of(scores, plain, Crf()) == 1).any()
    seen = plain.copy()
    seen[:, 16:20, 16:20] = 200
    np.testing.assert_array_equal(labels_of(scores, seen, Crf()) == 1, seen[0] == 200)


@pytest.mark.parametrize("refine", [Guided(), Crf()], ids=str)
@pytest.mark.parametrize("edge", [18, 19, 20, 21])
def test_an_edge_in_the_picture_attracts_the_labels_edge(refine, edge):
    scores = np.zeros((2, 8, 10))
    scores[0, :, :5] = scores[1, :, 5:] = 2.0  # between the cells, at pixel 20
    picture = np.full((3, 32, 40), 60)
    picture[:, :, edge:] = 180
    labels = labels_of(scores, picture, refine)
    np.testing.assert_array_equal(labels, np.arange(40)[None] >= edge + np.zeros((32, 1)))


def test_without_an_edge_in_the_picture_the_class_is_that_of_plain_interpolation():
    rng = np.random.default_rng(5)
    scores = rng.normal(0, 2, (4, 6, 8))
    labels = labels_of(scores, np.full((3, 24, 32), 77), Guided())
    plain = networks.bilinear(scores[None], (24, 32))[0]
    np.testing.assert_array_equal(labels, plain.argmax(0))


REFINEMENTS = ["guided", "crf", "guided:scale=2", "crf:scale=3,stride=2,reach=2,iterations=2"]


def stepped(channels=3, classes=4, stride=1, seed=5, **options):
    rng = np.random.default_rng(seed)
    return network(
        random_layer(rng, channels, 8, 3),
        random_layer(rng, 8, 8, 3, stride),
        random_layer(rng, 8, classes),
        **options,
    )


def picture_of(count: int, height: int, width: int) -> np.ndarray:
    """Coloured areas with some noise: uint8 (count, height, width, 3)."""
    rng = np.random.default_rng(11)
    coarse = rng.integers(20, 236, (count, 3, 4, 5)).astype(np.float64)
    large = networks.bilinear(coarse, (height, width)).transpose(0, 2, 3, 1)
    large += 60 * (large > 128) + rng.normal(0, 3, large.shape)
    return np.ascontiguousarray(np.clip(large, 0, 255).astype(np.uint8))


@pytest.mark.parametrize("text", REFINEMENTS)
@pytest.mark.parametrize("size", [(32, 48), (35, 49)])
@pytest.mark.parametrize("stride", [1, 4, 8])
def test_both_runtimes_give_the_same_labels(text, size, stride, tmp_path):
    card = make_card(*size, classes=6, mean=(0.5,) * 3, std=(0.1,) * 3)
    path = networks.save(tmp_path, networks.deep(classes=6, stride=stride), card)
    answers = []
    for name in RUNTIMES:
        with load_engine(path, engine=name, precision="fp32", batch=2, refine=text) as engine:
            want = refined_card(card, parse_refine(text)).input
            assert engine.card.input == want
            assert engine.info.refine == describe(parse_refine(text))
            labels = engine.submit(picture_of(2, want.height, want.width)).result()
            assert labels.shape == (2, want.height, want.width)
            answers.append(labels)
    assert len(np.unique(answers[0])) >= 3  # or agreeing would mean nothing
    assert (answers[0] == answers[1]).mean() >= 0.999


@pytest.mark.parametrize("text", ["guided", "crf:scale=2"])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("color", ["rgb", "bgr", "gray"])
@pytest.mark.parametrize("opset", [9, 13, 18, 21])
def test_every_layout_colour_and_opset(text, layout, color, opset):
    refine = parse_refine(text)
    n = 1 if color == "gray" else 3
    spread = {"mean": (0.5,) * n, "std": (0.1,) * n}
    card = make_card(16, 24, color=color, layout=layout, output={"layout": layout}, **spread)
    plain = wrapped_labels(stepped(n, layout=layout, opset=opset), card, None)
    labels = wrapped_labels(stepped(n, layout=layout, opset=opset), card, refine)
    # Refining moves edges; most of a picture's areas stay what they are.
    assert (labels[:, :: refine.scale, :: refine.scale] == plain).mean() > 0.75
    assert len(np.unique(plain)) >= 2


def wrapped_labels(model, card, refine):
    want = refined_card(card, refine).input
    scale = refine.scale if refine else 1
    pictures = picture_of(2, card.input.height, card.input.width)
    pictures = pictures.repeat(scale, 1).repeat(scale, 2)
    assert pictures.shape[1:3] == (want.height, want.width)
    return networks.on_runtime(wrap(model, card, refine), pictures)


@pytest.mark.parametrize("text", ["guided", "crf"])
def test_one_channel_is_refined_as_two_classes(text):
    card = make_card(16, 24, classes=2, mean=(0.5,) * 3, std=(0.1,) * 3)
    model = stepped(classes=1, stride=4, seed=6)
    labels = wrapped_labels(model, card, parse_refine(text))
    plain = wrapped_labels(model, card, None)
    assert set(np.unique(labels)) == {0, 1}
    assert (labels == plain).mean() > 0.75


@pytest.mark.parametrize("text", ["guided", "crf"])
@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_refinement_computes_in_fp32_whatever_the_network_does(text, kind):
    card = make_card(16, 24)
    model = wrap(stepped(dtype=kind, stride=4), card, parse_refine(text))
    kinds = {v.name: v.type.tensor_type.elem_type for v in model.graph.value_info}
    ours = [n for n in model.graph.node if n.name.startswith("streamseg_out")]
    begun = next(i for i, n in enumerate(ours) if n.op_type == "AveragePool")
    made = {kinds[name] for n in ours[begun:] for name in n.output if name in kinds}
    assert TensorProto.FLOAT16 not in made
    assert TensorProto.FLOAT in made
    picture_labels = wrapped_labels(stepped(dtype=kind, stride=4), card, parse_refine(text))
    assert len(np.unique(picture_labels)) >= 2


@pytest.mark.parametrize("text", REFINEMENTS)
def test_the_graph_is_of_operators_that_tensorrt_has(text):
    card = make_card(16, 24)
    model = wrap(stepped(stride=4), card, parse_refine(text))
    ours = [n for n in model.graph.node if n.name.startswith("streamseg")]
    assert {n.op_type for n in ours} <= IN_TENSORRT
    assert "DepthToSpace" in {n.op_type for n in ours}
    # Its rule for 8-bit values: only at the edges, cast from and to floats.
    readers = [n.op_type for n in model.graph.node if PICTURES in n.input]
    assert readers == ["Cast"]
    last = next(n for n in model.graph.node if LABELS in n.output)
    assert last.op_type == "Cast"
    inner = [v.type.tensor_type.elem_type for v in model.graph.value_info]
    assert TensorProto.UINT8 not in inner


def test_a_network_that_gives_class_ids_is_refused():
    model = stepped()
    model.graph.node.append(helper.make_node("ArgMax", ["scores"], ["ids"], axis=1, keepdims=1))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("ids", TensorProto.INT64, None))
    with pytest.raises(RefineError, match=r"'ids' is no scores.*--refine none"):
        wrap(model, make_card(), Guided())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "refine 'nonsense' is unknown; allowed: none, guided, crf"),
        ("", "allowed: none"),
        ("none:scale=2", "allowed: none"),
        ("CRF", "allowed: none"),
        ("crf:", "is not KEY=NUMBER"),
        ("crf:iterations", "is not KEY=NUMBER, each once.*iterations, reach"),
        ("crf:depth=3", "'depth=3' is not KEY=NUMBER"),
        ("crf:method=1", "'method=1' is not KEY=NUMBER"),
        ("crf:reach=1,reach=2", "each once"),
        ("guided:iterations=3", "one of the keys scale, stride, edge"),
        ("crf:iterations=0", "iterations should be greater than or equal to 1, got 0"),
        ("crf:iterations=2.5", "iterations .*got 2.5"),
        ("crf:rgb=nan", "rgb .*got nan"),
        ("crf:rgb=red", "rgb .*got 'red'"),
        ("guided:stride=3", "stride should be 2, 4 or 8, got 3"),
        ("guided:scale=0", "scale should be 1, 2, 3 or 4, got 0"),
    ],
)
def test_what_is_no_refinement_is_told_so_in_one_line(text, message):
    with pytest.raises(RefineError, match=message) as caught:
        parse_refine(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["none", "guided", "crf", *REFINEMENTS, " crf : rgb = 8 "])
def test_a_description_reads_back_as_the_same(text):
    refine = parse_refine(text)
    assert parse_refine(describe(refine)) == refine
    assert (refine is None) == (text == "none")


def test_parameters_are_taken():
    assert parse_refine("crf:iterations=3,rgb=8.5,scale=2") == Crf(iterations=3, rgb=8.5, scale=2)
    assert parse_refine("guided:edge=12") == Guided(edge=12)


def test_a_refined_card_is_larger_by_whole_cells():
    card = make_card(289, 513)
    assert refined_card(card, None) is card
    for refine, size in ((Guided(), (292, 516)), (Crf(scale=2), (584, 1032)), (None, (289, 513))):
        taken = refined_card(card, refine)
        assert (taken.input.height, taken.input.width) == size
        assert taken.classes == card.classes
    assert grid_of(card, Guided(stride=8, scale=2)) == Grid(37, 65, 16)


def test_a_scale_that_makes_too_large_a_picture_is_refused():
    with pytest.raises(RefineError, match=r"at most 16384 pixels.*lower the scale"):
        refined_card(make_card(4000, 8000), Guided(scale=3))


def test_every_refinement_has_graphs_of_its_own(tmp_path):
    from engines.model import find_model
    from engines.wrapped import graph_key

    model = find_model(networks.save(tmp_path, stepped(), make_card()))
    texts = ["none", "guided", "crf", "guided:edge=6", "crf:iterations=4", "crf:scale=2"]
    keys = [graph_key(model, refine=parse_refine(text)) for text in texts]
    assert len(set(keys)) == len(texts)
    assert graph_key(model) == keys[0]
    assert graph_key(model, refine=parse_refine("crf:iterations=3")) == keys[2]


def test_a_wrong_number_of_channels_is_an_error_though_the_file_does_not_say_it(tmp_path):
    # Compared with the ranks of the classes a single channel would be repeated.
    card = make_card(16, 24, classes=4)
    model = stepped(classes=3, stride=4)
    model.graph.node[-1].output[0] = "hidden"
    shape = [helper.make_node("Shape", ["hidden"], ["shape"])]
    shape.append(helper.make_node("Reshape", ["hidden", "shape"], ["scores"]))
    model.graph.node.extend(shape)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("scores", TensorProto.FLOAT, None))
    path = networks.save(tmp_path, model, card)
    with pytest.raises(EngineError, match=r"small|eshape"):
        with load_engine(path, engine="onnxruntime", refine="guided") as engine:
            engine.submit(picture_of(1, 16, 24)).result()
