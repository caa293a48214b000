"""Networks of segmentation-models-pytorch (SMP): any of its decoders on any of its encoders.

    network = make_smp("DeepLabV3Plus", "mobilenet_v2", 11, Path("mobilenet_v2-b0353104.pth"))
    network = make_whole("unet/resnet34", 11, "trained.pth", (512, 512))

SMP has weights of encoders only, so whole networks get theirs from a training, or at random.
Needs torch and segmentation-models-pytorch, and only when a function is called.
"""

# mypy: disable-error-code="import-not-found, import-untyped, unused-ignore"

from __future__ import annotations

from copy import deepcopy
from difflib import get_close_matches
from inspect import signature
from pathlib import Path
from typing import Any, Literal

from engines.card import Card, CardInput
from engines.errors import ModelError, one_line
from engines.zoo.weights import load_encoder, load_network

ARCHITECTURES = (
    "Unet", "UnetPlusPlus", "PSPNet", "DeepLabV3", "DeepLabV3Plus", "FPN", "Linknet", "PAN",
    "MAnet", "UPerNet", "Segformer", "DPT",
)  # fmt: skip
# What the names of the last layers begin with.
HEAD = "segmentation_head."
# ImageNet's mean and standard deviation, RGB on the 0..1 scale: what `streamseg train` takes by
# itself. A card says where a network was trained otherwise.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Where neither --size nor a card says: a multiple of every stride.
SIZE = (512, 512)
# As for torchvision's.
SEED = 20


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
        raise ModelError(f"{name} on {encoder} cannot be made: {one_line(error)}") from None
    if isinstance(encoder_weights, Path):
        load_encoder(network.encoder, encoder_weights)
    return network


def split_name(name: str) -> tuple[str, str] | None:
    """(architecture, encoder) of `unet/resnet34`, or None for anything else."""
    architecture, slash, encoder = name.partition("/")
    known = {each.lower(): each for each in ARCHITECTURES}
    if not slash or not encoder or "/" in encoder or architecture.lower() not in known:
        return None
    return known[architecture.lower()], encoder


def smp_card(name: str, size: tuple[int, int], weights: str, classes: tuple[str, ...]) -> Card:
    """The card of `unet/resnet34` at (H, W) pixels where the user gives none."""
    architecture, encoder = split_name(name) or ("", "")
    height, width = size
    return Card(
        name=name,
        description=f"segmentation-models-pytorch's {architecture} on {encoder}",
        input=CardInput(height=height, width=width, mean=MEAN, std=STD, color="rgb"),
        classes=classes,
        license="MIT (segmentation-models-pytorch); weights: not stated",
        source=f"segmentation_models_pytorch.{architecture}({encoder!r}), weights: {weights}",
        metrics={"weights": weights},
    )


def make_whole(name: str, classes: int, weights: str, size: tuple[int, int]) -> Any:
    """The network `unet/resnet34` with all its weights, in evaluation mode, for one size.

    (N, 3, H, W) float32 normalised RGB -> (N, classes, H, W) float32 logits.
    weights: `random` (seeded, for measuring speed), or the path of a state dict.
    size: (H, W) in pixels. Raises ModelError where weights or size do not suit the network.
    """
    try:
        import torch
    except ModuleNotFoundError:
        raise ModelError("torch is missing; pip install 'streamseg[models]'") from None

    architecture, encoder = split_name(name) or ("", "")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        network = make_smp(architecture, encoder, classes)
    if weights != "random":
        load_network(network, Path(weights), HEAD, name)
    network.eval()
    _fit_size(network, name, size)
    return network


def _fit_size(network: Any, name: str, size: tuple[int, int]) -> None:
    """Makes the network ready for pictures of (H, W); raises ModelError where it takes no such."""
    import torch

    height, width = size
    # U-Net takes any size, and says so.
    step = network.encoder.output_stride if network.requires_divisible_input_shape else 1
    if height % step or width % step:
        near = "x".join(str(max(step, round(length / step) * step)) for length in size)
        raise ModelError(
            f"{name} takes heights and widths that are multiples of {step}, not {height}x{width}; "
            f"near it: {near} (--size, or the card's input)"
        )
    # A vision transformer is made for one size; timm resamples what it learned for each place.
    resize = getattr(getattr(network.encoder, "model", None), "set_input_size", None)
    try:
        if resize is not None:
            resize(img_size=size)
        # On `meta` nothing is computed, only shapes.
        shape = deepcopy(network).to("meta")(torch.zeros(1, 3, height, width, device="meta")).shape
    except Exception as error:  # whatever a layer raises on a shape that it does not take
        raise ModelError(f"{name} does not take {height}x{width}: {one_line(error)}") from None
    if shape[2] > height or shape[3] > width:
        raise ModelError(f"{name} answers {height}x{width} with {shape[2]}x{shape[3]}")


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
