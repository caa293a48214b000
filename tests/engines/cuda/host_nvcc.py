"""An `nvcc` for PATH that compiles kernels for the host: what it writes is a shared library, which
HostCuda's module_from_buffer loads where PyCUDA's loads a cubin.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

SHIM = Path(__file__).with_name("shim.h")
# No contraction, as nvcc's -fmad=false; kernels read words of bytes, which is alias-safe in CUDA.
FLAGS = ["-x", "c++", "-std=c++17", "-O2", "-shared", "-fPIC"]
FLAGS += ["-ffp-contract=off", "-fno-strict-aliasing"]
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]


def install(folder: Path) -> Path:
    """Puts the program into a folder, and a log of its calls beside it, which is returned."""
    log = folder / "calls.log"
    program = folder / "nvcc"
    program.write_text(
        f"#!/bin/sh\necho \"$*\" >> '{log}'\nexec '{sys.executable}' '{__file__}' \"$@\"\n"
    )
    program.chmod(0o755)
    log.write_text("")
    return log


def main() -> None:
    words = sys.argv[1:]
    source = next(w for w in words if w.endswith(".cu"))
    out = words[words.index("-o") + 1]
    text = Path(source).read_text(encoding="utf-8")
    names = re.findall(r'extern "C" __global__ void (\w+)', text)
    whole = f'#include "{SHIM}"\n#line 1 "{source}"\n{text}\n'
    whole += "".join(f"LAUNCHER({name})\n" for name in names)
    call = ["g++", *FLAGS, *WARNINGS, "-o", out, "-"]
    sys.exit(subprocess.run(call, input=whole, text=True, check=False).returncode)


if __name__ == "__main__":
    main()
