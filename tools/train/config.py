"""What a training is told to do; configs/train/example.yaml explains every key."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from tools.config import read_yaml
from tools.data.layouts import Layout

# ImageNet's mean and standard deviation, RGB on the 0..1 scale: what torchvision's, timm's and
# SMP's weights were trained with.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

EXAMPLE = "configs/train/example.yaml"


def _expand(value: Any) -> Any:
    """A path with its ${VARIABLES} filled in; one that is not set is an error that names it."""
    if not isinstance(value, str):
        return value
    text = os.path.expandvars(os.path.expanduser(value))
    if unset := re.search(r"\$\{?(\w+)\}?", text):
        raise ValueError(f"the environment variable {unset[1]} is not set")
    return text


ExpandedPath = Annotated[Path, BeforeValidator(_expand)]
Size = tuple[Annotated[int, Field(ge=1, le=16384)], Annotated[int, Field(ge=1, le=16384)]]
Share = Annotated[float, Field(ge=0, le=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataConfig(_Strict):
    """Where the labelled pictures are."""

    layout: Layout
    root: ExpandedPath
    train: str | None = "train"
    val: str | Annotated[float, Field(gt=0, lt=1)] = "val"
    classes: tuple[str, ...] | None = None
    void: tuple[Annotated[int, Field(ge=0, le=255)], ...] | None = None
    cache: bool = True
    workers: int | None = Field(default=None, ge=0, le=64)


class SmpConfig(_Strict):
    """A network of segmentation-models-pytorch."""

    library: Literal["smp"]
    architecture: str
    encoder: str
    weights: ExpandedPath | Literal["imagenet"] | None = None
    options: dict[str, Any] = Field(default_factory=dict)

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.architecture} on {self.encoder}"


class TorchvisionConfig(_Strict):
    """A segmentation network of torchvision's."""

    library: Literal["torchvision"]
    architecture: str
    weights: ExpandedPath | Literal["official"] | None = None

    @property
    def title(self) -> str:
        """For people."""
        return f"torchvision's {self.architecture}"


class StreetConfig(_Strict):
    """Our own light network, engines/zoo/street.py."""

    library: Literal["street"]
    weights: ExpandedPath | None = None

    @property
    def title(self) -> str:
        """For people."""
        return "Street on mobilenet_v2"


NetworkConfig = Annotated[
    SmpConfig | TorchvisionConfig | StreetConfig, Field(discriminator="library")
]


class InputConfig(_Strict):
    """What the network takes; it goes into the card as it stands."""

    size: Size
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    sampling: Literal["bilinear", "area"] = "bilinear"
    aspect: Literal["stretch", "keep"] = "stretch"


class AugmentConfig(_Strict):
    """How training pictures are varied."""

    crop: Size | None = None
    scale: tuple[float, float] = (0.5, 2.0)
    focus: tuple[str, ...] = ()
    flip: Share = 0.5
    rotate: float = Field(default=0.0, ge=0, le=180)
    brightness: Share = 0.25
    contrast: Share = 0.25
    saturation: Share = 0.25
    hue: float = Field(default=0.0, ge=0, le=0.5)
    blur: Share = 0.0

    @model_validator(mode="after")
    def _range(self) -> AugmentConfig:
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale is {list(self.scale)}; it must be [lowest, highest] above 0")
        return self


class _Loss(_Strict):
    weight: float = Field(default=1.0, gt=0)


class CrossEntropyConfig(_Loss):
    kind: Literal["cross_entropy"]
    class_weights: Literal["balanced"] | tuple[Annotated[float, Field(ge=0)], ...] | None = None
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)


class FocalConfig(_Loss):
    kind: Literal["focal"]
    class_weights: Literal["balanced"] | tuple[Annotated[float, Field(ge=0)], ...] | None = None
    gamma: float = Field(default=2.0, ge=0)


class DiceConfig(_Loss):
    kind: Literal["dice"]


class LovaszConfig(_Loss):
    kind: Literal["lovasz"]
    stride: int = Field(default=1, ge=1, le=16)


LossConfig = Annotated[
    CrossEntropyConfig | FocalConfig | DiceConfig | LovaszConfig, Field(discriminator="kind")
]


class _Optimizer(_Strict):
    lr: float = Field(gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    encoder_lr_factor: float = Field(default=1.0, ge=0)


class AdamWConfig(_Optimizer):
    kind: Literal["adamw"]
    betas: tuple[Share, Share] = (0.9, 0.999)


class SgdConfig(_Optimizer):
    kind: Literal["sgd"]
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = False


OptimizerConfig = Annotated[AdamWConfig | SgdConfig, Field(discriminator="kind")]


class ScheduleConfig(_Strict):
    """How the learning rate goes over the whole training."""

    kind: Literal["poly", "cosine"] = "poly"
    warmup_epochs: float = Field(default=1.0, ge=0)
    power: float = Field(default=0.9, gt=0)
    floor: Share = 0.0


class ExportConfig(_Strict):
    """The ONNX file at the end."""

    weights: Literal["fp32", "fp16"] = "fp32"
    license: str = "not stated"
    source: str = "not stated"
    description: str = ""


class TrainConfig(_Strict):
    """The keys of a training's YAML file."""

    name: str = Field(pattern=r"^[\w.-]+$")
    data: DataConfig
    network: NetworkConfig
    start: ExpandedPath | None = None
    input: InputConfig
    augment: AugmentConfig = AugmentConfig()
    losses: tuple[LossConfig, ...] = Field(min_length=1)
    optimizer: OptimizerConfig
    schedule: ScheduleConfig = ScheduleConfig()
    epochs: int = Field(ge=1)
    batch: int = Field(ge=1)
    accumulate: int = Field(default=1, ge=1)
    ema: float | None = Field(default=None, gt=0, lt=1)
    clip_norm: float | None = Field(default=None, gt=0)
    precision: Literal["fp32", "bf16"] = "fp32"
    channels_last: bool = True
    validate_every: int = Field(default=1, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**31)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    tensorboard: bool = False
    export: ExportConfig = ExportConfig()

    @model_validator(mode="after")
    def _once(self) -> TrainConfig:
        kinds = [loss.kind for loss in self.losses]
        if len(set(kinds)) < len(kinds):
            raise ValueError("losses names a kind twice; add up their weights")
        return self


# What says where and how fast, and not what is learned: a training may go on with others.
_MAY_CHANGE = (
    ("data", "root"), ("data", "cache"), ("data", "workers"), ("device",), ("tensorboard",),
    ("export",),
)  # fmt: skip


def read_config(path: Path) -> TrainConfig:
    """A training's file; raises typer.BadParameter (exit code 2) naming file, key and the fix."""
    values = read_yaml(path)
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        faults = "; ".join(_fault(e) for e in error.errors())
        raise typer.BadParameter(f"{path}: {faults}") from None


def differences(ours: TrainConfig, theirs: TrainConfig) -> list[str]:
    """The keys, as `a.b`, in which two trainings differ so that one cannot go on as the other."""

    def flat(value: Any, at: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
        if not isinstance(value, dict) or at == ("network", "options"):
            return {at: value}
        return {k: v for name, part in value.items() for k, v in flat(part, (*at, name)).items()}

    one, two = flat(ours.model_dump(mode="json")), flat(theirs.model_dump(mode="json"))
    keys = [k for k in {**one, **two} if one.get(k) != two.get(k)]
    return [".".join(k) for k in keys if not any(k[: len(m)] == m for m in _MAY_CHANGE)]


def _fault(error: Any) -> str:
    # The name of a union's member stands in the location; no such key is in the file.
    tags = {"smp", "torchvision", "street", "cross_entropy", "focal", "dice", "lovasz"}
    tags |= {"adamw", "sgd"}
    key = ".".join(str(part) for part in error["loc"] if part not in tags) or "config"
    if error["type"] == "extra_forbidden":
        return f"{key}: there is no such key ({EXAMPLE} explains all that there are)"
    message = str(error["msg"]).removeprefix("Value error, ").replace("Input should", "should")
    if error["type"] in ("missing", "value_error") or "tag" in error["type"]:
        return f"{key}: {message}"
    return f"{key}: {message}, got {error['input']!r}"
