"""The torch engine on the CPU: what it runs and refuses, and that its labels are the others'."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")

from engines import torch_engine  # noqa: E402
from engines.choose import choose_engine, load_engine  # noqa: E402
from engines.errors import (  # noqa: E402
    CardError,
    EngineUnavailableError,
    ModelError,
    RefineError,
)
from engines.guard import guard_pictures  # noqa: E402
from engines.model import find_model, shipped_models  # noqa: E402
from engines.zoo.shipped import make_shipped  # noqa: E402
from tests import networks  # noqa: E402
from tests.engines.modules import open_module  # noqa: E402

CARD = networks.make_card(classes=networks.LEVELS)
SMALL = "lraspp_mobilenet_v3_large"
NO_GPU = torch_engine.gpu_problem() is not None


def on_cpu(what, card, pictures, **options):
    with open_module(what, card, len(pictures), device="cpu", **options) as engine:
        return engine.submit(pictures).result()


@pytest.mark.parametrize("name", [n for n in shipped_models() if not n.endswith("-int8")])
def test_the_shipped_networks_give_the_labels_of_their_onnx(name):
    pytest.importorskip("onnxruntime")
    answers = {}
    for runtime in ("torch", "onnxruntime", "openvino"):
        device = "cpu" if runtime == "torch" else None
        with load_engine(name, engine=runtime, precision="fp32", device=device) as engine:
            pending = [engine.submit(each) for each in guard_pictures(engine.card)]
            answers[runtime] = np.concatenate([each.result() for each in pending])
    assert len(np.unique(answers["torch"])) >= 7  # or agreeing would mean little
    for other in ("onnxruntime", "openvino"):
        assert (answers["torch"] == answers[other]).mean() >= 0.999, other


@pytest.mark.parametrize("name", [SMALL, "unet/tu-test_resnet"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # timm and SMP, of each other
def test_a_librarys_network_gives_the_labels_of_its_module(name, tmp_path, monkeypatch):
    from tests.engines.zoo import SIZE, network, on_torch, real_pictures

    pytest.importorskip("segmentation_models_pytorch")
    monkeypatch.setenv("STREAMSEG_CACHE", str(tmp_path / "cache"))
    options = {"weights": "random", "size": SIZE, "device": "cpu"}
    with load_engine(name, engine="torch", batch=2, **options) as engine:
        given = np.concatenate(guard_pictures(engine.card, most=2))
        labels = engine.submit(given).result()
        expected = on_torch(network(name), real_pictures(engine.card)).argmax(1)
    assert (labels == expected).mean() >= 0.999
    assert not list(tmp_path.rglob("*.onnx"))  # nobody needs one


def test_a_state_dict_of_ones_own(tmp_path):
    from engines.zoo.torchvision import make_torchvision

    state = make_torchvision(SMALL, 3, "random").network.state_dict()
    # One class wins everywhere, so that these weights are told from any others.
    state["classifier.low_classifier.bias"] += torch.tensor([0.0, 0.0, 1000.0])
    torch.save(state, tmp_path / "mine.pth")
    options = {"weights": str(tmp_path / "mine.pth"), "size": (64, 96), "device": "cpu"}
    with load_engine(SMALL, engine="torch", **options) as engine:
        assert engine.card.classes == ("class0", "class1", "class2")
        assert (engine.submit(networks.noise(1, engine.card)).result() == 2).all()


def test_bf16_is_computed_in_bf16():
    card = networks.make_card(64, 96, networks.LEVELS)
    pictures = networks.noise(2, card)
    exact = on_cpu("red_levels", card, pictures)
    with open_module("red_levels", card, 2, device="cpu", precision="bf16") as engine:
        assert engine.info.precision == "bf16"
        rounded = engine.submit(pictures).result()
    assert 0.8 < (rounded == exact).mean() < 1  # eight bits: levels meet, but not everywhere


@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_scores_are_enlarged_and_colours_in_the_cards_order(color):
    card = networks.make_card(48, 64, networks.LEVELS, color=color)
    pictures = networks.noise(3, card)
    red = pictures[..., 2 if color == "bgr" else 0].astype(np.float64) / 255
    coarse = red.reshape(3, 1, 12, 4, 16, 4).mean((3, 5))
    levels = ((np.arange(networks.LEVELS) + 0.5) / networks.LEVELS).reshape(1, -1, 1, 1)
    expected = networks.bilinear(2 * levels * coarse - levels**2, (48, 64)).argmax(1)
    assert (on_cpu("coarse", card, pictures) == expected).mean() > 0.999


def test_one_channel_is_a_threshold_and_gray_a_sum():
    card = networks.make_card(classes=2, color="gray")
    pictures = networks.noise(2, card)
    luma = pictures @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_array_equal(on_cpu("binary", card, pictures), luma / 255 > 0.5)


def test_the_cards_mean_and_deviation_are_taken():
    card = networks.make_card(classes=2, mean=(0.5, 0, 0), std=(0.25, 1, 1))
    pictures = networks.noise(2, card)
    expected = (pictures[..., 0] / 255 - 0.5) / 0.25 > 0.5
    np.testing.assert_array_equal(on_cpu("binary", card, pictures), expected)


def test_a_compiled_network_answers_the_same(monkeypatch):
    # Everything but the making of machine code, which takes a compiler and a minute.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager", fullgraph=True))
    for count in (1, 3, 2):
        pictures = networks.noise(count, CARD, count)
        labels = on_cpu("red_levels", CARD, pictures, compile=True)
        np.testing.assert_array_equal(labels, networks.red_level(pictures))


@pytest.mark.parametrize(
    ("card", "error", "message"),
    [
        (networks.make_card(classes=5), CardError, r"answers \(1, 8, 12, 16\).*names 5 classes"),
        (networks.make_card(classes=8, layout="nhwc"), CardError, "nhwc.*nchw"),
        (networks.make_card(classes=8, color="gray"), ModelError, "torch cannot run small in .*32"),
    ],
)
def test_a_card_of_another_network_is_refused_before_the_first_picture(card, error, message):
    with pytest.raises(error, match=message):
        open_module("red_levels", card, device="cpu")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"device": "GPU"}, EngineUnavailableError, r"'GPU' is unknown to torch.*\(0, 1, ...\)"),
        ({"device": "-1"}, EngineUnavailableError, "'-1' is unknown to torch"),
        ({"device": "99"}, EngineUnavailableError, "there is no GPU 99"),
        ({"precision": "int8"}, EngineUnavailableError, "INT8 is for openvino and onnxruntime"),
        (
            {"precision": "fp16", "device": "cpu"},
            EngineUnavailableError,
            "fp16 on the CPU; it does in: fp32, bf16",
        ),
        ({"refine": "crf"}, EngineUnavailableError, "--refine crf is made of ONNX nodes"),
        ({"refine": "blur"}, RefineError, "'blur' is unknown"),
    ],
)
def test_what_it_cannot_do_is_said(options, error, message):
    with pytest.raises(error, match=message):
        load_engine("voc", engine="torch", **options)


def test_files_are_refused_and_what_would_run_is_named(tmp_path):
    path = networks.save(tmp_path, networks.red_levels(), CARD)
    message = r"torch cannot run .*small\.onnx.*voc, street, torchvision.*another --engine"
    with pytest.raises(EngineUnavailableError, match=message):
        load_engine(path, engine="torch")


@pytest.mark.skipif(not NO_GPU, reason="there is a GPU")
def test_without_a_gpu_it_runs_on_the_cpu_and_says_so():
    with load_engine("voc", engine="torch", size=(97, 129)) as engine:
        assert engine.info.name == "torch"
        assert engine.info.device.startswith("CPU (")
        assert engine.info.precision == "fp32"
        assert engine.info.why == f"asked for; {torch_engine.gpu_problem()}"
        assert engine.submit(networks.noise(1, engine.card)).result().shape == (1, 97, 129)
    with load_engine("voc", engine="torch", size=(97, 129), device="CPU") as engine:
        assert engine.info.why == "asked for"
    with pytest.raises(EngineUnavailableError, match="there is no GPU 0 for torch: torch"):
        load_engine("voc", engine="torch", device="0")


def test_auto_never_chooses_it(monkeypatch):
    for gpu in (True, False):
        monkeypatch.setattr("engines.choose.has_nvidia_gpu", lambda gpu=gpu: gpu)
        assert choose_engine().engine != "torch"


def test_another_networks_file_is_no_shipped_network(tmp_path):
    voc, street = find_model("voc"), find_model("street")
    with pytest.raises(ModelError, match=r"voc\.onnx is not street's network: encoder"):
        make_shipped("street", voc.file, street.card)
