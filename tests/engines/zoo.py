"""Torch networks beside the ONNX that was made of them, on real pictures."""

from __future__ import annotations

import numpy as np

from engines.card import Card
from engines.guard import guard_pictures
from engines.zoo.smp import ARCHITECTURES, make_whole, split_name
from engines.zoo.torchvision import NETWORKS, make_torchvision

# Small, and yet enough for a network at stride 32 that halves its deepest map once more (PAN).
SIZE = (128, 192)
# One of each architecture, on the small encoders that timm has for tests: an export's time goes
# with the number of layers. DPT takes vision transformers only.
OF_SMP = [
    f"{name.lower()}/{'tu-test_vit' if name == 'DPT' else 'tu-test_resnet'}"
    for name in ARCHITECTURES
]
NAMES = [*NETWORKS, *OF_SMP]


def network(name: str, size: tuple[int, int] = SIZE):
    """The torch module that `--weights random` stands for."""
    if split_name(name) is None:
        return make_torchvision(name, weights="random")
    return make_whole(name, 21, "random", size)


def real_pictures(card: Card, count: int = 2) -> np.ndarray:
    """The guard's frames, normalised as the card says: float32 (count, 3, H, W)."""
    pixels = np.concatenate(guard_pictures(card, most=count)) / 255
    values = (pixels - np.array(card.input.mean)) / np.array(card.input.std)
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2), np.float32)


def on_torch(module, pictures: np.ndarray) -> np.ndarray:
    import torch

    with torch.inference_mode():
        return module(torch.from_numpy(pictures)).numpy()


def on_openvino(model, pictures: np.ndarray) -> np.ndarray:
    """By OpenVINO itself, in FP32: nothing of ours takes part."""
    import openvino

    core = openvino.Core()
    # Without it, processors with bf16 compute in that.
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU", exact)
    return np.asarray(compiled([pictures])[0])


def worst(got: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, as a share of the largest logit."""
    assert got.shape == expected.shape
    assert np.isfinite(got).all()
    return float(np.abs(got.astype(np.float64) - expected).max() / np.abs(expected).max())
