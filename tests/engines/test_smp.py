"""SMP's networks: weights of others' naming fit, and what does not fit is named."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("segmentation_models_pytorch")
pytestmark = pytest.mark.filterwarnings("ignore")

from engines.errors import ModelError  # noqa: E402
from engines.zoo.smp import ARCHITECTURES, make_smp  # noqa: E402

LIGHT = {
    "Unet": {"decoder_channels": (32, 16, 16, 8, 8)},
    "UnetPlusPlus": {"decoder_channels": (32, 16, 16, 8, 8)},
    "MAnet": {"decoder_channels": (32, 16, 16, 8, 8)},
    "DPT": {"encoder": "tu-vit_tiny_patch16_224", "dynamic_img_size": True},
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_answers_at_the_picture_s_size(name):
    options = dict(LIGHT.get(name, {}))
    network = make_smp(name.upper(), options.pop("encoder", "mobilenet_v2"), 5, **options).eval()
    with torch.no_grad():
        assert network(torch.zeros(2, 3, 128, 160)).shape == (2, 5, 128, 160)


def torchvision_file(folder, name):
    import torchvision

    torch.manual_seed(3)
    network = getattr(torchvision.models, name)(weights=None)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(torch.rand_like(tensor) * 0.1)
    path = folder / f"{name}.pth"
    torch.save(network.state_dict(), path)
    return path, network.eval()


def test_weights_of_the_same_names(tmp_path):
    path, classifier = torchvision_file(tmp_path, "mobilenet_v2")
    network = make_smp("FPN", "mobilenet_v2", 4, path).eval()
    picture = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(network.encoder(picture)[-1], classifier.features(picture))


def test_weights_of_other_names_in_the_same_order(tmp_path):
    """torchvision's MobileNetV3 into timm's, whose layers have other names and epsilons."""
    path, classifier = torchvision_file(tmp_path, "mobilenet_v3_small")
    network = make_smp("FPN", "tu-mobilenetv3_small_100", 4, path).eval()
    for module in network.encoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = 1e-3
    picture = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        found, expected = network.encoder(picture)[-1], classifier.features(picture)
    assert torch.allclose(found, expected, atol=1e-4)


def test_what_does_not_fit_is_named(tmp_path):
    path, _ = torchvision_file(tmp_path, "mobilenet_v3_small")
    with pytest.raises(ModelError, match=r"mobilenet_v3_small\.pth has 240 tensors .* 312"):
        make_smp("FPN", "mobilenet_v2", 4, path)
    state = torch.load(path, weights_only=True)
    state["features.0.0.weight"] = state["features.0.0.weight"][:8]
    torch.save(state, path)
    with pytest.raises(ModelError, match=r"features\.0\.0\.weight is \(8, 3, 3, 3\)"):
        make_smp("FPN", "tu-mobilenetv3_small_100", 4, path)
    path.write_bytes(b"nothing")
    with pytest.raises(ModelError, match="not a file of torch weights"):
        make_smp("FPN", "mobilenet_v2", 4, path)
    with pytest.raises(ModelError, match="no weights at"):
        make_smp("FPN", "mobilenet_v2", 4, tmp_path / "none.pth")


def test_mistakes_say_what_is_allowed():
    with pytest.raises(ModelError, match="allowed: Unet, UnetPlusPlus"):
        make_smp("Segnet", "mobilenet_v2", 4)
    with pytest.raises(ModelError, match="near it: mobilenet_v2"):
        make_smp("FPN", "mobilenet_v9", 4)
    with pytest.raises(ModelError, match="no option decoder_width; allowed: encoder_depth, dec"):
        make_smp("FPN", "mobilenet_v2", 4, decoder_width=3)
    with pytest.raises(ModelError, match="FPN on tu-mobilenetv3_small_100 cannot be made"):
        make_smp("FPN", "tu-mobilenetv3_small_100", 4, decoder_width=3)
    with pytest.raises(ModelError, match="FPN on mobilenet_v2 cannot be made: num_channels"):
        make_smp("FPN", "mobilenet_v2", 4, decoder_segmentation_channels=3)
