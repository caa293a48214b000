"""`streamseg doctor`: what this machine can do, what `auto` will choose, and why."""

from __future__ import annotations

import json
import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from tools.nvidia import examine_nvidia, nvidia_lines

_LIBRARIES = ("numpy", "opencv-python", "av", "openvino", "onnx", "onnxruntime", "torch")


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Say what this machine can do and what `auto` will choose."""
    found = examine()
    if as_json:
        print(json.dumps(found, indent=2))
        return
    print(f"system    {found['system']}")
    print(f"python    {found['python']}")
    print(f"cores     {found['cores']} usable")
    libraries = (f"{name} {v or '(not installed)'}" for name, v in found["libraries"].items())
    print(f"libraries {', '.join(libraries)}")
    print(
        f"cache     {found['cache'] or 'none: no folder of yours is writable, starts are slower'}"
    )
    for line in nvidia_lines(found["nvidia"]):
        print(f"nvidia    {line}")
    for name, engine in found["engines"].items():
        if engine["problem"]:
            print(f"engine    {name}: {engine['problem']}")
        for device in engine["devices"]:
            print(
                f"engine    {name} on {device['device']} ({device['name']}): "
                f"{', '.join(device['precisions'])}"
            )
    print(f"encoder   {found['encoder']} (H.264)")
    chosen = found["auto"]
    runs = f"{chosen['engine']} on {chosen['device']}, {chosen['precision']}"
    print(f"auto      {runs}: {chosen['why']}")


def examine() -> dict[str, Any]:
    """What `doctor` prints, as JSON has it."""
    from engines.cache import cache_dir
    from engines.choose import choose_engine
    from engines.cores import available_cores
    from pipeline.sinks.encoder import choose_encoder

    nvidia = examine_nvidia()
    engines = {
        "tensorrt": _tensorrt(nvidia),
        "openvino": _openvino(),
        "onnxruntime": _onnxruntime(),
        "torch": _torch(nvidia),
    }
    choice = choose_engine()
    devices = engines[choice.engine]["devices"]
    # Without --device: CUDA's first GPU, or the processor.
    first = "0" if choice.engine == "tensorrt" else "CPU"
    used = next((d for d in devices if d["device"] == first), None)
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_version()} ({sys.executable})",
        "cores": available_cores(),
        "libraries": {name: installed_version(name) for name in _LIBRARIES},
        "cache": None if (folder := cache_dir()) is None else str(folder),
        "nvidia": nvidia,
        "engines": engines,
        "encoder": choose_encoder(".mp4").name,
        "auto": {
            "engine": choice.engine,
            "device": "GPU 0" if first == "0" else first,
            "precision": used["default"] if used else None,
            "why": choice.why,
        },
    }


def installed_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _tensorrt(nvidia: dict[str, Any]) -> dict[str, Any]:
    """Its devices are the GPUs, if nothing that it needs is missing."""
    if not nvidia["gpus"]:
        return {"problem": "needs an NVIDIA GPU", "devices": []}
    needed = {"TensorRT": nvidia["tensorrt"], "PyCUDA": nvidia["pycuda"]}
    bad = [name for name, row in needed.items() if row["problem"]]
    if bad:
        return {"problem": f"{' and '.join(bad)} missing or unusable, see above", "devices": []}
    # BF16 came with TensorRT 10.
    bf16 = int(nvidia["tensorrt"]["version"].split(".")[0]) >= 10
    return {"problem": None, "devices": [_gpu(gpu, bf16) for gpu in nvidia["gpus"]]}


def _openvino() -> dict[str, Any]:
    from engines.choose import is_installed

    if not is_installed("openvino"):
        return {"problem": "not installed; pip install openvino", "devices": []}
    try:
        from engines.openvino_engine import (
            available_devices,
            available_precisions,
            default_precision,
        )
    except ImportError as error:
        return {"problem": f"installed, but cannot be imported: {error}", "devices": []}
    devices = [
        {
            "device": device,
            "name": name,
            "precisions": available_precisions(device),
            "default": default_precision(device),
        }
        for device, name in available_devices().items()
    ]
    return {"problem": None, "devices": devices}


def _onnxruntime() -> dict[str, Any]:
    from engines.choose import is_installed

    if not is_installed("onnxruntime"):
        problem = (
            "not installed; pip install 'streamseg[onnxruntime]' (only for --engine onnxruntime)"
        )
        return {"problem": problem, "devices": []}
    name = platform.processor() or platform.machine()
    row = {"device": "CPU", "name": name, "precisions": ["fp32"], "default": "fp32"}
    return {"problem": None, "devices": [row]}


def _torch(nvidia: dict[str, Any]) -> dict[str, Any]:
    """Its devices are the GPUs, if it is built for them, and the processor.

    Nothing is imported: that takes seconds, and tells no more.
    """
    from engines.choose import is_installed

    if not is_installed("torch"):
        problem = "not installed; pip install 'streamseg[models]' (only for --engine torch)"
        return {"problem": problem, "devices": []}
    name = platform.processor() or platform.machine()
    row = {"device": "CPU", "name": name, "precisions": ["fp32", "bf16"], "default": "fp32"}
    gpus = nvidia["gpus"] if torch_cuda() else []
    return {"problem": None, "devices": [*(_gpu(gpu, bf16=True) for gpu in gpus), row]}


def torch_cuda() -> str | None:
    """The CUDA that the installed torch is built for; None without CUDA, and without torch."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    said = re.search(
        r"^cuda\b.*= '([\d.]+)'",
        (Path(spec.origin).parent / "version.py").read_text(),
        re.MULTILINE,
    )
    return said[1] if said else None


def _gpu(gpu: dict[str, Any], bf16: bool) -> dict[str, Any]:
    """A GPU as a device of an engine that computes in FP16 by itself."""
    capability = gpu["compute_capability"]
    # BF16 came with Ampere, compute capability 8.0.
    old = capability is not None and int(capability.split(".")[0]) < 8
    row = {"device": str(gpu["number"]), "name": gpu["name"], "default": "fp16"}
    return {**row, "precisions": ["fp16", "fp32", *(["bf16"] if bf16 and not old else [])]}
