"""PyCUDA's driver on the host: the part of it that streamseg calls, with real threads as streams.

It keeps PyCUDA's rules, so that breaking one fails here too: nothing works without a current
context; copies and launches run later, in their stream's order; what is allocated must be freed.
Addresses are real ones, so that kernels compiled for the host (host_nvcc.py) work on them.
"""

from __future__ import annotations

import ctypes
import itertools
import queue
import struct
import tempfile
import threading
import time
from importlib.machinery import ModuleSpec
from types import ModuleType

import numpy as np

# Bytes around an allocation that nobody may write to, and what they hold, as fresh memory does.
GUARD, POISON = 4096, 0xAA
# What cuMemAlloc aligns to.
_ALIGNED = 256


class HostCuda:
    """One process's CUDA: `module` stands in for pycuda.driver."""

    def __init__(self, devices: int = 1, name: str = "Stand-in GPU", capability=(8, 9)) -> None:
        cuda = self
        self.memory: dict[int, np.ndarray] = {}
        self._guards: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self.pinned = 0
        self.streams: dict[int, object] = {}
        self.failing: dict[str, str] = {}
        self.calls: list[str] = []
        self.name, self.capability = name, capability
        self._local = threading.local()
        self._numbers = itertools.count(4096, 4096)

        class Error(Exception):
            pass

        class LogicError(Error):
            pass

        class MemoryError_(Error):  # noqa: N801, N818 - PyCUDA's is called MemoryError
            pass

        def need_context(what: str) -> None:
            cuda.calls.append(what)
            if what in cuda.failing:
                raise LogicError(f"{what} failed: {cuda.failing.pop(what)}")
            if not cuda.stack:
                raise LogicError(f"{what} failed: invalid device context")

        class Context:
            def push(self) -> None:
                cuda.stack.append(self)

            @staticmethod
            def pop() -> None:
                if not cuda.stack:
                    raise LogicError("context::pop failed: cannot pop non-current context")
                cuda.stack.pop()

        class Device:
            def __init__(self, number: int) -> None:
                self._context = Context()

            @staticmethod
            def count() -> int:
                return devices

            def name(self) -> str:
                return cuda.name

            def compute_capability(self) -> tuple[int, int]:
                return cuda.capability

            def retain_primary_context(self) -> Context:
                return self._context

        class Stream:
            def __init__(self, flags: int = 0) -> None:
                need_context("cuStreamCreate")
                self.handle = next(cuda._numbers)
                cuda.streams[self.handle] = self
                self._jobs: queue.SimpleQueue = queue.SimpleQueue()
                self.error: str | None = None
                self.capturing: list | None = None
                threading.Thread(target=self._work, daemon=True).start()

            def _work(self) -> None:
                while True:
                    self._jobs.get()()

            def run(self, job) -> None:
                def safely() -> None:
                    try:
                        job()
                    except Exception as error:
                        self.error = str(error)

                if self.capturing is not None:
                    self.capturing.append(job)
                else:
                    self._jobs.put(safely)

            def wait_for_event(self, event) -> None:
                need_context("cuStreamWaitEvent")
                # What was recorded last when this is called, whatever is recorded later.
                recorded, done = event._recorded, event._done

                def job() -> None:
                    done.wait()
                    # What went wrong before the event reaches who waits for it.
                    if (failed := recorded.pop("stream", None)) is not None:
                        self.error, failed.error = failed.error, None

                self._jobs.put(job)

            def synchronize(self) -> None:
                need_context("cuStreamSynchronize")
                if self.capturing is not None:
                    self.capturing.append(None)
                    raise LogicError("cuStreamSynchronize failed: the stream is capturing")
                done = threading.Event()
                self._jobs.put(done.set)
                done.wait()

        class Event:
            def __init__(self, flags: int = 0) -> None:
                need_context("cuEventCreate")
                self._done, self._at, self._error = threading.Event(), 0.0, None
                self._done.set()
                self._recorded: dict[str, Stream] = {}

            def record(self, stream: Stream | None = None) -> Event:
                need_context("cuEventRecord")
                if stream is None:  # the default one, in which nothing is done here
                    return self
                self._done = done = threading.Event()

                def job() -> None:
                    self._at = time.perf_counter()
                    self._error, stream.error = stream.error, None
                    done.set()

                # An event that only times must not take an error away from the one waited for.
                self._recorded = recorded = {}

                def timing() -> None:
                    self._at = time.perf_counter()
                    if stream.error is not None:
                        recorded["stream"] = stream
                    done.set()

                stream._jobs.put(job if self.waited_for else timing)
                return self

            waited_for = False

            def synchronize(self) -> None:
                need_context("cuEventSynchronize")
                self._done.wait()
                if self._error is not None:
                    raise LogicError(f"cuEventSynchronize failed: {self._error}")

            def time_since(self, other: Event) -> float:
                need_context("cuEventElapsedTime")
                self._done.wait()
                other._done.wait()
                return 1000.0 * (self._at - other._at)

        class BlockingEvent(Event):
            waited_for = True

        def make_event(flags: int = 0) -> Event:
            return BlockingEvent(flags) if flags else Event(flags)

        class DeviceAllocation:
            def __init__(self, size: int) -> None:
                whole = np.full(size + 2 * GUARD + _ALIGNED, POISON, np.uint8)
                begin = GUARD + -(whole.ctypes.data + GUARD) % _ALIGNED
                memory = whole[begin : begin + size]
                self._address = memory.ctypes.data
                cuda.memory[self._address] = memory
                cuda._guards[self._address] = whole[:begin], whole[begin + size :]

            def __int__(self) -> int:
                return self._address

            def free(self) -> None:
                need_context("cuMemFree")
                if self._address not in cuda.memory:
                    raise LogicError("device_allocation::free failed: invalid context")
                del cuda.memory[self._address]
                for guard in cuda._guards.pop(self._address):
                    assert (guard == POISON).all(), "something wrote beside the allocation"

        class HostAllocation:
            def free(self) -> None:
                need_context("cuMemFreeHost")
                cuda.pinned -= 1

        class Pinned(np.ndarray):
            """An array whose base is its allocation, as PyCUDA's has."""

            @property
            def base(self):
                return self._allocation

        def mem_alloc(size: int) -> DeviceAllocation:
            need_context("cuMemAlloc")
            return DeviceAllocation(size)

        def pagelocked_empty(shape, dtype, order="C", mem_flags=0):
            need_context("cuMemHostAlloc")
            cuda.pinned += 1
            array = np.zeros(shape, dtype).view(Pinned)
            array._allocation = HostAllocation()
            return array

        def memcpy_htod_async(dest, src, stream=None) -> None:
            need_context("cuMemcpyHtoDAsync")
            assert src.flags.c_contiguous
            flat = src.reshape(-1).view(np.uint8)
            target = cuda.at(int(dest), flat.nbytes)
            stream.run(lambda: np.copyto(target, flat))

        def memcpy_htod(dest, src) -> None:
            need_context("cuMemcpyHtoD")
            flat = src.reshape(-1).view(np.uint8)
            np.copyto(cuda.at(int(dest), flat.nbytes), flat)

        def mem_get_info() -> tuple[int, int]:
            need_context("cuMemGetInfo")
            used = sum(memory.nbytes for memory in cuda.memory.values())
            return (8 << 30) - used, 8 << 30

        def memcpy_dtoh_async(dest, src, stream=None) -> None:
            need_context("cuMemcpyDtoHAsync")
            flat = dest.reshape(-1).view(np.uint8)
            assert np.shares_memory(flat, dest)
            source = cuda.at(int(src), flat.nbytes)
            stream.run(lambda: np.copyto(flat, source))

        class Function:
            def __init__(self, launch) -> None:
                self._launch = launch
                self._format: str | None = None

            def prepare(self, arg_types: str) -> Function:
                self._format = arg_types
                return self

            def prepared_async_call(self, grid, block, stream, *args, shared_size=0) -> None:
                need_context("cuLaunchKernel")
                assert self._format is not None, "a function is prepared before it is called"
                buffer = struct.pack(self._format, *args)
                dims = [(*sizes, 1, 1)[:3] for sizes in (grid, block)]
                threads = np.prod(dims[1])
                if min(map(min, dims)) < 1 or threads > 1024 or max(dims[0][1:]) > 65535:
                    raise LogicError("cuLaunchKernel failed: invalid argument")
                arrays = [(ctypes.c_uint * 3)(*sizes) for sizes in dims]

                def job() -> None:
                    if self._launch(*arrays, buffer, ctypes.c_size_t(len(buffer))):
                        raise LogicError("the arguments are not those of the kernel")

                stream.run(job)

        class Module:
            def __init__(self, library) -> None:
                self._library = library

            def get_function(self, name: str) -> Function:
                try:
                    return Function(self._library[f"launch_{name}"])
                except AttributeError:
                    raise LogicError("cuModuleGetFunction failed: named symbol not found") from None

        def module_from_buffer(buffer: bytes) -> Module:
            need_context("cuModuleLoadDataEx")
            with tempfile.NamedTemporaryFile(suffix=".so") as file:
                file.write(buffer)
                file.flush()
                try:
                    return Module(ctypes.CDLL(file.name))
                except OSError:
                    raise LogicError(
                        "cuModuleLoadDataEx failed: device kernel image is invalid"
                    ) from None

        def init(flags: int = 0) -> None:
            if "cuInit" in cuda.failing:
                raise LogicError(f"cuInit failed: {cuda.failing['cuInit']}")

        class event_flags:  # noqa: N801 - PyCUDA's name
            BLOCKING_SYNC = 1

        self.module = ModuleType("pycuda.driver")
        for value in (Error, LogicError, Context, Device, Stream, DeviceAllocation, mem_alloc):
            setattr(self.module, value.__name__, value)
        for value in (pagelocked_empty, memcpy_htod_async, memcpy_dtoh_async, init, event_flags):
            setattr(self.module, value.__name__, value)
        for value in (Module, Function, module_from_buffer, memcpy_htod, mem_get_info):
            setattr(self.module, value.__name__, value)
        self.module.Event = make_event

    @property
    def stack(self) -> list:
        """This thread's contexts."""
        if not hasattr(self._local, "stack"):
            self._local.stack = []
        return self._local.stack

    def at(self, address: int, size: int) -> np.ndarray:
        """Device memory from an address on, which must lie in one allocation."""
        for begin, memory in self.memory.items():
            if begin <= address and address + size <= begin + memory.size:
                return memory[address - begin : address - begin + size]
        raise self.module.LogicError("illegal memory access")

    @property
    def live(self) -> int:
        """Allocations that nobody has freed."""
        return len(self.memory) + self.pinned

    def install(self, modules: dict) -> None:
        package = ModuleType("pycuda")
        package.__spec__ = ModuleSpec("pycuda", None, origin="stand-in")
        package.driver = self.module
        modules["pycuda"], modules["pycuda.driver"] = package, self.module
