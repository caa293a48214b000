"""One training, from its config to the finished model."""

# mypy: disable-error-code="import-not-found, unused-ignore"

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path

import cv2
import torch
import yaml

from engines.card import CardInput
from pipeline.sinks.destination import disk_errors
from pipeline.sinks.images import write_whole
from tools.data.labelled import VOID, Dataset
from tools.data.layouts import open_dataset
from tools.data.split import share_out
from tools.data.survey import Pictures, Survey, histogram, require_sound, survey
from tools.errors import DataError, TrainError
from tools.interrupt import interruptible
from tools.plots import can_draw
from tools.train.augment import make_augmentation
from tools.train.checkpoint import NAME, Checkpoint, load_checkpoint, start_weights
from tools.train.config import DataConfig, TrainConfig
from tools.train.curves import draw_curves
from tools.train.export import export_best
from tools.train.log import Row, open_tensorboard, write_csv
from tools.train.loop import Parts, run_epochs
from tools.train.losses import balanced_weights, make_losses
from tools.train.network import card_input, check_batch, check_size, make_network
from tools.train.progress import Progress
from tools.train.ranks import Ranks, joined
from tools.train.samples import Samples, seed_of
from tools.train.sheet import draw_sheet

Say = Callable[[str], None]


def train(config: TrainConfig, out: Path, *, resume: bool, quiet: bool, say: Say) -> int:
    """Trains and returns the exit code; raises ToolError, EngineError or PipelineError."""
    cv2.setNumThreads(1)  # torch has the cores
    with joined(config.device) as ranks:
        note: Say = say if ranks.first else (lambda line: None)
        start = _start(config, out, resume)
        stopping = threading.Event()
        with interruptible(note) as interrupt:
            train_set, val_set = _open(config.data, config.seed)
            (seen, pictures), (_, val_pictures) = _read(config, train_set, val_set, note)
            # Only after the data is known to be sound, and before anything random.
            random.seed(config.seed)
            torch.manual_seed(seed_of(config.seed, "weights"))
            network = make_network(config.network, len(train_set.classes))
            if config.start is not None:
                start_weights(network, config.start)
            want = card_input(config.input)
            check_size(network, want.height, want.width, "input.size")
            crop = config.augment.crop or config.input.size
            check_size(network, *crop, "augment.crop")
            check_batch(network, config.batch, *crop)
            classes = len(train_set.classes)
            balanced = balanced_weights(seen.pixels[:classes], seen.around[:classes])
            augment = make_augmentation(config.augment, want, train_set.classes)
            parts = Parts(
                config=config,
                out=out,
                ranks=ranks,
                network=network,
                samples=Samples(pictures, augment, config.seed),
                val=val_pictures,
                classes=train_set.classes,
                losses=make_losses(config.losses, balanced, ranks.device),
                progress=Progress(note, quiet=quiet or not ranks.first),
                stop=stopping.is_set,
                after_epoch=_reporter(config, out, ranks, note),
            )
            _announce(parts, want, start, note)
            if ranks.first:
                draw_sheet(out / "samples.png", parts.samples)
            with interrupt.stopping(stopping.set):
                done = run_epochs(parts, start)
        if done is None:
            note(_stopped(out))
            return 130
        if ranks.first:
            path = export_best(config, out, network, done, train_set, val_pictures)
            note(f"best   epoch {done.best_epoch}, mIoU {done.best_miou:.4f}")
            note(f"wrote  {path} and {path.with_suffix('.yaml').name}")
    return 0


def _start(config: TrainConfig, out: Path, resume: bool) -> Checkpoint | None:
    """Where to go on, or None to begin; makes the folder."""
    if resume:
        return load_checkpoint(out, config)
    if (out / NAME).exists():
        raise TrainError(f"{out} holds a training already: --resume goes on, or name another --out")
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
        write_whole(out / "config.yaml", text.encode())
    return None


def _open(config: DataConfig, seed: int) -> tuple[Dataset, Dataset]:
    def opened(split: str | None) -> Dataset:
        return open_dataset(
            config.root, config.layout, split, classes=config.classes, void=config.void
        )

    whole = opened(config.train)
    if not whole.classes:
        raise DataError(
            f"{whole.title}: the classes have no names; list them under data.classes, or in "
            f"{config.root / 'classes.txt'}, one a line"
        )
    if isinstance(config.val, float):
        return share_out(whole, config.val)
    return whole, opened(config.val)


def _read(
    config: TrainConfig, train_set: Dataset, val_set: Dataset, note: Say
) -> list[tuple[Survey, Pictures]]:
    """Checks both splits; says what is in them."""
    results = []
    for name, dataset in (("train", train_set), ("val", val_set)):
        found, pictures = survey(dataset, keep=config.data.cache)
        require_sound(dataset, found, note)
        sizes = ", ".join(f"{w}x{h}" for h, w in list(found.sizes)[:3])
        more = " ..." if len(found.sizes) > 3 else ""
        kept = "in memory" if pictures.kept else "read from files"
        note(f"{name:<6} {dataset.title}: {len(pictures)} pairs, {sizes}{more}, {kept}")
        if name == "train":
            for line in histogram(dataset, found):
                note(f"       {line}")
            absent = [c for i, c in enumerate(dataset.classes) if not found.pixels[i]]
            if absent:
                note(f"warning: no picture shows {', '.join(absent)}; they cannot be learned")
        if not found.pixels[:VOID].any():
            raise DataError(f"{dataset.title}: every pixel is void; there is nothing to learn")
        results.append((found, pictures))
    return results


def _reporter(
    config: TrainConfig, out: Path, ranks: Ranks, note: Say
) -> Callable[[list[Row]], None]:
    """What happens with the log after each epoch."""
    board = None
    if config.tensorboard and ranks.first:
        board = open_tensorboard(out / "tensorboard")
    draws = can_draw()
    if not draws:
        note("note   no curves.png: it needs matplotlib (pip install 'streamseg[plots]')")

    def report(rows: list[Row]) -> None:
        write_csv(out / "log.csv", rows)
        if draws:
            draw_curves(out / "curves.png", rows)
        if board is not None:
            board(rows[-1])

    return report


def _announce(parts: Parts, want: CardInput, start: Checkpoint | None, note: Say) -> None:
    config, ranks = parts.config, parts.ranks
    count = sum(p.numel() for p in parts.network.parameters())
    note(
        f"model  {config.name}: {config.network.title}, {count / 1e6:.2f} M "
        f"parameters, {want.height}x{want.width}, {len(parts.classes)} classes"
    )
    device = "CPU" if ranks.device.type == "cpu" else torch.cuda.get_device_name(ranks.device)
    several = f", {ranks.count} processes" if ranks.count > 1 else ""
    note(f"device {device}, {config.precision}{several}")
    if start is not None:
        note(f"resume after epoch {start.epoch} (best: {start.best_epoch}, {start.best_miou:.4f})")


def _stopped(out: Path) -> str:
    if (out / NAME).exists():
        return f"stopped; {out / NAME} holds the last whole epoch: --resume goes on from there"
    return "stopped before the first epoch was over; nothing is kept"
