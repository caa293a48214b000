"""Every architecture of the zoo: torch against ONNX Runtime against OpenVINO, on real frames."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from engines.cost import count
from engines.export import export_onnx, halve_weights
from engines.graph import read_onnx
from engines.guard import guard_pictures
from engines.model import find_model
from engines.precision import to_precision
from engines.zoo.torchvision import torchvision_card
from tests.networks import labels_of, on_runtime

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")
pytest.importorskip("segmentation_models_pytorch")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxconverter_common")

from tests.engines.zoo import (  # noqa: E402
    NAMES,
    OF_SMP,
    SIZE,
    network,
    on_openvino,
    on_torch,
    real_pictures,
    worst,
)

# timm and SMP warn of each other's old names.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

# Of the largest logit. The issue asks for 1e-3 between the runtimes.
FP32_BOUND = 1e-3
# Half precision keeps 11 bits, and each of dozens of layers rounds again. Measured: computed in
# FP16 at most 1.5e-3, weights kept in FP16 at most 1.3e-3; with resnet18, MAnet reaches 4.1e-3.
FP16_BOUND = HALF_WEIGHTS_BOUND = 5e-3
# They average to a grid (engines/export.py), or learn each place of the picture (DPT).
FIXED_ONLY = ("pspnet", "upernet", "dpt")
FREE = [name for name in OF_SMP if not name.startswith(FIXED_ONLY)]
OTHER_SIZE = (160, 128)


@pytest.mark.parametrize("name", NAMES)
def test_all_runtimes_compute_what_torch_computes(name):
    found = find_model(name, weights="random", size=SIZE)
    module, model = network(name), read_onnx(found.file)
    pictures = real_pictures(found.card)
    assert pictures.shape == (2, 3, *SIZE)
    expected = on_torch(module, pictures)
    assert expected.shape[1] == 21
    assert expected.std() > 0
    assert worst(on_runtime(model, pictures), expected) < FP32_BOUND
    assert worst(on_openvino(model, pictures), expected) < FP32_BOUND
    one = pictures[:1]
    computed = on_runtime(to_precision(model, "fp16"), one.astype(np.float16))
    assert computed.dtype == np.float16
    halve_weights(model)
    kept = on_runtime(model, one)
    errors = worst(computed, expected[:1]), worst(kept, expected[:1])
    print(f"\n{name}: FP16 {errors[0]:.1e}, weights in FP16 {errors[1]:.1e} of the largest logit")
    assert errors[0] < FP16_BOUND
    assert 0 < errors[1] < HALF_WEIGHTS_BOUND


# One of each kind: these exports are slow, and what differs is in the decoder's resizing.
@pytest.mark.parametrize(
    "name", [n for n in FREE if n.startswith(("unet/", "deeplabv3plus", "segf"))]
)
def test_one_file_for_every_size(name, tmp_path):
    path = tmp_path / "free.onnx"
    module = network(name)
    export_onnx(module, path, size=SIZE)
    model = read_onnx(path)
    card = torchvision_card("fcn_resnet50", OTHER_SIZE)
    pictures = real_pictures(card, 1)
    expected = on_torch(module, pictures)
    assert expected.shape == (1, 21, *OTHER_SIZE)
    assert worst(on_runtime(model, pictures), expected) < FP32_BOUND
    assert worst(on_openvino(model, pictures), expected) < FP32_BOUND


@pytest.mark.parametrize("name", [n for n in OF_SMP if n.startswith(("pspnet", "upernet"))])
def test_a_grid_of_cells_fixes_the_size(name, tmp_path):
    """At another size it would answer wrongly; so the file takes no other."""
    path = tmp_path / "grid.onnx"
    export_onnx(network(name), path, size=SIZE)
    dims = read_onnx(path).graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in dims] == [0, 3, *SIZE]


@pytest.mark.parametrize("name", [n for n in OF_SMP if n.startswith(("unet/", "manet", "segf"))])
def test_multiply_adds_are_those_that_torch_counts(name):
    from engines.zoo.catalog import count_torch

    model = read_onnx(find_model(name, weights="random", size=SIZE).file)
    found = count(model, (1, 3, *SIZE))
    parameters, mmacs = count_torch(network(name), SIZE)
    assert found.macs is not None
    assert found.macs / 1e6 == pytest.approx(mmacs, rel=1e-6)
    # A folded batch norm has no parameters of its own.
    assert 0.97 * parameters < found.parameters <= parameters


@pytest.mark.parametrize("dynamic", [True, False])
def test_street(dynamic, tmp_path):
    from engines.zoo.street import Street

    torch.manual_seed(5)
    module = Street(7).eval()
    path = tmp_path / "street.onnx"
    export_onnx(module, path, size=SIZE, dynamic=dynamic)
    model = read_onnx(path)
    card = torchvision_card("fcn_resnet50")
    for height, width in (SIZE, (97, 129)) if dynamic else (SIZE,):
        taken = card.input.model_copy(update={"height": height, "width": width})
        pictures = real_pictures(card.model_copy(update={"input": taken}), 2 if dynamic else 1)
        expected = on_torch(module, pictures)
        assert expected.shape[1:] == (7, -(-height // 4), -(-width // 4))
        assert worst(on_runtime(model, pictures), expected) < FP32_BOUND
        assert worst(on_openvino(model, pictures), expected) < FP32_BOUND
        half = on_runtime(to_precision(model, "fp16"), pictures.astype(np.float16))
        assert worst(half, expected) < FP16_BOUND


def voc_in_torch(model: onnx.ModelProto):
    """The network with the weights of the shipped file, which keeps torch's names for them."""
    from engines.zoo.voc import Voc

    module = Voc().eval()
    tensors = {t.name: numpy_helper.to_array(t).copy() for t in model.graph.initializer}
    state = {name: torch.from_numpy(tensors[name]) for name in module.state_dict()}
    module.load_state_dict(state)
    return module


def test_real_weights_give_the_same_labels():
    """Agreement is counted on frames that show something: three classes of 2 % each."""
    found = find_model("voc")
    model, card = read_onnx(found.file), found.card
    pictures = real_pictures(card, 6)
    expected = on_torch(voc_in_torch(model), pictures)
    right = expected.argmax(1)
    shares = np.stack([np.bincount(ids.ravel(), minlength=21) / ids.size for ids in right])
    counted = (shares >= 0.02).sum(1) >= 3
    assert counted.sum() >= 4
    for scores in (on_runtime(model, pictures), on_openvino(model, pictures)):
        assert worst(scores, expected) < FP32_BOUND
        assert (scores.argmax(1) == right)[counted].mean() >= 0.999
    shown = np.concatenate(guard_pictures(card))[counted]
    for half, least in ((model, 0.999), (to_precision(model, "fp16"), 0.99)):
        same = labels_of(half, card, shown) == right[counted]
        assert same.mean() >= least
