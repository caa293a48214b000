"""Checkpoints: a training's whole state in one file, written whole or not at all.

One is written after every epoch. Nothing random is in it, because every epoch's random numbers
follow from the seed and the epoch (tools/train/samples.py), so a training that is killed at any
moment goes on to the same curve.
"""

# mypy: disable-error-code="import-not-found, unused-ignore"

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn

from engines.cache import write_atomically
from engines.errors import one_line
from pipeline.sinks.destination import disk_errors
from tools.errors import TrainError
from tools.train.config import TrainConfig, differences

NAME = "checkpoint.pt"
_FORMAT = 1


@dataclass
class Checkpoint:
    """What a training is made of besides its config."""

    network: dict[str, Any]
    ema: dict[str, Any] | None
    optimizer: dict[str, Any]
    epoch: int
    """Epochs that are done."""
    step: int
    """Steps of the optimizer that are done."""
    best: dict[str, Any]
    """Weights of the best epoch so far; empty before the first validation."""
    best_epoch: int = 0
    best_miou: float = -1.0
    history: list[dict[str, float]] = field(default_factory=list)
    """A row for each epoch: what log.csv holds."""


def save_checkpoint(folder: Path, config: TrainConfig, checkpoint: Checkpoint) -> None:
    """Replaces the folder's checkpoint."""
    data = io.BytesIO()
    content = {"format": _FORMAT, "config": config.model_dump(mode="json"), **vars(checkpoint)}
    torch.save(content, data)
    with disk_errors(folder / NAME):
        write_atomically(folder / NAME, data.getvalue())


def start_weights(network: nn.Module, path: Path) -> None:
    """Puts the best weights of an earlier training's checkpoint into a network, in place; raises
    TrainError where there are none or they are of another network.
    """
    content = _read(path)
    best = content.get("best") if content.get("format") == _FORMAT else None
    if not best:
        raise TrainError(f"start: {path} is not a checkpoint of this version with a best epoch")
    wanted = network.state_dict()
    for name in [*wanted, *best]:
        if name not in best or name not in wanted or best[name].shape != wanted[name].shape:
            raise TrainError(f"start: {path} is of another network: {name} does not match")
    network.load_state_dict(best)


def load_checkpoint(folder: Path, config: TrainConfig) -> Checkpoint:
    """The folder's checkpoint; raises TrainError when there is none or it is of another config."""
    path = folder / NAME
    if not path.exists():
        raise TrainError(f"no checkpoint at {path}; leave out --resume to begin")
    content = _read(path)
    if content.pop("format", None) != _FORMAT:
        raise TrainError(f"{path} is not a checkpoint of this version")
    try:
        before = TrainConfig.model_validate(content.pop("config"))
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise TrainError(f"{path} has a config that is not understood: {where}") from None
    if changed := differences(config, before):
        raise TrainError(
            f"{path} is of a training with other values of {', '.join(changed)}; change them back, "
            "or begin anew in another --out"
        )
    return Checkpoint(**content)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise TrainError(f"no checkpoint at {path}") from None
    except Exception as error:  # zipfile's, pickle's and torch's errors share no base
        raise TrainError(f"{path} cannot be read: {one_line(error)}") from None
    return content if isinstance(content, dict) else {}
