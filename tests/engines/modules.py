"""Small torch modules that answer what the ONNX networks of tests/networks.py do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.card import Card
from engines.engine import RingEngine
from engines.model import Model
from tests.networks import LEVELS


def open_module(
    what: str, card: Card, batch: int = 1, *, device: str | None = None, **options: Any
) -> RingEngine:
    """The torch engine on one of the modules below, in FP32 unless told; on the GPU where tests
    run on one. Skips where torch is missing.
    """
    pytest.importorskip("torch")
    from engines.torch_engine import load_torch

    if device is None:
        device = "0" if "STREAMSEG_GPU" in os.environ else "cpu"
    options.setdefault("precision", "fp32")
    model = Model(card, Path("small.onnx"), lambda: make(what))
    return load_torch(model, device=device, batch=batch, **options)


def make(what: str) -> Any:
    """`red_levels`; `poisoned`, the same, but a green of 255 is an error; `coarse`, the same at a
    quarter of the size; `binary`, one channel: red of 128 and more.
    """
    import torch
    from torch import nn

    class Level(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            levels = (np.arange(LEVELS) + 0.5) / LEVELS
            weights = np.zeros((LEVELS, 3, 1, 1), np.float32)
            weights[:, 0, 0, 0] = 2 * levels
            self.classify = nn.Conv2d(3, LEVELS, 1)
            self.classify.weight.data = torch.from_numpy(weights)
            self.classify.bias.data = torch.from_numpy(np.float32(-(levels**2)))

        def forward(self, x):
            if what == "poisoned" and bool((x[:, 1] > 0.999).any()):
                raise RuntimeError("poisoned")
            if what == "coarse":
                x = nn.functional.avg_pool2d(x, 4)
            if what == "binary":
                return x[:, :1] - 0.5
            return self.classify(x)

    return Level()
