"""A plan at work: several submissions in flight, each on a slot with stream and memory of its own.

Copies and kernels of different slots run beside each other; within a slot the stream keeps their
order. Nothing is allocated for a frame. The host waits only where a result is asked for, on an
event that lets the thread sleep.
"""

# mypy: disable-error-code="import-not-found, import-untyped, unused-ignore"

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Any

import numpy as np

from engines.card import Card
from engines.cuda.busy import Busy
from engines.cuda.device import Device
from engines.cuda.graph import Graph
from engines.cuda.memory import Staging
from engines.engine import EngineInfo, Labels, Pictures, RingEngine
from engines.errors import InferenceError, PlanError
from engines.graph import LABELS, PICTURES
from engines.tensorrt.library import make_log, version

# One uploads, one computes, one downloads.
SLOTS = 3


class TensorRtEngine(RingEngine):
    """A plan whose input and output are those of engines/graph.py."""

    def __init__(
        self,
        plan: bytes,
        card: Card,
        device: Device,
        *,
        precision: str,
        host_code: bool = False,
        why: str = "",
        refine: str = "none",
        slots: int = SLOTS,
    ) -> None:
        """`host_code`: the plan is version-compatible and brings code for the host, which is run.

        Raises PlanError where the plan is not to be loaded here or is not one of ours.
        """
        import pycuda.driver as cuda
        import tensorrt as trt

        version()
        self.device = device
        self._log = make_log()
        self._slots: list[_Slot] = []
        with device.current():
            try:
                self._runtime: Any = trt.Runtime(self._log)
                if host_code:
                    self._runtime.engine_host_code_allowed = True
                self._engine: Any = self._runtime.deserialize_cuda_engine(plan)
                if self._engine is None:
                    raise PlanError(f"TensorRT cannot load the plan: {self._log.text()}")
                self._least, most = _batches(self._engine, card)
                self._shape = (card.input.height, card.input.width)
                for _ in range(slots):
                    self._slots.append(_Slot(self._engine, most, self._shape, self._log))
                self._epoch = cuda.Event()
                self._epoch.record(self._slots[0].stream)
            except (cuda.Error, RuntimeError, TypeError) as error:
                self._let_go()
                said = self._log.text() if self._log.errors else str(error).strip()
                raise PlanError(f"TensorRT cannot run the plan of {card.name}: {said}") from error
            except BaseException:
                self._let_go()
                raise
        self._busy = Busy()
        info = EngineInfo(
            name="tensorrt",
            precision=precision,
            version=trt.__version__,
            device=f"GPU {device.number} ({device.name})",
            why=why,
            refine=refine,
        )
        # Runs that overlap are counted once, by `Busy`; so no division here.
        super().__init__(card, info, list(self._slots), batch=most, parallel=1)

    def bind(self, pictures: int, labels: int, most: int) -> TensorRtContext:
        """The plan on memory of somebody else's (engines/cuda/network.py). Raises PlanError."""
        if not self._least <= most <= self.batch:
            raise PlanError(f"the plan is for {self._least} to {self.batch} pictures, not {most}")
        return TensorRtContext(self._engine, pictures, labels, (most, *self._shape), self._log)

    def _start(self, slot: _Slot, pictures: Pictures) -> None:
        with self.device.current():
            try:
                slot.start(pictures, max(len(pictures), self._least))
            except BaseException:
                # What was begun may still read the slot's memory; the next user must not write it.
                with suppress(Exception):
                    slot.stream.synchronize()
                raise

    def _finish(self, slot: _Slot) -> tuple[Labels, float]:
        with self.device.current():
            slot.done.synchronize()
            begin_ms = slot.begun.time_since(self._epoch)
            end_ms = slot.computed.time_since(self._epoch)
        return np.array(slot.labels.host[: slot.count]), self._busy.add(begin_ms, end_ms)

    def _release(self) -> None:
        with self.device.current():
            self._let_go()

    def _let_go(self) -> None:
        """Frees everything, slots before the plan; the device's context is current."""
        if hasattr(self, "_free"):
            self._free.clear()
        for slot in self._slots:
            slot.free()
        self._slots.clear()
        self._epoch = self._engine = self._runtime = None


class TensorRtContext:
    """An execution context on memory that lies on the card; for one user at a time.

    Made, used and freed while the device's context is current.
    """

    def __init__(
        self, engine: Any, pictures: int, labels: int, shape: tuple[int, int, int], log: Any
    ) -> None:
        """`shape` is (most, h, w): the pictures that the memory holds."""
        import pycuda.driver as cuda

        self._log = log
        most, *self._size = shape
        self._shaped = 0
        self._graphs: list[Graph] = []
        self._context: Any = engine.create_execution_context()
        if self._context is None:
            raise PlanError(f"no room on the GPU for another frame in flight: {log.text()}")
        for name, address in ((PICTURES, pictures), (LABELS, labels)):
            self._must(self._context.set_tensor_address(name, address))
        if engine.get_tensor_shape(PICTURES)[0] == -1:
            stream = cuda.Stream()
            self._must(self._context.set_optimization_profile_async(0, stream.handle))
            stream.synchronize()
        else:
            self._shaped = most

    def enqueue(self, count: int, stream: Any) -> None:
        """Starts the network on the first `count` pictures."""
        if count != self._shaped:
            self._must(self._context.set_input_shape(PICTURES, (count, *self._size, 3)))
            self._shaped = count
        self._must(self._context.execute_async_v3(stream.handle))

    def capture(self, stream: Any, work: Callable[[], None]) -> Graph:
        """A graph of what `work` starts. After that only as many pictures as then may be run."""
        graph = Graph(stream, work)
        self._graphs.append(graph)
        return graph

    def free(self) -> None:
        """Frees graphs and context."""
        for graph in self._graphs:
            graph.free()
        self._graphs.clear()
        self._context = None

    def _must(self, worked: bool) -> None:
        if not worked:
            raise InferenceError(f"TensorRT refused: {self._log.text()}")


class _Slot:
    """What one submission needs. Made, used and freed while the device's context is current."""

    def __init__(self, engine: Any, most: int, shape: tuple[int, int], log: Any) -> None:
        import pycuda.driver as cuda

        self.count = 0
        with ExitStack() as undo:
            self.stream = cuda.Stream()
            self.begun, self.computed = cuda.Event(), cuda.Event()
            # A waiting thread sleeps instead of spinning on a core that decoding needs.
            self.done = cuda.Event(cuda.event_flags.BLOCKING_SYNC)
            self.pictures = Staging((most, *shape, 3))
            undo.callback(self.pictures.free)
            self.labels = Staging((most, *shape))
            undo.callback(self.labels.free)
            self.context = TensorRtContext(
                engine, self.pictures.address, self.labels.address, (most, *shape), log
            )
            undo.pop_all()

    def start(self, pictures: Pictures, run: int) -> None:
        """Up, through the network, and down again; `run` >= len(pictures) is the batch computed."""
        self.count = len(pictures)
        np.copyto(self.pictures.host[: self.count], pictures)
        self.pictures.upload(self.count, self.stream)
        self.begun.record(self.stream)
        self.compute(run)
        self.computed.record(self.stream)
        self.labels.download(self.count, self.stream)
        self.done.record(self.stream)

    def compute(self, run: int) -> None:
        """Starts the network alone on `run` pictures that lie on the device."""
        self.context.enqueue(run, self.stream)

    def free(self) -> None:
        """Waits for the stream and frees all; after an error on the card, what can be freed."""
        with suppress(Exception):
            self.stream.synchronize()
        self.context.free()
        self.pictures.free()
        self.labels.free()
        self.begun = self.computed = self.done = self.stream = None


def _batches(engine: Any, card: Card) -> tuple[int, int]:
    """The smallest and the largest batch of a plan; raises PlanError if it is not the card's."""
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    if sorted(names) != sorted((PICTURES, LABELS)):
        raise PlanError(f"this plan was not built by streamseg: its tensors are {', '.join(names)}")
    shape: Sequence[int] = tuple(engine.get_tensor_shape(PICTURES))
    if tuple(shape[1:]) != (card.input.height, card.input.width, 3):
        raise PlanError(
            f"the plan takes {shape[1]}x{shape[2]} pictures, its card says "
            f"{card.input.height}x{card.input.width}"
        )
    if shape[0] != -1:
        return int(shape[0]), int(shape[0])
    least, _, most = engine.get_tensor_profile_shape(PICTURES, 0)
    return int(least[0]), int(most[0])
