"""torch: a library's module as it is, on an NVIDIA GPU or on the CPU. Needs `streamseg[models]`.

On a GPU it is torch_gpu.py's engine. On the CPU it is a check of the others, not a fast one: one
picture at a time, with as many threads as torch takes by itself.
"""

# mypy: disable-error-code="import-not-found, unused-ignore"

from __future__ import annotations

import platform
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np
import torch

from engines.card import Card
from engines.cuda.graph import alone
from engines.engine import EngineInfo, Labels, Pictures, RingEngine
from engines.errors import EngineError, EngineUnavailableError, ModelError, one_line
from engines.model import Model
from engines.torch_network import PictureNetwork

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Of submissions in flight: one uploads, one computes, one downloads.
SLOTS = 3
# BF16 came with Ampere.
_BF16_CAPABILITY = (8, 0)


def load_torch(
    model: Model,
    *,
    device: str | None = None,
    precision: str = "auto",
    batch: int = 1,
    why: str = "",
    compile: bool = False,
) -> RingEngine:
    """The model on a GPU, or on the CPU.

    device: a GPU's number or `cpu`; None is GPU 0, or the CPU where torch can use no GPU.
    compile: torch.compile makes kernels of the network first. That takes minutes once, and a C++
        compiler; it is for measuring, and no option of the command.

    Raises EngineUnavailableError where the model has no module, or the device or the precision is
    not to be had; ModelError or CardError where the network does not work.
    """
    if model.module is None:
        raise EngineUnavailableError(
            f"torch cannot run {model.file}, which is no torch module; it runs voc, street, "
            "torchvision's networks (fcn_resnet50) and segmentation-models-pytorch's "
            "(unet/resnet34); take another --engine"
        )
    number, reason = _gpu_number(device)
    kind = _precision(precision, number)
    options: dict[str, Any] = {"batch": batch, "why": f"{why}; {reason}" if reason else why}
    options["compiled"] = compile
    network = PictureNetwork(model.module(), model.card, PRECISIONS[kind])
    if number is None:
        return TorchEngine(network, model.card, kind, **options)
    from engines.torch_gpu import TorchGpuEngine

    return TorchGpuEngine(network, model.card, kind, number, **options)


def gpu_problem() -> str | None:
    """Why torch can use no NVIDIA GPU here; None where it can."""
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    return None if torch.cuda.is_available() else "torch finds no NVIDIA GPU"


def able_precisions(number: int | None) -> tuple[str, ...]:
    """What a GPU, or the CPU (None), computes in; the first is the default."""
    if number is None:
        return ("fp32", "bf16")
    new = torch.cuda.get_device_capability(number) >= _BF16_CAPABILITY
    return ("fp16", "fp32", *(("bf16",) if new else ()))


def _gpu_number(device: str | None) -> tuple[int | None, str]:
    """The GPU's number, None for the CPU; and why it is the CPU where nobody asked for that."""
    problem = gpu_problem()
    if device is None:
        return (0, "") if problem is None else (None, problem)
    if device.lower() == "cpu":
        return None, ""
    if not device.isdecimal():
        raise EngineUnavailableError(
            f"device {device!r} is unknown to torch; allowed: a GPU's number (0, 1, ...) or cpu"
        )
    if problem is not None:
        raise EngineUnavailableError(f"there is no GPU {device} for torch: {problem}")
    if int(device) >= (count := torch.cuda.device_count()):
        raise EngineUnavailableError(
            f"there is no GPU {device} here; there are {count}, counted from 0 (`streamseg doctor`)"
        )
    return int(device), ""


def _precision(asked: str, number: int | None) -> str:
    """The precision that it comes to; `number` is the GPU's, None on the CPU."""
    able = able_precisions(number)
    if asked == "auto":
        return able[0]
    if asked not in able:
        where = "the CPU" if number is None else f"GPU {number}"
        raise EngineUnavailableError(
            f"torch does not compute in {asked} on {where}; it does in: {', '.join(able)}"
        )
    return asked


def prepare(network: PictureNetwork, card: Card, device: str, batch: int, compiled: bool) -> Any:
    """What runs the network on the device, tried with one picture and with `batch`.

    Raises ModelError where torch refuses, CardError where the card does not describe the answer.
    """
    shape = (card.input.height, card.input.width, 3)
    try:
        network.to(device)
        run = torch.compile(network) if compiled else network
        with torch.inference_mode():
            for count in sorted({1, batch}):
                run(torch.zeros((count, *shape), dtype=torch.uint8, device=device))
        if device != "cpu":
            # Other streams will be given the memory that was used.
            with alone():
                torch.cuda.synchronize(device)
                give_back()
    except EngineError:
        raise
    except Exception as error:  # torch's and its compiler's errors share no base
        kind = str(network.kind).removeprefix("torch.")
        raise ModelError(
            f"torch cannot run {card.name} in {kind} on {device}: {one_line(error)}"
        ) from error
    return run


def give_back() -> None:
    """Gives unused memory of the GPU's back, which torch would keep for its next user."""
    # Refused while anybody captures a graph; then it stays where it is.
    with suppress(RuntimeError):
        torch.cuda.empty_cache()


class TorchEngine(RingEngine):
    """On the CPU; numpy's arrays are torch's tensors there, so nothing is copied."""

    def __init__(
        self,
        network: PictureNetwork,
        card: Card,
        precision: str,
        *,
        batch: int = 1,
        why: str = "",
        compiled: bool = False,
    ) -> None:
        self._run_network: Any = prepare(network, card, "cpu", batch, compiled)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="torch")
        self._runs: dict[int, Future[tuple[Labels, float]]] = {}
        info = EngineInfo(
            name="torch",
            precision=precision,
            version=torch.__version__,
            device=f"CPU ({platform.processor() or platform.machine()})",
            why=why,
        )
        super().__init__(card, info, list(range(SLOTS)), batch=batch, parallel=1)

    def _start(self, slot: int, pictures: Pictures) -> None:
        self._runs[slot] = self._pool.submit(self._run, pictures)

    def _run(self, pictures: Pictures) -> tuple[Labels, float]:
        begun = time.perf_counter()
        # torch warns of arrays that it could not write to, and takes those by a copy only.
        given = torch.from_numpy(pictures if pictures.flags.writeable else pictures.copy())
        with torch.inference_mode():
            labels: Labels = np.asarray(self._run_network(given).numpy())
        return labels, time.perf_counter() - begun

    def _finish(self, slot: int) -> tuple[Labels, float]:
        return self._runs[slot].result()

    def _release(self) -> None:
        self._pool.shutdown()
        self._runs.clear()
        self._run_network = None
