"""One NVIDIA GPU, its name for people and passports, and its context.

The context is the device's *primary* one, which the CUDA runtime, TensorRT and torch use too, so
their memory and streams are good in each other's hands. PyCUDA takes memory, streams and events
for dead in any other `Context` object, even one of the same context, so there is one object a
device for the life of the process, and every thread pushes and pops that one around its work.
"""

# mypy: disable-error-code="import-not-found, import-untyped, unused-ignore"

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from engines.errors import EngineUnavailableError

INSTALL = "pip install 'streamseg[tensorrt]' (PyCUDA compiles: it needs the CUDA toolkit and gcc)"


class Device:
    """One GPU; get it from `open_device`."""

    def __init__(self, number: int, device: Any) -> None:
        major, minor = device.compute_capability()
        self.number = number
        self.name: str = device.name()
        self.compute_capability = f"{major}.{minor}"
        self.driver = driver_version()
        self._context = device.retain_primary_context()

    @contextmanager
    def current(self) -> Iterator[None]:
        """The device's context is this thread's for the block."""
        import pycuda.driver as cuda

        # A thread that ends with a context still pushed aborts the process, hence the `finally`.
        self._context.push()
        try:
            yield
        finally:
            cuda.Context.pop()


def open_device(number: int = 0) -> Device:
    """The GPU with CUDA's number; always the same object.

    Raises EngineUnavailableError where PyCUDA, a driver or that GPU is missing.
    """
    return _open(number)


@cache
def _open(number: int) -> Device:
    count = count_devices()
    if number < count:
        import pycuda.driver as cuda

        return Device(number, cuda.Device(number))
    raise EngineUnavailableError(
        f"there is no GPU {number} here; there are {count}, counted from 0 (`streamseg doctor`)"
    )


def count_devices() -> int:
    """How many GPUs CUDA lets this process see; raises EngineUnavailableError without PyCUDA or a
    driver.
    """
    try:
        import pycuda.driver as cuda
    except ImportError as error:
        raise EngineUnavailableError(f"PyCUDA cannot be imported ({error}); {INSTALL}") from None
    try:
        cuda.init()
        return int(cuda.Device.count())
    except cuda.Error as error:
        raise EngineUnavailableError(
            f"no usable NVIDIA driver: {error}; `streamseg doctor` says more"
        ) from None


def device_number(device: str | None) -> int:
    """What `--device` means to an engine on an NVIDIA GPU: CUDA's number, 0 if not given."""
    if device is None:
        return 0
    if device == "all" or "," in device:
        raise EngineUnavailableError(
            f"--device {device} spreads several sources over GPUs; one runs on one, such as 0"
        )
    if not device.isdecimal():
        raise EngineUnavailableError(
            f"device {device!r} is no NVIDIA GPU; name it by its number: 0, 1, ..."
        )
    return int(device)


@lru_cache(maxsize=1)
def driver_version() -> str:
    """The NVIDIA driver's version, such as 580.65.06; `unknown` where nothing tells it."""
    for place in ("/sys/module/nvidia/version", "/proc/driver/nvidia/version"):
        try:
            text = Path(place).read_text()
        except OSError:
            continue
        numbers = [w for w in text.split() if w[:1].isdigit() and w.count(".") >= 1]
        if numbers:
            return numbers[0]
    rows = query_gpus("driver_version")
    return rows[0][0] if rows else "unknown"


def query_gpus(*fields: str) -> list[list[str]]:
    """Fields of each GPU as nvidia-smi gives them; empty where there is none or it does not answer.

    The names are those of `nvidia-smi --help-query-gpu`.
    """
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    query = [tool, f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    return [[value.strip() for value in line.split(",")] for line in lines]
