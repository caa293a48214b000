"""Where a benchmark ran, and whether it had the machine to itself."""

from __future__ import annotations

import os
import platform
import time
from contextlib import suppress
from pathlib import Path

from engines.choose import has_nvidia_gpu
from engines.cores import available_cores
from tools.bench.result import Machine
from tools.doctor import installed_version

_LIBRARIES = (
    "streamseg", "numpy", "opencv-python", "av", "openvino", "onnx", "onnxruntime", "tensorrt",
    "pycuda", "torch",
)  # fmt: skip


def examine_machine() -> Machine:
    """What is known before anything is measured."""
    gpus, driver = _gpus()
    return Machine(
        cpu=_cpu(),
        cores=available_cores(),
        memory_gb=_memory_gb(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        gpus=gpus,
        driver=driver,
        versions={name: installed_version(name) for name in _LIBRARIES},
        load_before=load_average(),
    )


def load_average() -> list[float] | None:
    """Processes that ran or wanted to, averaged over 1, 5 and 15 minutes; None where unknown."""
    try:
        return [round(value, 2) for value in os.getloadavg()]
    except (AttributeError, OSError):  # Windows; a container that hides it
        return None


class OthersMeter:
    """How much of the processors other programs use, from its making on (Linux)."""

    def __init__(self) -> None:
        self._begun = self._now()

    def percent(self) -> float | None:
        """Of all cores' time; None where the system does not tell."""
        now = self._now()
        if self._begun is None or now is None:
            return None
        total, busy, own = (b - a for a, b in zip(self._begun, now, strict=True))
        if total <= 0:
            return None
        return round(min(100.0, max(0.0, 100 * (busy - own) / total)), 1)

    @staticmethod
    def _now() -> tuple[float, float, float] | None:
        """Seconds of all cores, those of them at work, and those at work for this process."""
        try:
            words = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
            ticks = [int(word) for word in words[1:9]]
            each = 1 / os.sysconf("SC_CLK_TCK")
        except (OSError, ValueError, AttributeError):
            return None
        # proc(5): user nice system idle iowait irq softirq steal
        total, idle = sum(ticks), ticks[3] + ticks[4]
        return total * each, (total - idle) * each, time.process_time()


def _cpu() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1)
    except (AttributeError, OSError, ValueError):
        return None


def _gpus() -> tuple[list[str], str | None]:
    """Names of the NVIDIA GPUs and their driver's version."""
    if not has_nvidia_gpu():
        return [], None
    from engines.cuda.device import driver_version, query_gpus

    return [row[0] for row in query_gpus("name")], driver_version()
