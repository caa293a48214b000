"""`streamseg doctor`: what this machine can do, what `auto` will choose, and why."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer

_LIBRARIES = ("numpy", "opencv-python", "av", "openvino", "onnx", "onnxruntime")


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
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
    for gpu in found["nvidia"]:
        print(f"nvidia    {gpu}")
    if not found["nvidia"]:
        print("nvidia    no GPU, or no driver (nvidia-smi finds none)")
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

    engines = {"openvino": _openvino(), "onnxruntime": _onnxruntime()}
    choice = choose_engine()
    devices = engines[choice.engine]["devices"]
    cpu = next((d for d in devices if d["device"] == "CPU"), None)
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_version()} ({sys.executable})",
        "cores": available_cores(),
        "libraries": {name: _version(name) for name in _LIBRARIES},
        "cache": None if (folder := cache_dir()) is None else str(folder),
        "nvidia": _nvidia(),
        "engines": engines,
        "encoder": choose_encoder(".mp4").name,
        "auto": {
            "engine": choice.engine,
            "device": "CPU",
            "precision": cpu["default"] if cpu else None,
            "why": choice.why,
        },
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


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


def _nvidia() -> list[str]:
    """Name and driver of each NVIDIA GPU, as its driver's own tool reports them."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    query = [tool, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]
