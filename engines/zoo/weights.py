"""Weights of published classifiers into the encoders of segmentation networks."""

# mypy: disable-error-code="import-not-found, unused-ignore"

from __future__ import annotations

from pathlib import Path
from typing import Any

from engines.errors import ModelError

# What comes after an encoder in files of whole classifiers: torchvision's, timm's, and the
# EfficientNet ports' names.
_HEADS = ("classifier.", "fc.", "_fc.", "head.", "last_linear.")


def read_state(path: Path) -> dict[str, Any]:
    """The tensors of a file of weights by name; raises ModelError where it is none."""
    import torch

    try:
        # weights_only: a pickle from somewhere must not run code.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ModelError(f"no weights at {path}") from None
    except Exception as error:  # zipfile's, pickle's and torch's errors share no base
        raise ModelError(f"{path} is not a file of weights: {_line(error)}") from None
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(hasattr(v, "shape") for v in state.values()):
        raise ModelError(f"{path} is not a file of weights: it is not a dict of tensors")
    return state


def start_from(network: Any, state: dict[str, Any], where: str) -> None:
    """Puts into a network with a `backbone` what another training knew, in place.

    state: of the same network, whose head may be for other classes and then begins anew; or of the
    classifier that the backbone was made of. Raises ModelError, naming the first tensor of the
    backbone that is missing or does not match.
    """
    if not any(name.startswith("backbone.") for name in state):
        state = {f"backbone.{name}": value for name, value in state.items()}
    wanted = network.state_dict()
    fits = {n: v for n, v in state.items() if n in wanted and v.shape == wanted[n].shape}
    missing = [n for n in wanted if n.startswith("backbone.") and n not in fits]
    if missing:
        what = "has another shape" if missing[0] in state else "is missing"
        raise ModelError(f"{where}: {missing[0]} {what}; the weights are of another network")
    network.load_state_dict(fits, strict=False)


def load_encoder(encoder: Any, path: Path) -> None:
    """Puts a classifier's weights file into an encoder, in place.

    By name where the names are the encoder's own. Otherwise in order: torchvision, timm and SMP
    name the layers of one network differently but list them in the same order, and each tensor must
    have the same role (weight, bias, running_mean ...) and shape. The classifier at the file's end
    is left out. Raises ModelError, naming the first tensor that does not match.
    """
    import torch

    state = read_state(path)
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
