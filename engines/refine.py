"""`--refine`: what it may be, and what it makes of a card.

    none      the class of the highest score, scores interpolated
    guided    scores interpolated under the picture: joint bilateral upsampling
    crf       the same after mean-field inference of a conditional random field

Both work on a grid of cells, `stride` of the network's pixels wide, and answer at `scale` times the
network's size; engines/refine_graph.py puts them into the network's graph. docs/refine.md says what
each parameter does and what it costs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engines.card import Card
from engines.errors import RefineError

NONE = "none"


class Guided(BaseModel):
    """Joint bilateral upsampling: scores go from the cells to the picture's pixels, each pixel
    taking from the cells around it that have its colour (Kopf et al. 2007).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    method: Literal["guided", "crf"] = "guided"
    scale: Literal[1, 2, 3, 4] = 1
    """The picture's size, and the labels', in the network's."""
    stride: Literal[2, 4, 8] = 4
    """A cell's width in the network's pixels. Most networks know no more than every fourth."""
    edge: float = Field(default=5.0, gt=0, le=1000)
    """Standard deviation of a colour's difference, levels of 255, summed over R, G and B."""

    def __str__(self) -> str:
        """The method and every parameter, as `parse_refine` reads them."""
        values = ",".join(f"{k}={v:.12g}" for k, v in self.model_dump(exclude={"method"}).items())
        return f"{self.method}:{values}"


class Crf(Guided):
    """Mean-field inference of a CRF with a Gaussian and a bilateral kernel, each between a cell and
    the (2 reach + 1)^2 - 1 others around it.

    Kernels and method: Kraehenbuehl and Koltun, "Efficient inference in fully connected CRFs with
    Gaussian edge potentials", NIPS 2011, equation 3; DeepLab (arXiv 1412.7062) brought them to
    networks, with ten iterations. A window instead of the whole picture, and fewer iterations:
    ConvCRF (arXiv 1805.04777). Weights and widths are not theirs, because here they reach over a
    few cells and not over the picture; docs/refine.md says how they were chosen.
    """

    method: Literal["guided", "crf"] = "crf"
    iterations: int = Field(default=3, ge=1, le=20)
    reach: int = Field(default=2, ge=1, le=5)
    """Cells, in each direction."""
    dilation: int = Field(default=1, ge=1, le=8)
    """Only every so-manieth cell of a window as much wider."""
    bilateral: float = Field(default=5.0, ge=0, le=1000)
    """The bilateral (appearance) kernel's weight; its widths are the next two."""
    xy: float = Field(default=40.0, gt=0, le=10000)
    """Pixels of the network's input, theta alpha."""
    rgb: float = Field(default=5.0, gt=0, le=1000)
    """Levels of 255, theta beta."""
    gaussian: float = Field(default=0.3, ge=0, le=1000)
    """The Gaussian (smoothness) kernel's weight; its width is the next one."""
    smooth: float = Field(default=4.0, gt=0, le=10000)
    """Pixels of the network's input, theta gamma."""


Refine = Guided
"""Either of the two."""

_KINDS: dict[str, type[Guided]] = {"guided": Guided, "crf": Crf}


def parse_refine(text: str) -> Refine | None:
    """`none`, `guided` or `crf`, the latter two perhaps with parameters: `crf:iterations=3,rgb=8`.

    None stands for none. Raises RefineError, one line that says what is allowed.
    """
    name, colon, rest = text.partition(":")
    name = name.strip()
    if name == NONE and not colon:
        return None
    if name not in _KINDS:
        raise RefineError(
            f"refine {text!r} is unknown; allowed: none, {', '.join(_KINDS)}, and parameters "
            "behind a colon, such as crf:iterations=3,rgb=8"
        )
    kind = _KINDS[name]
    values: dict[str, Any] = {}
    for part in rest.split(",") if colon else ():
        key, equals, value = (word.strip() for word in part.partition("="))
        allowed = [k for k in kind.model_fields if k != "method"]
        if not equals or key not in allowed or key in values:
            raise RefineError(
                f"refine {text!r}: {part!r} is not KEY=NUMBER, each once, with one of the keys "
                f"{', '.join(allowed)}"
            )
        values[key] = _number(value)
    try:
        return kind(**values)
    except ValidationError as error:
        fault = error.errors()[0]
        message = str(fault["msg"]).replace("Input should", "should")
        raise RefineError(
            f"refine {text!r}: {fault['loc'][0]} {message}, got {fault['input']!r}"
        ) from None


def _number(text: str) -> float | int | str:
    """As pydantic's literals want them: an integer is no text."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def describe(refine: Refine | None) -> str:
    """What `parse_refine` reads, with every parameter; `none`."""
    return NONE if refine is None else str(refine)


@dataclass(frozen=True)
class Grid:
    """The sizes between which scores go, for one network."""

    height: int
    """Cells."""
    width: int
    """Cells."""
    block: int
    """Pixels of the picture on a cell's side; even."""

    @property
    def picture(self) -> tuple[int, int]:
        """(H, W) of the picture and the labels."""
        return self.height * self.block, self.width * self.block


def grid_of(card: Card, refine: Refine) -> Grid:
    """The cells of a network with this card; the last ones may reach beyond its input."""
    rows, columns = (-(-n // refine.stride) for n in (card.input.height, card.input.width))
    return Grid(rows, columns, refine.stride * refine.scale)


def refined_card(card: Card, refine: Refine | None) -> Card:
    """The card of the refined engine: what it takes is larger than what the network does, `scale`
    times and up to whole cells. Raises RefineError where that is too large.
    """
    if refine is None:
        return card
    height, width = grid_of(card, refine).picture
    if max(height, width) > _MOST:
        raise RefineError(
            f"{refine.method} at scale {refine.scale} makes {height}x{width} of {card.name}'s "
            f"input; at most {_MOST} pixels a side are allowed: lower the scale"
        )
    size = {"height": height, "width": width}
    return card.model_copy(update={"input": card.input.model_copy(update=size)})


# What a card may say (engines/card.py); model_copy does not look.
_MOST = 16384
