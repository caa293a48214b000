"""On what, when and how something was measured, as every result states it."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

from engines.cores import available_cores
from tools.bench.machine import examine_machine

T = TypeVar("T")


def describe() -> dict[str, Any]:
    """Command, date, machine and Python, for the top of a result."""
    module = Path(sys.argv[0]).stem
    words = ["python", "-m", f"benchmarks.{module}", *(Path(a).name for a in sys.argv[1:])]
    return {
        "command": " ".join(words),
        "date": date.today().isoformat(),
        "machine": f"{examine_machine().cpu}, {available_cores()} cores",
        "python": platform.python_version(),
    }


def undisturbed(run: Callable[[], T], most: float = 0.05, wait_s: float = 600.0) -> T:
    """What `run` returns, called when no other program is at work, and again if one took more
    than `most` of the cores' time meanwhile (this process and those that it started and waited for
    are not others). Raises RuntimeError after `wait_s`; without /proc/stat it cannot tell.
    """
    until = time.monotonic() + wait_s
    while time.monotonic() < until:
        if _others(lambda: time.sleep(1))[1] > most:
            continue
        result, others = _others(run)
        if others <= most:
            return result
        print(f"again: other programs took {others:.0%} of the cores", flush=True)
    raise RuntimeError(f"other programs kept taking more than {most:.0%} of the cores")


def _others(run: Callable[[], T]) -> tuple[T, float]:
    """What `run` returns, and the share of the cores' time that others took meanwhile."""
    begun, all_s, own_s = time.perf_counter(), _machine_cpu_s(), sum(os.times()[:4])
    result = run()
    own_s = sum(os.times()[:4]) - own_s
    available_s = (time.perf_counter() - begun) * (os.cpu_count() or 1)
    return result, (_machine_cpu_s() - all_s - own_s) / available_s


def _machine_cpu_s() -> float:
    """Seconds that all cores together have not been idle since the machine was started."""
    try:
        line = Path("/proc/stat").read_text().splitlines()[0]
    except OSError:
        return 0.0
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, line.split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
