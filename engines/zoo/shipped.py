"""The package's own networks as torch modules, for engines that run those: `voc` and `street`.

The weights are read from the shipped ONNX files, which keep torch's names for them; so there is one
set of weights, and no second file that could differ. Needs torch, for `street` torchvision too.
"""

# mypy: disable-error-code="import-not-found, import-untyped, unused-ignore"

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.card import Card
from engines.errors import EngineUnavailableError, ModelError


def make_shipped(name: str, file: Path, card: Card) -> Any:
    """The network of this name with the weights of `file`, in evaluation mode, on the CPU.

    Raises ModelError where the file is not that network's, EngineUnavailableError without torch.
    """
    try:
        import torch

        network = _bare(name, len(card.classes))
    except ImportError as error:
        raise EngineUnavailableError(
            f"{name} as a torch module needs {error.name or 'torch'}, which is not installed; "
            "pip install 'streamseg[models]'"
        ) from None
    weights = read_weights(file)
    wanted = network.state_dict()
    for key, value in wanted.items():
        if key not in weights or weights[key].shape != tuple(value.shape):
            raise ModelError(f"{file} is not {name}'s network: {key} is missing or another's")
    network.load_state_dict({key: torch.from_numpy(weights[key]) for key in wanted})
    return network


def read_weights(file: Path) -> dict[str, NDArray[np.float32]]:
    """An ONNX file's floating-point weights by torch's names for them, in FP32.

    A convolution into which the exporter folded a batch norm has its bias under the name
    NAME.weight_bias, and weights that are kept in FP16 end in _half (engines/export.py).
    """
    from onnx import numpy_helper

    from engines.graph import read_onnx

    found = {}
    for tensor in read_onnx(file).graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype.kind == "f":
            name = tensor.name.removesuffix("_half").replace(".weight_bias", ".bias")
            found[name] = values.astype(np.float32)
    return found


def _bare(name: str, classes: int) -> Any:
    """The network as the file has it, its weights still at random."""
    if name == "voc":
        from engines.zoo.voc import Voc

        return Voc().eval()
    from engines.zoo.street import Street

    return fold_norms(Street(classes).eval())


def fold_norms(module: Any) -> Any:
    """Makes each convolution that a batch norm follows in a Sequential one convolution with a bias,
    as exporters do, in place and as deep as it goes; returns the module, which is in evaluation
    mode.
    """
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    if isinstance(module, nn.Sequential):
        for index in range(len(module) - 1):
            conv, norm = module[index], module[index + 1]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                module[index], module[index + 1] = fuse_conv_bn_eval(conv, norm), nn.Identity()
    for child in module.children():
        fold_norms(child)
    return module
