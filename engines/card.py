"""Model cards: what a network takes and what its classes mean, in YAML beside its ONNX.

Preprocessing constants and class names travel with the weights, so no code that runs a network
knows them. `configs/models/card.yaml` is a card with every key explained.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from engines import palette as palettes
from engines.errors import CardError

Color = Literal["rgb", "bgr", "gray"]
Layout = Literal["nchw", "nhwc"]

# ITU-R BT.601 luma weights of R, G and B: what "gray" means to OpenCV and PIL, and so to the
# networks that were trained on pictures that they read.
LUMA = (0.299, 0.587, 0.114)


class _Strict(BaseModel):
    # A misspelt key must be an error that names it, never a silent default.
    # YAML's .nan passes every comparison, and normalising by it would make every score nan.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class CardInput(_Strict):
    """What the network takes. `mean` and `std` are on the 0..1 scale, in the order of `color`:
    value = (pixel / 255 - mean) / std, as torchvision has it.
    """

    height: int = Field(ge=1, le=16384)
    width: int = Field(ge=1, le=16384)
    mean: tuple[float, ...]
    std: tuple[float, ...]
    color: Color
    sampling: Literal["bilinear", "area"] = "bilinear"
    aspect: Literal["stretch", "keep"] = "stretch"
    layout: Layout = "nchw"

    @property
    def channels(self) -> int:
        """1 for gray, else 3."""
        return 1 if self.color == "gray" else 3

    @model_validator(mode="after")
    def _lengths(self) -> CardInput:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.channels:
                raise ValueError(
                    f"{name} has {len(values)} values; color {self.color} needs {self.channels}"
                )
        if any(value <= 0 for value in self.std):
            raise ValueError("std must be above 0")
        return self


class CardOutput(_Strict):
    """Which output carries the classes; without a name, the first one. One channel means two
    classes told apart by a threshold: a logit above 0 is class 1.
    """

    name: str | None = None
    layout: Layout = "nchw"


class Card(_Strict):
    """One model's card. Ids are positions in `classes`; at most 256, because labels are uint8."""

    name: str = Field(min_length=1)
    description: str = ""
    input: CardInput
    output: CardOutput = CardOutput()
    classes: tuple[str, ...] = Field(min_length=2, max_length=256)
    palette: str | tuple[tuple[int, ...], ...] = "voc"
    license: str = "not stated"
    source: str = "not stated"
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    int8: str | None = Field(default=None, pattern=r"^[\w.-]+\.onnx$")
    """The same network in INT8: a file beside this one, with a card of its own."""
    metrics: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Card:
        twice = sorted({name for name in self.classes if self.classes.count(name) > 1})
        if twice:
            raise ValueError(f"classes names {', '.join(twice)} twice")
        try:
            palettes.colors(self.palette, len(self.classes))
        except CardError as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def is_int8(self) -> bool:
        """Whether the network is in INT8; engines/quantize.py writes it down."""
        return self.metrics.get("precision") == "int8"

    @property
    def background(self) -> int | None:
        """The id of the class called `background`, which an overlay leaves unpainted."""
        return self.classes.index("background") if "background" in self.classes else None

    @cached_property
    def colors(self) -> NDArray[np.uint8]:
        """uint8 (256, 3) RGB, black from the last class on."""
        return palettes.colors(self.palette, len(self.classes))

    def class_ids(self, names: list[str]) -> list[int]:
        """Ids of class names (or of ids written as numbers), raising CardError on an unknown."""
        ids = []
        for name in names:
            if name in self.classes:
                ids.append(self.classes.index(name))
            elif name.isdecimal() and int(name) < len(self.classes):
                ids.append(int(name))
            else:
                raise CardError(
                    f"class {name!r} is not one of {self.name}'s: {', '.join(self.classes)}"
                )
        return ids


def read_card(path: Path) -> Card:
    """The card in a YAML file; raises CardError naming file, key and what is allowed."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CardError(f"no card at {path}; {_NEEDED}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise CardError(f"card {path} cannot be read: {error}") from None
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise CardError(f"card {path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise CardError(f"card {path} holds no keys; {_NEEDED}")
    try:
        return Card.model_validate(data)
    except ValidationError as error:
        faults = "; ".join(_fault(e) for e in error.errors())
        raise CardError(f"card {path}: {faults}") from None


def _fault(error: Any) -> str:
    key = ".".join(map(str, error["loc"])) or "card"
    if error["type"] == "extra_forbidden":
        return f"{key}: there is no such key (configs/models/card.yaml explains all that there are)"
    return f"{key}: {error['msg'].removeprefix('Value error, ')}"


def check_sha256(card: Card, onnx_path: Path) -> None:
    """Raises CardError when the card names another file's bytes. A card without a sum passes."""
    if card.sha256 is None:
        return
    found = hashlib.sha256(onnx_path.read_bytes()).hexdigest()
    if found != card.sha256:
        raise CardError(
            f"card {card.name!r} is for a file with sha256 {card.sha256[:12]}..., but {onnx_path} "
            f"has {found[:12]}...; use the card made for it, or correct its sha256"
        )


_NEEDED = (
    "a card needs the keys name, input {height, width, mean, std, color} and classes "
    "(configs/models/card.yaml explains them)"
)
