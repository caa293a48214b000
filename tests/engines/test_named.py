"""Networks by name: which weights, how many classes, which card, and one file in the cache."""

from __future__ import annotations

import os
import re

import numpy as np
import pytest

from engines.errors import CardError, ModelError
from engines.zoo.kept import kept_classes, kept_stem, weights_digest
from engines.zoo.named import is_named, named_model, recipe
from engines.zoo.smp import ARCHITECTURES, HEAD, make_smp, make_whole, split_name
from engines.zoo.weights import count_classes, load_network, network_state
from tests.networks import make_card

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")
pytest.importorskip("segmentation_models_pytorch")

NAME = "linknet/resnet18"


def test_a_name_is_an_architecture_and_an_encoder(tmp_path, monkeypatch):
    assert split_name("unet/resnet34") == ("Unet", "resnet34")
    assert split_name("DeepLabV3Plus/tu-a.b") == ("DeepLabV3Plus", "tu-a.b")
    for other in ("unet", "unet/", "/resnet34", "net/resnet34", "unet/a/b", "fcn_resnet50"):
        assert split_name(other) is None
    assert is_named("fcn_resnet50")
    assert all(is_named(f"{name.lower()}/resnet18") for name in ARCHITECTURES)
    assert not is_named("unet/mine.onnx")
    assert not is_named("unet/mine.plan")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "resnet34").touch()
    assert not is_named("unet/resnet34")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A state dict of NAME for 5 classes, in a file, and itself."""
    torch.manual_seed(9)
    state = make_smp("Linknet", "resnet18", 5).state_dict()
    path = tmp_path_factory.mktemp("saved") / "five.pth"
    torch.save(state, path)
    return path, state


@pytest.mark.parametrize("prefix", ["", "model.", "module.", "_orig_mod."])
@pytest.mark.parametrize("nested", [False, True])
def test_weights_as_trainings_save_them(saved, tmp_path, prefix, nested):
    _, state = saved
    given = {f"{prefix}{name}": value for name, value in state.items()}
    if prefix:
        given["loss.weight"] = torch.zeros(5)
    given[f"{prefix}classification_head.3.weight"] = torch.zeros(2, 2)
    path = tmp_path / "given.pth"
    torch.save({"state_dict": given, "epoch": 3} if nested else given, path)
    assert count_classes(path, HEAD) == 5
    assert network_state(path, HEAD).keys() == state.keys()
    network = make_smp("Linknet", "resnet18", 5)
    load_network(network, path, HEAD, NAME)
    for name, value in network.state_dict().items():
        assert torch.equal(value, state[name])


@pytest.mark.slow
def test_the_classes_of_every_architecture_are_counted(tmp_path):
    for name in ARCHITECTURES:
        encoder = "tu-vit_tiny_patch16_224" if name == "DPT" else "resnet18"
        torch.save(make_smp(name, encoder, 3).state_dict(), tmp_path / "three.pth")
        assert count_classes(tmp_path / "three.pth", HEAD) == 3, name


def test_weights_of_another_network_are_named(saved):
    path, _ = saved
    with pytest.raises(ModelError, match=r"five\.pth is not for fpn/resnet18: .* is missing"):
        make_whole("fpn/resnet18", 5, str(path), (64, 64))
    with pytest.raises(ModelError, match=r"is not for linknet/resnet18: size mismatch, segm"):
        make_whole(NAME, 6, str(path), (64, 64))
    with pytest.raises(ModelError, match=r"has no layer classifier\.\*; it is not of"):
        count_classes(path, "classifier.")


def test_random_weights_are_the_same_every_time():
    one, other = (make_whole(NAME, 3, "random", (64, 64)) for _ in range(2))
    assert not one.training
    for key, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[key])


@pytest.mark.parametrize(
    ("name", "size", "says"),
    [
        ("fpn/resnet18", (100, 100), "multiples of 32, not 100x100; near it: 96x96"),
        ("pspnet/resnet18", (64, 60), "multiples of 8, not 64x60; near it: 64x64"),
        ("fpn/resnet18", (10, 64), "near it: 32x64"),
        ("pan/resnet18", (32, 32), "pan/resnet18 does not take 32x32: "),
        ("dpt/resnet18", (64, 64), "DPT on resnet18 cannot be made: Only Timm encoders"),
    ],
)
def test_a_size_that_does_not_suit_is_one_line(name, size, says):
    with pytest.raises(ModelError, match=re.escape(says)) as caught:
        make_whole(name, 2, "random", size)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_vision_transformer_takes_other_sizes_than_its_own():
    network = make_whole("dpt/tu-vit_tiny_patch16_224", 2, "random", (96, 160))
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, 96, 160)).shape == (1, 2, 96, 160)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STREAMSEG_CACHE", str(tmp_path / "cache"))


def test_without_a_card_classes_are_numbered(saved):
    path, _ = saved
    found = recipe(NAME, str(path), (64, 96))
    assert found.card.classes == tuple(f"class{index}" for index in range(5))
    assert (found.card.input.height, found.card.input.width) == (64, 96)
    assert found.card.metrics["weights"] == "five.pth"
    assert (found.size, found.dynamic) == ((64, 96), "batch")
    assert found.make().segmentation_head[0].out_channels == 5
    assert recipe(NAME, "random").card.input.height == 512
    assert len(recipe(NAME, "random").card.classes) == 21


def test_one_channel_is_background_and_foreground(tmp_path):
    path = tmp_path / "one.pth"
    torch.save(make_smp("Linknet", "resnet18", 1).state_dict(), path)
    assert recipe(NAME, str(path)).card.classes == ("background", "foreground")
    two = make_card(classes=2)
    assert recipe(NAME, str(path), card=two).card.classes == two.classes


def test_a_card_names_the_classes_and_the_input(saved):
    path, _ = saved
    mine = make_card(height=32, width=64, classes=5).model_copy(update={"sha256": "0" * 64})
    found = recipe(NAME, str(path), card=mine)
    assert found.card.classes == mine.classes
    assert found.card.input == mine.input
    assert found.card.sha256 is None, "it is another file's"
    assert recipe(NAME, str(path), (96, 64), mine).card.input.height == 96
    with pytest.raises(CardError, match="is for 5 classes, but the card 'small' names 4"):
        recipe(NAME, str(path), card=make_card(height=32, width=32))
    assert len(recipe(NAME, "random", card=mine).card.classes) == 5


def test_torchvisions_take_weights_of_other_classes(tmp_path):
    from engines.zoo.torchvision import VOC_CLASSES, make_torchvision

    name = "lraspp_mobilenet_v3_large"
    path = tmp_path / "three.pth"
    torch.save(make_torchvision(name, 3, "random").network.state_dict(), path)
    assert recipe(name, str(path)).card.classes == ("class0", "class1", "class2")
    assert recipe(name).card.classes == VOC_CLASSES
    assert recipe(name, size=(64, 96)).card.input.width == 96
    with pytest.raises(CardError, match="official weights have a card of their own"):
        recipe(name, card=make_card())


def test_without_weights_it_says_that_there_are_none():
    for weights in (None, "official"):
        with pytest.raises(ModelError, match=r"no official weights.*--weights FILE.*random"):
            recipe(NAME, weights)


def test_one_name_for_one_network():
    """All that changes a network changes its file's name, so that none is taken for another."""
    ways = [
        ("unet/a", "random", 21, (64, 64)),
        ("unet-a", "random", 21, (64, 64)),
        ("unet/b", "random", 21, (64, 64)),
        ("unet/a", "0" * 64, 21, (64, 64)),
        ("unet/a", "random", 2, (64, 64)),
        ("unet/a", "random", 21, (64, 96)),
        ("unet/a", "random", 21, None),
    ]
    stems = {kept_stem(*way) for way in ways}
    assert len(stems) == len(ways)
    assert all(re.fullmatch(r"[a-z0-9.-]+", stem) for stem in stems)


@pytest.mark.slow
def test_a_second_start_needs_neither_torch_nor_the_library(saved, monkeypatch):
    import subprocess
    import sys

    path, state = saved
    said = []
    found = named_model(NAME, str(path), (64, 96), say=said.append)
    assert said == ["writing the network as ONNX (once)"]
    assert kept_classes(NAME, weights_digest(NAME, str(path)), (64, 96)) == 5
    assert kept_classes(NAME, weights_digest(NAME, str(path)), (96, 96)) is None
    code = (
        "import sys\n"
        "for name in ('torch', 'torchvision', 'timm', 'segmentation_models_pytorch'):\n"
        "    sys.modules[name] = None\n"
        "from engines.zoo.named import named_model\n"
        f"print(named_model({NAME!r}, {str(path)!r}, (64, 96), say=print).file)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ)
    )
    assert done.stdout == f"{found.file}\n", done.stderr
    from tests.networks import on_runtime

    picture = np.random.default_rng(0).normal(0, 1, (2, 3, 64, 96)).astype(np.float32)
    network = make_smp("Linknet", "resnet18", 5).eval()
    network.load_state_dict(state)
    with torch.inference_mode():
        expected = network(torch.from_numpy(picture)).numpy()
    got = on_runtime(found.file.read_bytes(), picture)
    assert np.abs(got - expected).max() < 1e-3 * np.abs(expected).max()
