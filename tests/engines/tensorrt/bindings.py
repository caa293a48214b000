"""What the real TensorRT bindings say of themselves: every class, member, enum and signature.

The Python bindings are a small wheel of their own. They load without TensorRT once stub libraries
stand in for it, so their signatures can be read on a machine without a GPU. Each version is read in
a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

# Distribution and version: each that streamseg supports, and the one of JetPack 6.
VERSIONS = {
    "11.4": ("tensorrt-cu13-bindings", "11.4.0.106"),
    "10.13": ("tensorrt-cu13-bindings", "10.13.3.9"),
    "10.3": ("tensorrt-cu12-bindings", "10.3.0"),
    "8.6": ("tensorrt-bindings", "8.6.1"),
}
# The libraries that the bindings were linked with.
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser", "nvparsers")

_READ = """
import json, sys
import tensorrt_bindings as trt
out = {"version": trt.__version__, "classes": {}, "enums": {}}
def walk(prefix, owner):
    for name, value in vars(owner).items():
        if name.startswith("_") or not isinstance(value, type):
            continue
        if value.__module__.split(".")[0] != "tensorrt_bindings":
            continue
        full = prefix + name
        if full in out["classes"] or full in out["enums"]:
            continue
        if hasattr(value, "__members__"):
            out["enums"][full] = {k: int(v) for k, v in value.__members__.items()}
            continue
        members = {}
        for base in reversed(value.__mro__):
            if base is object:
                continue
            for key, member in vars(base).items():
                if key == "__init__" or not key.startswith("_"):
                    kind = "property" if isinstance(member, property) else "method"
                    members[key] = [kind, getattr(member, "__doc__", None) or ""]
        out["classes"][full] = members
        walk(full + ".", value)
walk("", trt)
json.dump(out, sys.stdout)
"""


def read_bindings(name: str, folder: Path) -> dict:
    """Fetches the wheel of one of VERSIONS, stubs what it is linked with, and reads it."""
    distribution, version = VERSIONS[name]
    call = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    call += [
        "--no-deps",
        "--only-binary=:all:",
        "--dest",
        str(folder),
        f"{distribution}=={version}",
    ]
    subprocess.run(call, check=True, timeout=120)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder)
    bindings = folder / "tensorrt_bindings" / "tensorrt.so"
    symbols = subprocess.run(
        ["nm", "-D", "--undefined-only", str(bindings)], check=True, capture_output=True, text=True
    ).stdout.split("\n")
    wanted = [line.split()[1] for line in symbols if line.split()[:1] == ["U"]]
    # Those of the C library carry a version, Python's come from the interpreter.
    ours = [s for s in wanted if "@" not in s and not s.lstrip("_").startswith("Py")]
    source = folder / "stub.c"
    source.write_text("".join(f"void *{symbol}(void) {{ return 0; }}\n" for symbol in ours))
    major = version.split(".")[0]
    for library in LIBRARIES:
        file = f"lib{library}.so.{major}"
        flags = ["-w", "-shared", "-fPIC", f"-Wl,-soname,{file}", "-o", str(folder / file)]
        subprocess.run(["gcc", *flags, str(source)], check=True)
    env = {**os.environ, "LD_LIBRARY_PATH": str(folder), "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", _READ], check=True, capture_output=True, text=True, env=env
    )
    return json.loads(done.stdout)
