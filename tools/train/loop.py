"""The training itself: epochs, steps, validation, checkpoints."""

# mypy: disable-error-code="import-not-found, unused-ignore"

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tools.data.survey import Pictures
from tools.errors import TrainError
from tools.evaluate.metrics import scores
from tools.train.checkpoint import Checkpoint, save_checkpoint
from tools.train.config import TrainConfig
from tools.train.network import Ema, Normalize, card_input, enlarge, make_optimizer, rate
from tools.train.progress import Progress
from tools.train.ranks import Ranks
from tools.train.samples import Batches, Samples, make_loader, seed_of
from tools.train.validate import validate

Losses = Callable[[Tensor, Tensor], dict[str, Tensor]]
Row = dict[str, float]


@dataclass
class Parts:
    """What a training works with."""

    config: TrainConfig
    out: Path
    ranks: Ranks
    network: nn.Module
    """Float32 normalised pictures -> logits."""
    samples: Samples
    val: Pictures
    classes: tuple[str, ...]
    losses: Losses
    progress: Progress
    stop: Callable[[], bool]
    """Whether somebody wants the training to end now."""
    after_epoch: Callable[[list[Row]], None]
    """Gets all rows of the log so far; called by the first process only."""


class _StoppedError(Exception):
    """Somebody wants the training to end; the epoch that was under way is lost."""


def run_epochs(parts: Parts, start: Checkpoint | None) -> Checkpoint | None:
    """Trains from the beginning or from `start` to the last epoch; None when it was stopped.

    Raises TrainError where the loss is no number any more.
    """
    config, ranks, network = parts.config, parts.ranks, parts.network
    if start is not None:
        network.load_state_dict(start.network)
    memory = torch.channels_last if config.channels_last else torch.contiguous_format
    network.to(ranks.device, memory_format=memory)
    ema = Ema(network, config.ema) if config.ema is not None else None
    if start is not None and ema is not None and start.ema is not None:
        ema.network.load_state_dict(start.ema)
    optimizer = make_optimizer(config.optimizer, network)
    if start is not None:
        optimizer.load_state_dict(start.optimizer)
    normalize = Normalize(card_input(config.input)).to(ranks.device)
    batches = Batches(
        len(parts.samples.pictures), config.batch, config.seed, ranks.rank, ranks.count
    )
    steps = len(batches) // config.accumulate
    if not steps:
        need = config.batch * config.accumulate * ranks.count
        raise TrainError(
            f"a step needs {need} pictures (batch {config.batch} x accumulate {config.accumulate} "
            f"x {ranks.count} processes), and there are {batches.count}; lower batch"
        )
    loader = make_loader(parts.samples, batches, config.data.workers, ranks.device)
    model = nn.Sequential(normalize, ranks.wrap(network))
    measured = nn.Sequential(normalize, ema.network if ema is not None else network)
    state = start or Checkpoint({}, None, {}, 0, 0, {})
    parts.progress.begin(state.epoch, config.epochs, steps, len(parts.val))
    try:
        for epoch in range(state.epoch + 1, config.epochs + 1):
            began = time.perf_counter()
            batches.epoch = epoch
            # Dropout and the like: each epoch's numbers follow from the seed, so there is no
            # generator's state to keep.
            torch.manual_seed(seed_of(config.seed, "network", epoch, ranks.rank))
            row: Row = {"epoch": epoch, "step": epoch * steps}
            row |= _train(parts, model, optimizer, ema, loader, epoch, steps)
            state.epoch, state.step = epoch, epoch * steps
            if epoch % config.validate_every == 0 or epoch == config.epochs:
                measured.eval()
                row |= _validate(parts, measured)
                if row["val_miou"] > state.best_miou:
                    state.best_miou, state.best_epoch = row["val_miou"], epoch
                    chosen = ema.network if ema is not None else network
                    state.best = {k: v.cpu().clone() for k, v in chosen.state_dict().items()}
            row["seconds"] = time.perf_counter() - began
            state.history.append(row)
            state.network, state.optimizer = network.state_dict(), optimizer.state_dict()
            state.ema = ema.network.state_dict() if ema is not None else None
            if ranks.first:
                save_checkpoint(parts.out, config, state)
                parts.after_epoch(state.history)
                parts.progress.epoch_done(row)
    except _StoppedError:
        return None
    finally:
        parts.progress.end()
    return state


def _train(
    parts: Parts,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    ema: Ema | None,
    loader: Any,
    epoch: int,
    steps: int,
) -> Row:
    """One epoch; the row's training columns, means over its steps and all processes."""
    config, ranks = parts.config, parts.ranks
    model.train()
    sums: dict[str, Tensor] = {}
    batches = iter(loader)
    factor = 0.0
    for step in range(steps):
        number = (epoch - 1) * steps + step
        factor = rate(config.schedule, number, config.epochs * steps, steps)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        for part in range(config.accumulate):
            images, truth = next(batches)
            images = images.to(ranks.device, non_blocking=True)
            if config.channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            truth = truth.to(ranks.device, non_blocking=True).long()
            with ExitStack() as stack:
                if ranks.count > 1 and part < config.accumulate - 1:
                    stack.enter_context(model[1].no_sync())  # gradients meet at the last part
                with torch.autocast(
                    ranks.device.type, torch.bfloat16, enabled=config.precision == "bf16"
                ):
                    logits = model(images)
                losses = parts.losses(enlarge(logits.float(), truth.shape[1:]), truth)
                (losses["total"] / config.accumulate).backward()
            for kind, value in losses.items():
                sums[kind] = sums.get(kind, 0) + value.detach().double()
        if config.clip_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if ema is not None:
            ema.update(number)
        parts.progress.step(sums["total"], step + 1, (step + 1) * config.accumulate)
        _check_stop(parts)
    row: Row = {"lr": config.optimizer.lr * factor}
    for kind, value in sums.items():
        mean = float(ranks.add(value.cpu())) / (steps * config.accumulate * ranks.count)
        row["train_loss" if kind == "total" else f"train_{kind}"] = mean
    if not math.isfinite(row["train_loss"]):
        raise TrainError(
            f"the loss is {row['train_loss']} in epoch {epoch}; lower optimizer.lr, lengthen "
            "schedule.warmup_epochs, set clip_norm, or take precision fp32"
        )
    return row


def _validate(parts: Parts, measured: nn.Module) -> Row:
    """The row's validation columns."""

    def tick() -> None:
        parts.progress.validated()
        if parts.ranks.count == 1:
            _check_stop(parts)

    counted, loss = validate(
        measured,
        parts.val,
        card_input(parts.config.input),
        len(parts.classes),
        parts.losses,
        parts.ranks,
        tick,
    )
    found = scores(counted.counts)
    row = {
        "val_loss": loss,
        "val_miou": found.miou,
        "val_mean_accuracy": found.mean_accuracy,
        "val_pixel_accuracy": found.pixel_accuracy,
    }
    return row | {
        f"val_iou_{name}": float(iou) for name, iou in zip(parts.classes, found.iou, strict=True)
    }


def _check_stop(parts: Parts) -> None:
    """Raises _StoppedError if any process was asked to stop.

    All end at the same step, or the others would wait for gradients that never come.
    """
    if parts.ranks.add(torch.tensor(int(parts.stop()))):
        raise _StoppedError
