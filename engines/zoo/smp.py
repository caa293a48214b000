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
from engines.zoo.weights import load_encoder

ARCHITECTURES = (
    "Unet", "UnetPlusPlus", "PSPNet", "DeepLabV3", "DeepLabV3Plus", "FPN", "Linknet", "PAN",
    "MAnet", "UPerNet", "Segformer", "DPT",
)  # fmt: skip


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


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
