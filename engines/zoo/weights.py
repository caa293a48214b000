"""Files of torch weights: into whole networks, and of classifiers into their encoders."""

# mypy: disable-error-code="import-not-found, unused-ignore"

from __future__ import annotations

from pathlib import Path
from typing import Any

from engines.errors import ModelError, one_line

# What comes after an encoder in files of whole classifiers: torchvision's, timm's, and the
# EfficientNet ports' names.
_HEADS = ("classifier.", "fc.", "_fc.", "head.", "last_linear.")


# What training wraps around a network leaves before its tensors' names: Lightning, torch.compile,
# DataParallel.
_PREFIXES = ("", "model.", "module.", "_orig_mod.", "model._orig_mod.", "module.model.")
# Heads that only training uses: torchvision's, SMP's.
_TRAINING_ONLY = ("aux_", "classification_head.")


def read_state(path: Path) -> dict[str, Any]:
    """The tensors of a file that torch saved, by name: a state dict, or a dict that has one under
    `state_dict`. Raises ModelError.
    """
    import torch

    if not path.is_file():
        raise ModelError(f"no weights at {path}")
    try:
        # weights_only: a pickle from somewhere must not run code.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zipfile's, pickle's and torch's errors share no base
        raise ModelError(f"{path} is not a file of torch weights: {one_line(error)}") from None
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()
    ):
        raise ModelError(f"{path} holds no state dict; save one with torch.save(net.state_dict())")
    return state


def network_state(path: Path, head: str) -> dict[str, Any]:
    """A whole network's tensors by the names that its library has for them, without heads that only
    training uses. `head` is what the names of the last layers begin with. Raises ModelError.
    """
    state = read_state(path)
    marks = (p for p in _PREFIXES if any(name.startswith(p + head) for name in state))
    prefix = next(marks, "")
    own = {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}
    return {name: value for name, value in own.items() if not name.startswith(_TRAINING_ONLY)}


def count_classes(path: Path, head: str) -> int:
    """The number of classes that a network's weights are for, from its last layer. `head` as for
    `network_state`. Raises ModelError where there is no such layer.
    """
    last = [v for n, v in network_state(path, head).items() if n.startswith(head) and v.ndim == 4]
    if not last:
        raise ModelError(f"{path} has no layer {head}*; it is not of this network")
    return int(last[-1].shape[0])


def load_network(network: Any, path: Path, head: str, name: str) -> None:
    """Puts a file's weights into a whole network called `name`, in place. `head` as for
    `network_state`. Raises ModelError with the first tensor that does not match.
    """
    import torch

    state = network_state(path, head)
    wanted = network.state_dict()
    # Only training counts its steps there.
    missing = (k for k in wanted if k not in state and not k.endswith("num_batches_tracked"))
    unknown = (key for key in state if key not in wanted)
    for keys, fault in ((missing, "missing"), (unknown, "unknown")):
        if (key := next(keys, None)) is not None:
            raise ModelError(f"{path} is not for {name}: {key} is {fault}")
    for key, value in wanted.items():
        if key in state and state[key].shape != value.shape:
            theirs, ours = tuple(state[key].shape), tuple(value.shape)
            fault = f"size mismatch, {key} is {theirs} and not {ours}"
            raise ModelError(f"{path} is not for {name}: {fault}")
    # SMP's own load_state_dict drops what does not fit; the module's does not.
    torch.nn.Module.load_state_dict(network, state, strict=False)


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
