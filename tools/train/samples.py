"""Training samples: which pictures make a batch, and how each is varied, by seed alone."""

# mypy: disable-error-code="import-not-found, unused-ignore", disallow-subclassing-any=False

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from tools.data.survey import Pictures

Key = tuple[int, int]
"""(epoch, index of the picture)."""


class Samples(Dataset[tuple[Tensor, Tensor]]):
    """Varied pictures: uint8 (3, h, w) RGB and uint8 (h, w) ids with VOID.

    What is drawn for a picture in an epoch depends on the seed alone, not on what was drawn before:
    a resumed training, more workers or more processes get the same samples.
    """

    def __init__(self, pictures: Pictures, augment: v2.Transform, seed: int) -> None:
        self.pictures, self.augment, self.seed = pictures, augment, seed

    def __getitem__(self, key: Key) -> tuple[Tensor, Tensor]:
        image, ids = self.pictures[key[1]]
        with one_thread(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(self.seed, "sample", *key))
            varied, mask = self.augment(
                tv_tensors.Image(torch.from_numpy(image).permute(2, 0, 1)),
                tv_tensors.Mask(torch.from_numpy(ids)),
            )
        return varied.as_subclass(Tensor), mask.as_subclass(Tensor)


class Batches:
    """The keys of every batch of one process, epoch by epoch, each epoch in a new order.

    Pictures that do not fill a batch for each process are left out, others the next epoch.
    """

    def __init__(self, count: int, batch: int, seed: int, rank: int, ranks: int) -> None:
        self.count, self.batch, self.seed = count, batch, seed
        self.rank, self.ranks = rank, ranks
        self.epoch = 1

    def __len__(self) -> int:
        return self.count // (self.batch * self.ranks)

    def __iter__(self) -> Iterator[list[Key]]:
        generator = torch.Generator().manual_seed(seed_of(self.seed, "order", self.epoch))
        order = torch.randperm(self.count, generator=generator).tolist()
        for i in range(len(self)):
            at = (i * self.ranks + self.rank) * self.batch
            yield [(self.epoch, index) for index in order[at : at + self.batch]]


def make_loader(
    samples: Samples, batches: Batches, workers: int | None, device: torch.device
) -> DataLoader[tuple[Tensor, Tensor]]:
    """Batches of uint8 (N, 3, h, w) and uint8 (N, h, w); set `batches.epoch` before each round.

    Without `workers` being given: none beside a network on the CPU, which needs the cores itself,
    and up to eight beside a GPU.
    """
    if workers is None:
        workers = 0 if device.type == "cpu" else min(8, max(1, (os.cpu_count() or 1) - 1))
    return DataLoader(
        samples,
        batch_sampler=batches,
        num_workers=workers,
        pin_memory=device.type == "cuda",
    )


def seed_of(*parts: object) -> int:
    """A seed for these words and numbers; seeds of neighbours are no neighbours."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


@contextmanager
def one_thread() -> Iterator[None]:
    """Within the block torch uses one thread.

    A picture's transforms take fractions of a millisecond each. To share one out costs as much
    again, and many times that where another program has a core, since each waits for the other.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
