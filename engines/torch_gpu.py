"""torch on an NVIDIA GPU: by `submit` with streams of its own, and bound to others' memory.

torch and PyCUDA use the device's one primary context (engines/cuda/device.py), so an address or a
stream of PyCUDA's is good in torch's hands as it is. Memory between layers is torch's own, kept for
each stream; it asks the driver for none once every batch has been seen.

Two settings belong to the whole process. cuDNN's search for the fastest kernels
(`torch.backends.cudnn.benchmark`) is on only while a bound network runs a batch for the first time.
TF32, which rounds like FP16, is off while an engine in FP32 is open: who asks for FP32 means it.
"""

# mypy: disable-error-code="import-not-found, import-untyped, unused-ignore"

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import numpy as np
import torch

from engines.card import Card
from engines.cuda.busy import Busy
from engines.cuda.device import open_device
from engines.engine import EngineInfo, Labels, Pictures, RingEngine
from engines.errors import CaptureError, EngineError, EngineUnavailableError, one_line
from engines.torch_engine import SLOTS, give_back, prepare
from engines.torch_network import PictureNetwork


class TorchGpuEngine(RingEngine):
    """A module on one GPU; also a DeviceEngine (engines/cuda/network.py), if PyCUDA is there."""

    def __init__(
        self,
        network: PictureNetwork,
        card: Card,
        precision: str,
        number: int,
        *,
        batch: int = 1,
        why: str = "",
        compiled: bool = False,
    ) -> None:
        self._place = torch.device("cuda", number)
        self._slots: list[_Slot] = []
        self._pools: dict[int, Any] = {}
        with ExitStack() as undo:
            # Else what is pinned would open a context on GPU 0, too.
            undo.enter_context(torch.cuda.device(number))
            settings = undo.enter_context(ExitStack())
            if precision == "fp32":
                settings.enter_context(_EXACT.held())
            self._network: Any = prepare(network, card, str(self._place), batch, compiled)
            shape = (card.input.height, card.input.width)
            try:
                self._slots = [_Slot(self._place, batch, shape) for _ in range(SLOTS)]
                self._epoch = torch.cuda.Event(enable_timing=True)
                self._epoch.record(self._slots[0].stream)
            except RuntimeError as error:
                raise EngineUnavailableError(
                    f"no room on GPU {number} for {card.name}: {one_line(error)}"
                ) from error
            self._settings = settings.pop_all()
        self._busy = Busy()
        info = EngineInfo(
            name="torch",
            precision=precision,
            version=torch.__version__,
            device=f"GPU {number} ({torch.cuda.get_device_name(number)})",
            why=why,
        )
        # Runs that overlap are counted once, by `Busy`; so no division here.
        super().__init__(card, info, list(self._slots), batch=batch, parallel=1)
        # What a lane needs, and nobody else: without PyCUDA the engine works by `submit`.
        with suppress(EngineUnavailableError):
            self.device = open_device(number)

    def bind(self, pictures: int, labels: int, most: int) -> TorchContext:
        """As DeviceEngine has it; the device's context is current."""
        if not 1 <= most <= self.batch:
            raise EngineError(f"bound to {most} pictures, but the engine takes 1..{self.batch}")
        shape = (most, self.card.input.height, self.card.input.width)
        return TorchContext(
            self._network,
            as_tensor(pictures, (*shape, 3), self._place),
            as_tensor(labels, shape, self._place),
            self._pools,
        )

    def _start(self, slot: _Slot, pictures: Pictures) -> None:
        try:
            slot.start(self._network, pictures)
        except BaseException:
            # What was begun may still read the slot's memory; the next user must not write it.
            with suppress(Exception):
                slot.stream.synchronize()
            raise

    def _finish(self, slot: _Slot) -> tuple[Labels, float]:
        slot.done.synchronize()
        begin_ms = self._epoch.elapsed_time(slot.begun)
        end_ms = self._epoch.elapsed_time(slot.computed)
        return np.array(slot.host_labels[: slot.count]), self._busy.add(begin_ms, end_ms)

    def _release(self) -> None:
        self._free.clear()
        self._slots.clear()
        self._network = None
        self._settings.close()
        give_back()


class TorchContext:
    """The network between two tensors that are somebody else's memory."""

    def __init__(
        self,
        network: Any,
        pictures: torch.Tensor,
        labels: torch.Tensor,
        pools: dict[int, Any] | None = None,
    ) -> None:
        """`pools`: the memory of graphs, by their stream. Those of one stream never run side by
        side, and nothing of one is wanted when the next one runs, so they share it.
        """
        self._network = network
        self._pictures, self._labels = pictures, labels
        self._pools = {} if pools is None else pools
        self._seen: set[int] = set()
        self._graphs: list[Any] = []

    def enqueue(self, count: int, stream: Any) -> None:
        """Starts the network on the first `count` pictures, on a pycuda.driver.Stream."""
        with ExitStack() as now:
            now.enter_context(torch.inference_mode())
            now.enter_context(torch.cuda.stream(self._external(stream)))
            if count not in self._seen:
                # In the thread and for the shapes that use them, kernels are searched once.
                now.enter_context(_SEARCH.held())
                self._seen.add(count)
            self._labels[:count].copy_(self._network(self._pictures[:count]))

    def capture(self, stream: Any, work: Callable[[], None]) -> Callable[[], None]:
        """As DeviceContext has it: the network must have run once before."""
        if not self._seen:
            raise CaptureError("a CUDA graph could not be captured: the network has not run yet")
        external = self._external(stream)
        external.synchronize()
        # What Python would free in the middle of a capture would end it.
        gc.collect()
        # The runs before left memory for this stream; a graph has memory of its own.
        give_back()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(external):
            try:
                # The thread's own mistakes end the capture; other lanes go on allocating.
                pool = self._pools.setdefault(stream.handle, torch.cuda.graph_pool_handle())
                graph.capture_begin(pool=pool, capture_error_mode="thread_local")
                try:
                    work()
                except BaseException:
                    # A stream stays in capture until it is ended there.
                    with suppress(RuntimeError):
                        _end(graph)
                    raise
                _end(graph)
            except Exception as error:  # PyCUDA's and torch's errors share no base
                raise CaptureError(
                    f"a CUDA graph could not be captured: {one_line(error)}"
                ) from error
        self._graphs.append(graph)

        def replay() -> None:
            with torch.cuda.stream(external):
                graph.replay()

        return replay

    def free(self) -> None:
        """Frees the graphs and lets go of the tensors, whose memory stays its owner's."""
        for graph in self._graphs:
            graph.reset()
        self._graphs.clear()
        self._network = self._pictures = self._labels = None

    def _external(self, stream: Any) -> Any:
        return torch.cuda.ExternalStream(stream.handle, device=self._labels.device)


# Graphs whose capture CUDA has ended by itself. torch's allocator goes on asking them, because
# `capture_end` fails before it takes them off the list; freed, they would be memory of others.
_SPOILT: list[Any] = []


def _end(graph: Any) -> None:
    """Ends a capture; raises RuntimeError where something in it was not allowed."""
    try:
        graph.capture_end()
    except RuntimeError:
        _SPOILT.append(graph)
        raise


def as_tensor(address: int, shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Device memory as a uint8 tensor of this shape, without a copy; raises EngineError where torch
    makes one.
    """
    tensor = torch.as_tensor(_Memory(address, shape), device=device)
    if tensor.data_ptr() != address:
        raise EngineError(f"torch copied the memory at {address:#x}, which must be on {device}")
    return tensor


class _Memory:
    """An address in the form that torch reads: CUDA array interface, version 3."""

    def __init__(self, address: int, shape: tuple[int, ...]) -> None:
        self.__cuda_array_interface__ = {
            "shape": shape,
            "typestr": "|u1",
            "data": (address, False),  # False: it may be written to
            "strides": None,
            "version": 3,
        }


class _Slot:
    """What one submission needs."""

    def __init__(self, device: torch.device, most: int, shape: tuple[int, int]) -> None:
        self.count = 0
        self.stream = torch.cuda.Stream(device)
        self.begun = torch.cuda.Event(enable_timing=True)
        self.computed = torch.cuda.Event(enable_timing=True)
        # A waiting thread sleeps instead of spinning on a core that decoding needs.
        self.done = torch.cuda.Event(blocking=True)
        sizes = ((most, *shape, 3), (most, *shape))
        # Pinned, because only then does a copy run beside kernels.
        pinned = [torch.empty(size, dtype=torch.uint8, pin_memory=True) for size in sizes]
        self._pinned_pictures, self._pinned_labels = pinned
        self.host_pictures, self.host_labels = (tensor.numpy() for tensor in pinned)
        self._pictures, self._labels = (
            torch.empty(size, dtype=torch.uint8, device=device) for size in sizes
        )

    def start(self, network: Any, pictures: Pictures) -> None:
        """Up, through the network, and down again."""
        n = self.count = len(pictures)
        np.copyto(self.host_pictures[:n], pictures)
        with torch.inference_mode(), torch.cuda.stream(self.stream):
            self._pictures[:n].copy_(self._pinned_pictures[:n], non_blocking=True)
            self.begun.record()
            self._labels[:n].copy_(network(self._pictures[:n]))
            self.computed.record()
            self._pinned_labels[:n].copy_(self._labels[:n], non_blocking=True)
            self.done.record()


class _Setting:
    """A flag of torch.backends.cudnn that has another value while anybody holds it."""

    def __init__(self, name: str, value: bool) -> None:
        self._name, self._value = name, value
        self._lock = threading.Lock()
        self._holders = 0
        self._before: Any = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """It has our value for the block, in the whole process."""
        with self._lock:
            if not self._holders:
                self._before = getattr(torch.backends.cudnn, self._name)
                setattr(torch.backends.cudnn, self._name, self._value)
            self._holders += 1
        try:
            yield
        finally:
            with self._lock:
                self._holders -= 1
                if not self._holders:
                    setattr(torch.backends.cudnn, self._name, self._before)


_SEARCH = _Setting("benchmark", True)
_EXACT = _Setting("allow_tf32", False)
