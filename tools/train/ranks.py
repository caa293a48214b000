"""One process or several: what each is, and what they add up.

`torchrun --nproc-per-node 2 -m tools.cli train ...` starts several; each trains on its own share of
every batch, on a GPU of its own or, with the gloo backend, on the CPU.
"""

# mypy: disable-error-code="import-not-found, unused-ignore"

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tools.errors import TrainError


@dataclass(frozen=True)
class Ranks:
    """Which of the processes we are."""

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the one that prints and writes."""
        return self.rank == 0

    def add(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place; on the CPU or on the device."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network with its gradients averaged over all processes."""
        if self.count == 1:
            return network
        if self.device.type == "cuda":
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        ids = [self.device.index] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(network, device_ids=ids)


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Joins the processes that torchrun started, if it did. `device`: auto, cpu or cuda."""
    if device == "cuda" and not torch.cuda.is_available():
        raise TrainError("device is cuda, and torch finds no GPU; take cpu or auto")
    kind = device
    if device == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    count = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if kind == "cuda" and local >= torch.cuda.device_count():
        raise TrainError(
            f"process {local} has no GPU: there are {torch.cuda.device_count()}; start fewer"
        )
    own = torch.device("cuda", local) if kind == "cuda" else torch.device("cpu")
    if kind == "cuda":
        torch.cuda.set_device(own)
    if count == 1:
        yield Ranks(0, 1, own)
        return
    # Both: counts are added up on the CPU, gradients where they are.
    dist.init_process_group("cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), count, own)
    finally:
        dist.destroy_process_group()
