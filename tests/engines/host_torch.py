"""torch's CUDA on the host: the part of it that engines/torch_gpu.py calls, beside HostCuda.

Tensors are the real ones, on the CPU; streams, events and graphs only keep torch's rules and note
what was called. Each name and signature is torch's own: what real torch would refuse is refused.
"""

from __future__ import annotations

import inspect
import time
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import torch


class HostTorch:
    """Stands in for `torch` in engines/torch_gpu.py: `torch` with another `cuda`."""

    def __init__(self, host) -> None:
        """`host` is the HostCuda whose memory and streams are meant."""
        self.calls: list[str] = []
        self.capturing = self.spoilt = False
        self._current: Any = None
        note, fake = self.calls.append, self

        class Stream:
            def __init__(self, device=None) -> None:
                accepts(torch.cuda.Stream.__new__, torch.cuda.Stream, device)

            def synchronize(self) -> None:
                if fake.capturing:
                    fake.spoilt = True
                    raise RuntimeError("operation not permitted when stream is capturing")

        class ExternalStream(Stream):
            def __init__(self, handle, device=None) -> None:
                accepts(torch.cuda.ExternalStream.__new__, None, handle, device=device)
                self.real = host.streams[handle]

            def synchronize(self) -> None:
                super().synchronize()
                self.real.synchronize()

        class Event:
            def __init__(self, **options) -> None:
                assert options.keys() <= {"enable_timing", "blocking"}
                self.timed = options.get("enable_timing", False)
                self.at_s = 0.0

            def record(self, stream=None) -> None:
                assert stream is not None or fake._current is not None
                self.at_s = time.perf_counter()

            def synchronize(self) -> None:
                assert self.at_s

            def elapsed_time(self, other) -> float:
                assert self.timed
                assert other.timed
                return 1000.0 * (other.at_s - self.at_s)

        class CUDAGraph:
            def capture_begin(self, **options) -> None:
                accepts(torch.cuda.CUDAGraph.capture_begin, self, **options)
                assert isinstance(fake._current, ExternalStream), "not on the lane's stream"
                fake.capturing, fake.spoilt = True, False
                note(f"begin {options['capture_error_mode']}")

            def capture_end(self) -> None:
                assert fake.capturing
                fake.capturing = False
                note("end")
                if fake.spoilt:
                    raise RuntimeError("operation failed due to a previous error during capture")

            def replay(self) -> None:
                assert isinstance(fake._current, ExternalStream), "not on the lane's stream"
                note("replay")

            def reset(self) -> None:
                note("reset")

        @contextmanager
        def stream(entered):
            before, fake._current = fake._current, entered
            if isinstance(entered, ExternalStream):
                entered.real.synchronize()  # what was started before is done before
            try:
                yield
            finally:
                fake._current = before

        def as_tensor(memory, device=None):
            facts = memory.__cuda_array_interface__
            assert (facts["typestr"], facts["strides"], facts["version"]) == ("|u1", None, 3)
            address, read_only = facts["data"]
            assert not read_only
            tensor = torch.from_numpy(host.memory[address]).reshape(facts["shape"])
            return Shared(tensor, address)

        def empty(size, *, dtype, pin_memory=False, device=None):
            assert pin_memory == (device is None)
            return torch.empty(size, dtype=dtype)

        self._own = {
            "cuda": SimpleNamespace(
                Stream=Stream,
                ExternalStream=ExternalStream,
                Event=Event,
                CUDAGraph=CUDAGraph,
                stream=stream,
                get_device_name=lambda number: "Stand-in GPU",
                graph_pool_handle=lambda: (0, 1),
                device=lambda number: nullcontext(),
            ),
            "device": lambda kind, number: torch.device("cpu"),
            "as_tensor": as_tensor,
            "empty": empty,
        }

    def __getattr__(self, name: str) -> Any:
        return self._own[name] if name in self._own else getattr(torch, name)


class Shared:
    """A tensor on HostCuda's memory that gives the device's address for its own."""

    def __init__(self, tensor: torch.Tensor, address: int) -> None:
        self._tensor, self._address = tensor, address
        self.device = tensor.device

    def data_ptr(self) -> int:
        return self._address

    def __getitem__(self, part) -> torch.Tensor:
        return self._tensor[part]


def accepts(function: Any, *args: Any, **options: Any) -> None:
    """Raises TypeError where the real function would not take these arguments."""
    inspect.signature(function).bind(*args, **options)
