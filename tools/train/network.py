"""From the config to a network, its optimizer, and the learning rate of every step."""

# mypy: disable-error-code="import-not-found, unused-ignore", disallow-subclassing-any=False

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from engines.card import CardInput
from engines.errors import ModelError, one_line
from engines.zoo.smp import make_smp
from engines.zoo.street import make_street
from engines.zoo.torchvision import make_torchvision, official_state
from engines.zoo.weights import read_state, start_from
from tools.train.config import (
    InputConfig,
    NetworkConfig,
    OptimizerConfig,
    ScheduleConfig,
    SgdConfig,
    StreetConfig,
    TorchvisionConfig,
)


def make_network(config: NetworkConfig, classes: int) -> nn.Module:
    """(N, 3, H, W) float32 normalised RGB -> (N, classes, h, w) float32 logits, on the CPU.

    h and w are H and W, or a fraction of them.
    """
    if isinstance(config, StreetConfig):
        return make_street(classes, config.weights)
    if isinstance(config, TorchvisionConfig):
        return _torchvision(config, classes)
    made: nn.Module = make_smp(
        config.architecture, config.encoder, classes, config.weights, **config.options
    )
    return made


def _torchvision(config: TorchvisionConfig, classes: int) -> nn.Module:
    """The network alone, without the heads that torchvision trains beside the one that answers."""
    network: nn.Module = make_torchvision(config.architecture, classes, "random")
    if config.weights == "official":
        start_from(network.network, official_state(config.architecture), config.architecture)
    elif config.weights is not None:
        start_from(network.network, read_state(config.weights), str(config.weights))
    return network


def enlarge(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, classes, h, w) -> (N, classes, *size), bilinear with half-pixel centres, as
    engines/graph.py does it when the network runs.
    """
    if logits.shape[2:] == size:
        return logits
    return functional.interpolate(logits, size, mode="bilinear", align_corners=False)


def card_input(config: InputConfig) -> CardInput:
    """What the network takes, as its card will say it."""
    height, width = config.size
    keys = config.model_dump(exclude={"size"})
    return CardInput(height=height, width=width, color="rgb", **keys)


def check_size(network: nn.Module, height: int, width: int, key: str) -> None:
    """Raises ModelError where the network does not take pictures of this size."""
    try:
        with torch.no_grad():
            shape = network.eval()(torch.zeros(1, 3, height, width)).shape
    except Exception as error:  # whatever a layer raises on a shape that it does not take
        line = one_line(error)
        raise ModelError(f"{key} [{height}, {width}] does not suit the network: {line}") from None
    if shape[2] > height or shape[3] > width:
        raise ModelError(
            f"{key} [{height}, {width}] comes back as {list(shape[2:])}; take multiples of 32"
        )


def check_batch(network: nn.Module, batch: int, height: int, width: int) -> None:
    """Raises ModelError where the network cannot learn from so few pictures at a time: the norm of
    a map of one pixel needs two.
    """
    if batch > 1:
        return
    try:
        with torch.no_grad():
            deepcopy(network).train()(torch.zeros(1, 3, height, width))
    except ValueError as error:
        line = one_line(error)
        raise ModelError(f"batch: this network does not learn from 1 picture: {line}") from None


class Normalize(nn.Module):
    """uint8 (N, 3, H, W) RGB -> float32, (x / 255 - mean) / std, on the device of the network."""

    def __init__(self, want: CardInput) -> None:
        super().__init__()
        std = torch.tensor(want.std).view(1, 3, 1, 1)
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("shift", -torch.tensor(want.mean).view(1, 3, 1, 1) / std)

    def forward(self, pictures: Tensor) -> Tensor:
        """uint8 (N, 3, H, W) RGB -> float32 (N, 3, H, W)."""
        result: Tensor = torch.addcmul(self.shift, pictures.float(), self.scale)
        return result


def make_optimizer(config: OptimizerConfig, network: nn.Module) -> torch.optim.Optimizer:
    """AdamW or SGD with the encoder's rate apart, and no decay on biases and norms.

    `initial_lr` in each group is its rate before the schedule's factor.
    """
    inner = getattr(network, "network", network)  # torchvision's is wrapped
    encoder = getattr(inner, "encoder", None) or getattr(inner, "backbone", None)
    if encoder is None and config.encoder_lr_factor != 1:
        raise ModelError("optimizer: encoder_lr_factor is given, and the network has no encoder")
    of_encoder = {id(p) for p in encoder.parameters()} if encoder is not None else set()
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in network.parameters():
        # Decay pulls weights to 0; for a norm's scale or a bias, 0 is nothing to be pulled to.
        key = (id(parameter) in of_encoder, parameter.ndim > 1)
        groups.setdefault(key, []).append(parameter)
    made = []
    for (inside, decays), parameters in groups.items():
        lr = config.lr * (config.encoder_lr_factor if inside else 1)
        decay = config.weight_decay if decays else 0.0
        made.append({"params": parameters, "lr": lr, "initial_lr": lr, "weight_decay": decay})
    if isinstance(config, SgdConfig):
        return torch.optim.SGD(made, momentum=config.momentum, nesterov=config.nesterov)
    return torch.optim.AdamW(made, betas=config.betas)


def rate(config: ScheduleConfig, step: int, steps: int, steps_in_epoch: int) -> float:
    """The factor of the learning rate at `step` (from 0) of `steps`: up linearly, then down.

    poly: (1 - share of the way) ** power. cosine: half a wave. Both end at `floor`.
    """
    warmup = min(round(config.warmup_epochs * steps_in_epoch), steps - 1)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    way = (step - warmup) / max(1, steps - warmup)
    if config.kind == "cosine":
        down = (1 + math.cos(math.pi * way)) / 2
    else:
        down = (1 - way) ** config.power
    return config.floor + (1 - config.floor) * down


class Ema:
    """A network whose weights and statistics are a moving average of another's."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = deepcopy(network).eval().requires_grad_(False)
        self.decay = decay
        self._pairs = self._tensors(network)

    def update(self, step: int) -> None:
        """After step number `step` (from 0): while there are few steps, the last ones weigh more,
        so that the average does not carry the random beginning along.
        """
        decay = min(self.decay, (1 + step) / (10 + step))
        average, current = self._pairs
        torch._foreach_lerp_(average, current, 1 - decay)

    def _tensors(self, network: nn.Module) -> tuple[list[Any], list[Any]]:
        """The float tensors of both; what counts batches (integers) nobody reads."""
        ours, theirs = self.network.state_dict(), network.state_dict()
        names = [name for name, value in ours.items() if value.is_floating_point()]
        return [ours[n] for n in names], [theirs[n] for n in names]
