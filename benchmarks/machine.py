"""On what, when and how something was measured, as every result states it."""

from __future__ import annotations

import platform
import sys
from datetime import date
from pathlib import Path
from typing import Any

from engines.cores import available_cores
from tools.bench.machine import examine_machine


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
