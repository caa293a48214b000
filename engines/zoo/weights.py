"""Weights of published classifiers into the encoders of segmentation networks."""

# mypy: disable-error-code="import-not-found, unused-ignore"

from __future__ import annotations

from pathlib import Path
from typing import Any

from engines.errors import ModelError

# What comes after an encoder in files of whole classifiers: torchvision's, timm's, and the
# EfficientNet ports' names.
_HEADS = ("classifier.", "fc.", "_fc.", "head.", "last_linear.")


def load_encoder(encoder: Any, path: Path) -> None:
    """Puts a classifier's weights file into an encoder, in place.

    By name where the names are the encoder's own. Otherwise in order: torchvision, timm and SMP
    name the layers of one network differently but list them in the same order, and each tensor must
    have the same role (weight, bias, running_mean ...) and shape. The classifier at the file's end
    is left out. Raises ModelError, naming the first tensor that does not match.
    """
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ModelError(f"no weights at {path}") from None
    except Exception as error:  # zipfile's, pickle's and torch's errors share no base
        raise ModelError(f"{path} is not a file of weights: {_line(error)}") from None
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(hasattr(v, "shape") for v in state.values()):
        raise ModelError(f"{path} is not a file of weights: it is not a dict of tensors")
    wanted = encoder.state_dict()
    if wanted.keys() <= state.keys():
        given = {name: state[name] for name in wanted}
    else:
        body = [(n, v) for n, v in state.items() if not n.startswith(_HEADS)]
        if len(body) < len(wanted):
            raise ModelError(
                f"{path} has {len(body)} tensors before its classifier, the encoder "
                f"{len(wanted)}; they are of different networks"
            )
        given = dict(zip(wanted, (value for _, value in body), strict=False))
        for (theirs, value), ours in zip(body, wanted, strict=False):
            if theirs.rpartition(".")[2] != ours.rpartition(".")[2]:
                raise ModelError(
                    f"{path}: {theirs} does not match the encoder's {ours}; they are of different "
                    "networks"
                )
            _check_shape(path, theirs, value, ours, wanted[ours])
    for name, value in given.items():
        _check_shape(path, name, value, name, wanted[name])
    # The encoders' own load_state_dict changes the dict's names; the module's does not.
    torch.nn.Module.load_state_dict(encoder, given)


def _check_shape(path: Path, theirs: str, value: Any, ours: str, wanted: Any) -> None:
    if value.shape != wanted.shape:
        raise ModelError(
            f"{path}: {theirs} is {tuple(value.shape)}, the encoder's {ours} is "
            f"{tuple(wanted.shape)}; they are of different networks"
        )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
