"""torchvision's six networks, from torch to labels: random weights, no network needed.

That the ONNX computes what torch does is in test_parity.py, with all others of the zoo.
"""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest

from engines.errors import ModelError
from engines.graph import read_onnx
from engines.model import find_model
from engines.precision import to_precision
from engines.zoo.kept import weights_digest
from engines.zoo.torchvision import NETWORKS, VOC_CLASSES, make_torchvision, torchvision_card
from tests.networks import labels_of, noise, on_runtime

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxconverter_common")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SIZE = (97, 129)
SMALLEST = "lraspp_mobilenet_v3_large"
# Of the largest logit. Measured over the six: at most 2e-6 between two runtimes.
FP32_BOUND = 2e-5


@pytest.fixture(scope="session")
def exported():
    """Module and ONNX model of the smallest: how it is wrapped does not depend on the network."""
    path = find_model(SMALLEST, weights="random").file  # made into the tests' own cache
    return make_torchvision(SMALLEST, weights="random"), read_onnx(path)


def worst(got, expected):
    """The largest difference, as a share of the largest logit."""
    return float(np.abs(got.astype(np.float64) - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_wrapped_network_gives_class_ids(precision, exported):
    _, model = exported
    card = torchvision_card(SMALLEST, SIZE, weights="random")
    pictures = noise(2, card)
    labels = labels_of(to_precision(model, precision), card, pictures)
    assert labels.dtype == np.uint8
    assert labels.shape == (2, *SIZE)
    assert labels.max() < len(VOC_CLASSES)
    if precision == "fp32":
        want = card.input
        scaled = (pictures / 255 - np.array(want.mean)) / np.array(want.std)
        scores = on_runtime(model, np.ascontiguousarray(scaled.transpose(0, 3, 1, 2), np.float32))
        assert (labels == scores.argmax(1)).mean() > 0.999


def test_any_size_and_batch_from_one_file(exported):
    module, model = exported
    other = np.random.default_rng(0).normal(0, 1, (3, 3, 64, 80)).astype(np.float32)
    with torch.inference_mode():
        expected = module(torch.from_numpy(other)).numpy()
    assert worst(on_runtime(model, other), expected) < FP32_BOUND


def test_bf16_has_the_same_graph(exported):
    _, model = exported
    one, other = to_precision(model, "fp16"), to_precision(model, "bf16")
    assert [n.op_type for n in one.graph.node] == [n.op_type for n in other.graph.node]
    assert onnx.TensorProto.FLOAT16 not in {t.data_type for t in other.graph.initializer}


def parameters(module):
    return {k: v.numpy() for k, v in module.network.state_dict().items()}


def test_random_weights_are_the_same_every_time_and_leave_torchs_own_generator_alone():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one, other = (parameters(make_torchvision(SMALLEST, weights="random")) for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[key], other[key]) for key in one)


def test_the_network_is_in_evaluation_mode():
    assert not any(m.training for m in make_torchvision(SMALLEST, weights="random").modules())


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A state dict on disk as a training leaves it: other weights, and an auxiliary head's."""
    from torchvision.models import segmentation

    torch.manual_seed(77)
    network = segmentation.fcn_resnet50(
        weights=None, weights_backbone=None, num_classes=21, aux_loss=True
    )
    state = network.state_dict()
    assert any(key.startswith("aux_") for key in state)
    path = tmp_path_factory.mktemp("weights") / "trained.pth"
    torch.save(state, path)
    return path, state


def test_a_state_dict_from_a_file(trained):
    path, state = trained
    loaded = parameters(make_torchvision("fcn_resnet50", weights=str(path)))
    assert loaded
    assert not any(key.startswith("aux_") for key in loaded)
    for key, found in loaded.items():
        np.testing.assert_array_equal(found, state[key].numpy())


def test_a_state_dict_with_another_number_of_classes(tmp_path):
    module = make_torchvision(SMALLEST, classes=5, weights="random")
    path = tmp_path / "five.pth"
    torch.save(module.network.state_dict(), path)
    again = make_torchvision(SMALLEST, classes=5, weights=str(path))
    with torch.inference_mode():
        assert again(torch.zeros(1, 3, 32, 32)).shape == (1, 5, 32, 32)
    with pytest.raises(ModelError, match=r"five\.pth is not for lraspp_.*size mismatch") as caught:
        make_torchvision(SMALLEST, weights=str(path))
    assert "\n" not in str(caught.value)


def one_line(error):
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 500
    return text


def test_weights_of_another_network_are_refused(trained):
    path, _ = trained
    with pytest.raises(ModelError, match=r"trained\.pth is not for lraspp_mob") as caught:
        make_torchvision(SMALLEST, weights=str(path))
    assert re.search("is missing|is unknown|size mismatch", one_line(caught))


def test_a_file_that_lacks_weights_is_refused(trained, tmp_path):
    _, state = trained
    key = next(iter(state))
    torch.save({k: v for k, v in state.items() if k != key}, tmp_path / "part.pth")
    with pytest.raises(ModelError, match=f"{re.escape(key)} is missing") as caught:
        make_torchvision("fcn_resnet50", weights=str(tmp_path / "part.pth"))
    one_line(caught)


@pytest.mark.parametrize("data", [b"", b"not weights", bytes(range(256)) * 20])
def test_a_file_that_is_no_weights_is_refused(tmp_path, data):
    path = tmp_path / "weights.pth"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"weights\.pth is not a file of torch weights") as caught:
        make_torchvision(SMALLEST, weights=str(path))
    one_line(caught)


def test_a_pickle_cannot_run_code(tmp_path):
    class Bad:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").write_text, ("x",))

    torch.save({"w": Bad()}, tmp_path / "bad.pth")
    with pytest.raises(ModelError, match="is not a file of torch weights") as caught:
        make_torchvision(SMALLEST, weights=str(tmp_path / "bad.pth"))
    one_line(caught)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("thing", [[1, 2], {1: 2}, {"epoch": 3}, {"model": {}}, None])
def test_a_file_that_holds_no_state_dict_is_refused(tmp_path, thing):
    path = tmp_path / "thing.pth"
    torch.save(thing, path)
    with pytest.raises(ModelError, match=r"thing\.pth (holds no state dict|is not for)") as caught:
        make_torchvision(SMALLEST, weights=str(path))
    one_line(caught)


def test_no_file_a_folder_and_no_such_network(tmp_path):
    for path in (tmp_path / "none.pth", tmp_path):
        for function in (
            lambda p=path: make_torchvision(SMALLEST, weights=str(p)),
            lambda p=path: weights_digest(SMALLEST, str(p)),
        ):
            with pytest.raises(ModelError, match=r"no weights (file )?at "):
                function()
    with pytest.raises(ModelError, match="no 'unet'; allowed: fcn_resnet50, fcn_resnet101"):
        make_torchvision("unet")


def test_official_weights_without_a_network_say_where_they_are(monkeypatch, tmp_path):
    """By a proxy that is not there, so that machines with a network are without one too."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ModelError, match=r"cannot be fetched \(.*--weights FILE") as caught:
        make_torchvision(SMALLEST)
    assert "https://download.pytorch.org/models/lraspp_mobilenet_v3_large" in one_line(caught)


def test_the_digest_of_a_file_follows_its_bytes(tmp_path):
    one, other = tmp_path / "one.pth", tmp_path / "other.pth"
    one.write_bytes(b"a")
    other.write_bytes(b"b")
    digests = {weights_digest(SMALLEST, w) for w in ("official", "random", str(one), str(other))}
    assert len(digests) == 4
    other.write_bytes(b"a")
    assert weights_digest(SMALLEST, str(other)) == weights_digest(SMALLEST, str(one))


def test_the_card_says_what_torchvisions_transforms_do():
    from torchvision.models import segmentation

    for name, enum in NETWORKS.items():
        weights = getattr(segmentation, enum).DEFAULT
        transform, card = weights.transforms(), torchvision_card(name)
        assert list(card.input.mean) == list(transform.mean)
        assert list(card.input.std) == list(transform.std)
        assert transform.resize_size == [card.input.height] == [card.input.width]
        names = [re.sub("^__background__$", "background", n) for n in weights.meta["categories"]]
        assert list(card.classes) == names
