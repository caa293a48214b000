"""Networks of segmentation-models-pytorch (SMP): any of its decoders on any of its encoders.

    network = make_smp("DeepLabV3Plus", "mobilenet_v2", 11, Path("mobilenet_v2-b0353104.pth"))

Needs torch and segmentation-models-pytorch, and only when a function is called.
"""

# mypy: disable-error-code="import-not-found, import-untyped, unused-ignore"

from __future__ import annotations

from difflib import get_close_matches
from inspect import signature
from pathlib import Path
from typing import Any, Literal

from engines.errors import ModelError

ARCHITECTURES = (
    "Unet", "UnetPlusPlus", "PSPNet", "DeepLabV3", "DeepLabV3Plus", "FPN", "Linknet", "PAN",
    "MAnet", "UPerNet", "Segformer", "DPT",
)  # fmt: skip

# What comes after an encoder in files of whole classifiers: torchvision's, timm's, and the
# EfficientNet ports' names.
_HEADS = ("classifier.", "fc.", "_fc.", "head.", "last_linear.")


def make_smp(
    architecture: str,
    encoder: str,
    classes: int,
    encoder_weights: Path | Literal["imagenet"] | None = None,
    **options: Any,
) -> Any:
    """A torch.nn.Module, (N, 3, H, W) float32 normalised RGB -> (N, classes, H, W) float32 logits.

    architecture: one of ARCHITECTURES, in any case.
    encoder: a name of SMP's, or `tu-` and a name of timm's.
    encoder_weights: a file of the encoder's weights, "imagenet" to download SMP's own, or None to
        begin at random.
    options: of the architecture and the encoder, for example decoder_channels=128.

    H and W are multiples of the encoder's stride, mostly 32. Raises ModelError, naming what is
    wrong and what is allowed.
    """
    try:
        import segmentation_models_pytorch as smp
    except ModuleNotFoundError as error:
        raise ModelError(f"{error.name} is missing; pip install 'streamseg[models]'") from None
    known = {name.lower(): name for name in ARCHITECTURES}
    if architecture.lower() not in known:
        raise ModelError(
            f"architecture {architecture!r} is unknown; allowed: {', '.join(ARCHITECTURES)}"
        )
    name = known[architecture.lower()]
    if not encoder.startswith("tu-") and encoder not in smp.encoders.get_encoder_names():
        near = get_close_matches(encoder, smp.encoders.get_encoder_names(), n=3)
        hint = f"near it: {', '.join(near)}" if near else "for example resnet18, mobilenet_v2"
        raise ModelError(f"encoder {encoder!r} is unknown; {hint}, or tu- and a name of timm's")
    _check_options(getattr(smp, name), encoder, options)
    local = isinstance(encoder_weights, Path)
    try:
        network = getattr(smp, name)(
            encoder, encoder_weights=None if local else encoder_weights, classes=classes, **options
        )
    except Exception as error:  # SMP's, timm's and the hub's share no base
        raise ModelError(f"{name} on {encoder} cannot be made: {_line(error)}") from None
    if isinstance(encoder_weights, Path):
        load_encoder(network.encoder, encoder_weights)
    return network


def _check_options(architecture: Any, encoder: str, options: dict[str, Any]) -> None:
    """SMP hands what it does not know to the encoder, and its own encoders drop it: a misspelt
    option would pass for a default. timm's refuse it themselves.
    """
    ours = {"encoder_name", "encoder_weights", "classes", "in_channels", "activation", "aux_params"}
    allowed = [n for n in signature(architecture).parameters if n not in {*ours, "kwargs"}]
    strict = not encoder.startswith("tu-")
    wrong = [n for n in options if n in ours or (strict and n not in allowed)]
    if wrong:
        raise ModelError(
            f"{architecture.__name__} on {encoder} has no option {', '.join(wrong)}; "
            f"allowed: {', '.join(allowed)}"
        )


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
