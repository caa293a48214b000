"""What is measured: every combination of what the command line names."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from engines.choose import ENGINES, PRECISIONS
from engines.model import Model, find_model
from engines.zoo.named import is_named
from tools.config import size_option

Size = tuple[int, int]

PARTS = ("engine", "synthetic", "file", "live", "peak")
"""What can be measured of a combination; `--only` names some."""

# More pictures than any device has memory for.
_LARGEST_BATCH = 1024
_RATES = (1.0, 1000.0)


@dataclass(frozen=True)
class Case:
    """One combination, as asked for."""

    model: str
    size: Size | None
    """(H, W) of the network's input; None is the card's own."""
    batch: int
    engine: str
    precision: str

    def __str__(self) -> str:
        size = "" if self.size is None else f" {self.size[0]}x{self.size[1]}"
        return f"{Path(self.model).stem}{size}, batch {self.batch}, {self.engine} {self.precision}"


def make_cases(
    models: Sequence[str],
    sizes: Sequence[str],
    batches: Sequence[str],
    engines: Sequence[str],
    precisions: Sequence[str],
) -> list[Case]:
    """Every combination once, the first model's first. What is repeatable may be split by commas.

    Raises typer.BadParameter for a value that no combination could have.
    """
    named: list[list[Any]] = [
        split(models) or ["voc"],
        [size_option(text) for text in split(sizes)] or [None],
        [parse_batch(text) for text in split(batches)] or [1],
        [_one_of("--engine", e, ("auto", *ENGINES)) for e in split(engines)] or ["auto"],
        [_one_of("--precision", p, PRECISIONS) for p in split(precisions)] or ["auto"],
    ]
    unique = [list(dict.fromkeys(values)) for values in named]
    return [Case(*values) for values in itertools.product(*unique)]


def split(values: Sequence[str]) -> list[str]:
    """`["a,b", "c"]` -> `["a", "b", "c"]`."""
    return [part.strip() for value in values for part in value.split(",") if part.strip()]


def parse_batch(text: str) -> int:
    """A whole number of pictures."""
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= _LARGEST_BATCH:
        raise typer.BadParameter(
            f"--batch is a number of pictures, 1 to {_LARGEST_BATCH}, not {text!r}"
        )
    return int(text)


def parse_rates(values: Sequence[str]) -> list[float]:
    """Frames a second, each once, ascending."""
    rates = set()
    for text in split(values):
        try:
            rate = float(text)
        except ValueError:
            rate = 0.0
        if not _RATES[0] <= rate <= _RATES[1]:  # nan too
            raise typer.BadParameter(
                f"--rates are frames a second, {_RATES[0]:g} to {_RATES[1]:g}, not {text!r}"
            )
        rates.add(rate)
    return sorted(rates)


def parse_parts(values: Sequence[str]) -> list[str]:
    """What is measured, in the order of PARTS; all of it if nothing is named."""
    named = [_one_of("--only", part, PARTS) for part in split(values)]
    return [part for part in PARTS if part in named or not named]


def _one_of(option: str, value: str, allowed: Sequence[str]) -> str:
    if value not in allowed:
        raise typer.BadParameter(f"{option} is one of {', '.join(allowed)}, not {value!r}")
    return value


def model_of(case: Case, card: Path | None, weights: str | None) -> Model:
    """The case's network with a card of the case's size; `weights` are a library's network's.

    Whether the network works at that size shows when an engine loads it. Raises EngineError.
    """
    # A sweep may name networks that have weights of their own beside such that have not.
    given = weights if is_named(case.model) else None
    exported = case.engine != "torch"
    return find_model(case.model, card, weights=given, size=case.size, export=exported)
